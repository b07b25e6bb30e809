"""Every method on the same models and data, by ``bilo-ppl compare``: a table for each case.

    python benchmarks/compare_tables.py [--cases NAME ...] [--methods NAME,...] [--seeds N] [--again]

A case is a command line: a model, for Fisher-KPP also with other noise, and numbers of draws that a
numerical operator can pay for. For every case and data set the command runs once, with those methods of
the case that the file does not have yet; a record is the row of one method on one data set, as
compare.json of the command has it. So a study that was interrupted goes on where it was. Methods run one
after the other, each in a process of its own on one thread; a command begins with an empty folder of
compiled programs. Where no grid gives the exact posterior, others are compared with the draws of the
numerical operator, which then runs once more beside them.
``--seeds`` is the number of data sets, ``--data-seed`` 0, 1, ... of the command; the tables are of all
that the file has.
"""

import argparse
import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from commands import ONE_THREAD, run_command, write_records

from bilo_ppl.run.compare.methods import ALIASES, METHODS
from bilo_ppl.run.compare.table import table

HERE = pathlib.Path(__file__).resolve().parent

PINN = ALIASES["pinn"]
ESTIMATES = ("bilo", "adjoint", *PINN, "deeponet", "fno", "dino")
POSTERIORS = ("bilo", "numerical", "adjoint", *PINN, "deeponet", "fno", "dino", "b-pinn", "rwm")
FEWER = ("--chains", "2", "--warmup", "200", "--samples", "300")


class Case(NamedTuple):
    """Arguments of a command, and the methods that make sense there."""

    arguments: tuple[str, ...]
    methods: tuple[str, ...]
    gridded: bool = True
    """Whether the exact posterior is known without draws."""


CASES = {
    "nonlinear_poisson": Case(("nonlinear_poisson",), POSTERIORS),
    "fisher_kpp": Case(("fisher_kpp", *FEWER), POSTERIORS),
    "fisher_kpp, noise 0": Case(("fisher_kpp", "--noise", "0", *FEWER), ESTIMATES),
    "fisher_kpp, noise 0.1": Case(("fisher_kpp", "--noise", "0.1", *FEWER), ESTIMATES),
    # pCN proposes from Gaussian priors only.
    "variable_poisson": Case(("variable_poisson", *FEWER), (*POSTERIORS, "pcn"), gridded=False),
    "gene_expression": Case(("gene_expression",), POSTERIORS),
    "boundary_toy": Case(("boundary_toy",), (*POSTERIORS, "pcn")),
}

COLUMNS = ("error u %", "mean off, sd", "sd ratio", "TV", "ESS", "R-hat", "CPU s", "notes")
"""Of the command's own table, after the errors of the unknowns."""


def main() -> None:
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    records = json.loads(out.read_text()) if out.exists() else []
    known = {_name(record): record for record in records}
    for case in arguments.cases:
        wanted = arguments.methods.split(",") if arguments.methods else CASES[case].methods
        asked = [method for method in CASES[case].methods if method in wanted]
        for seed in range(arguments.seeds):
            lacking = [m for m in asked if arguments.again or (case, seed, m) not in known]
            if lacking:
                for record in measured(case, seed, lacking, arguments.limit):
                    known[_name(record)] = record
                write_records(out, [known[name] for name in sorted(known, key=_order)])
        rows = [record["row"] for name, record in known.items() if name[0] == case]
        if rows:
            print(f"\n{case}\n\n{shown(rows)}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--methods", default="", help="of the cases', with commas; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="number of data sets")
    parser.add_argument("--limit", type=float, default=1800.0, help="wall seconds of one method")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--out", default=str(HERE / "results" / "compare.json"))
    return parser.parse_args()


def _name(record: dict[str, Any]) -> tuple[str, int, str]:
    return record["case"], record["row"]["seed"], record["row"]["method"]


def _order(name: tuple[str, int, str]) -> tuple[int, int, int]:
    case, seed, method = name
    return list(CASES).index(case), seed, list(METHODS).index(method)


def measured(case: str, seed: int, methods: Sequence[str], limit: float) -> list[dict[str, Any]]:
    """A record for each of the methods, of one command."""
    beside = [] if CASES[case].gridded or "numerical" in methods else ["numerical"]
    run = list(dict.fromkeys([*beside, *methods]))
    options = ["--methods", ",".join(run), "--data-seed", str(seed), "--limit", f"{limit:g}"]
    command = ["compare", *CASES[case].arguments, *options]
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) / "compare"
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        ran = run_command(command, results, (limit + 60) * len(run), {**ONE_THREAD, **cache})
        scores = results / "compare.json"
        if not scores.is_file():
            raise SystemExit(f"bilo-ppl {' '.join(command)}: {ran.message or 'not ended in time'}")
        rows = json.loads(scores.read_text())["rows"]
    versions = {name: ran.written.get("versions", {}).get(name) for name in ("python", "jax")}
    told = {"case": case, "command": f"bilo-ppl {' '.join(command)}", "versions": versions}
    return [{**told, "row": row} for row in rows if row["method"] in methods]


def shown(rows: list[dict[str, Any]]) -> str:
    """The command's table of all data sets, in Markdown; empty columns are left out."""
    frame = table(sorted(rows, key=lambda row: list(METHODS).index(row["method"])))
    errors = [name for name in frame if name.startswith("error ") and name not in COLUMNS]
    said = [
        name for name in (*errors, *COLUMNS) if (frame[name].notna() & frame[name].ne("")).any()
    ]
    lines = [["method", "data sets", *said], ["---"] * (len(said) + 2)]
    for method, line in frame.iterrows():
        done = [row for row in rows if row["method"] == method and "failed" not in row]
        lines.append([str(method), str(len(done)), *(_cell(line[name]) for name in said)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or value != value else f"{value:.3g}"


if __name__ == "__main__":
    main()

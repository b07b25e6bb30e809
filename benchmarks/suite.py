"""The papers' Bayesian problems by ``bilo-ppl run NAME``, beside exact and numerical posteriors.

    python benchmarks/suite.py [--cases NAME ...] [--again] [--out FILE.json]

Each case is a run with default settings in a process of its own, on one thread, with an empty folder of
compiled programs; the rows of gene expression are the papers' increments of several ranks, and all
weights. What is exact: the grid of the run itself where the model file has one; the Gaussian posterior
where u is linear in the unknowns; else the draws of a second run, by the numerical operator, which also
says what that costs. Of the models that are not the papers' one is hierarchical, and one does not know
the noise of its data. A mean agrees within 4 Monte Carlo errors + 0.05 sd, an sd within 5 % + 2 of its.
"""

import argparse
import json
import math
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.handlers as handlers
from commands import ONE_THREAD, ROOT, Ran, alarms, run_command, write_records

from bilo_ppl.run.model_file import load_model

HERE = pathlib.Path(__file__).resolve().parent
STANDARD_ERRORS, OF_SD, SPREAD = 4.0, 0.05, 0.05
INCREMENTS = ["--fine-tune", "increments", "--rank"]

CASES = {
    "poisson": ["poisson"],
    "nonlinear_poisson": ["nonlinear_poisson"],
    "boundary_toy": ["boundary_toy"],
    "variable_poisson": ["variable_poisson"],
    "heat_initial": ["heat_initial"],
    "fisher_kpp": ["fisher_kpp"],
    "gene_expression": ["gene_expression"],
    "hierarchy": ["benchmarks/gallery/hierarchy.py"],
    "unknown noise": ["benchmarks/gallery/cooling.py"],
    "gene_expression, rank 2": ["gene_expression", *INCREMENTS, "2"],
    "gene_expression, rank 4": ["gene_expression", *INCREMENTS, "4"],
    "gene_expression, all weights": ["gene_expression", *INCREMENTS, "0"],
}
LINEAR = ("heat_initial",)
"""Models whose data are Gaussian about what is linear in standard normal unknowns."""

NUMERICAL = ["--operator", "numerical", "--chains", "2", "--warmup", "300", "--samples", "1000"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--time-limit", type=float, default=1500.0, help="wall seconds of one run")
    parser.add_argument("--out", default=str(HERE / "results" / "suite.json"))
    arguments = parser.parse_args()
    out = pathlib.Path(arguments.out)
    records = json.loads(out.read_text()) if out.exists() else []
    known = {record["case"]: record for record in records}
    jax.config.update("jax_enable_x64", True)
    for case in arguments.cases:
        if arguments.again or case not in known:
            known[case] = measured(case, arguments.time_limit, known)
            write_records(out, [known[name] for name in CASES if name in known])
        print(line(known[case]), flush=True)


def measured(case: str, time_limit: float, known: dict[str, Any]) -> dict[str, Any]:
    """A record: the run, the same model by the numerical operator, and how they compare."""
    command, model = CASES[case], CASES[case][0]
    with tempfile.TemporaryDirectory() as folder:
        run = _run(["run", *command], pathlib.Path(folder) / "run", time_limit)
        # The numerical operator does not know which weights would be tuned.
        beside = known.get(model, {}).get("numerical") if case != model else None
        if beside is None:
            other = ["run", model, *NUMERICAL]
            beside = _figures(_run(other, pathlib.Path(folder) / "numerical", time_limit))
    return {"case": case, **_figures(run), "numerical": beside, "exact": _exact(model, run, beside)}


def _run(command: list[str], results: pathlib.Path, time_limit: float) -> Ran:
    cache = {"JAX_COMPILATION_CACHE_DIR": str(results.parent / f"cache {results.name}")}
    return run_command(command, results, time_limit, ONE_THREAD | cache)


def _figures(run: Ran) -> dict[str, Any]:
    written = run.written
    certificates = written.get("certificates", {})
    return {
        "status": run.status,
        "message": run.message if run.status else "",
        "summary": written.get("summary", {}),
        "cpu_seconds": written.get("cpu_seconds", {}),
        "certificates": {name: found["good"] for name, found in certificates.items()},
        "alarms": [text for text in alarms(written) if text != "no certificate"],
        "inner": written.get("inner_report", ""),
        "distances": {
            name: found["total_variation"] for name, found in written.get("distances", {}).items()
        },
        "grid": {
            name: [found["exact_mean"], found["exact_sd"]]
            for name, found in written.get("distances", {}).items()
        },
    }


def _exact(model: str, run: Ran, beside: dict[str, Any]) -> dict[str, Any]:
    """By entry: mean, sd and Monte Carlo error of the mean; and what they are from."""
    grid = _figures(run)["grid"]
    if grid:
        return {"from": "grid", "moments": {name: [*pair, 0.0, 0.0] for name, pair in grid.items()}}
    if model in LINEAR:
        return {"from": "closed form", "moments": _gaussian(model, run)}
    moments = {
        name: [row["mean"], row["sd"], row["mcse_mean"], row["sd"] / math.sqrt(2 * row["ess_bulk"])]
        for name, row in beside["summary"].items()
    }
    return {"from": "numerical operator", "moments": moments}


def _gaussian(model: str, run: Ran) -> dict[str, Any]:
    """The posterior of standard normal unknowns, by derivatives of predictions on a finer grid."""
    file = load_model(ROOT / "models" / f"{model}.py").for_sampling()
    data, operator = file.observations(run.written["seeds"]["data"]), file.reference().refined()

    def traced(values: Any) -> Any:
        model = handlers.substitute(handlers.seed(file.model, jax.random.key(0)), values)
        return handlers.trace(model).get_trace(operator, *data.model_args, **data.model_kwargs)

    (name,) = (
        site["name"]
        for site in traced({}).values()
        if site["type"] == "sample" and not site["is_observed"]
    )
    size = int(np.prod(traced({})[name]["fn"].shape()))

    def seen(unknowns: Any) -> Any:
        return traced({name: unknowns})["y"]["fn"].mean

    mean, slopes = seen(jnp.zeros(size)), jax.jacfwd(seen)(jnp.zeros(size))
    precision = np.eye(size) + np.asarray(slopes.T @ slopes) / data.sigma**2
    pulled = np.asarray(slopes.T @ (jnp.asarray(data.y).ravel() - mean.ravel())) / data.sigma**2
    at, sds = np.linalg.solve(precision, pulled), np.sqrt(np.diag(np.linalg.inv(precision)))
    return {f"{name}[{i}]": [float(at[i]), float(sds[i]), 0.0, 0.0] for i in range(size)}


def compared(record: dict[str, Any]) -> dict[str, float]:
    """The largest differences from what is exact, in units of what is allowed and as they are."""
    off, in_sd, ratios, allowed = [], [], [], []
    for name, (mean, sd, error, spread) in record["exact"]["moments"].items():
        row = record["summary"][name]
        apart = abs(row["mean"] - mean)
        off.append(apart / (STANDARD_ERRORS * math.hypot(row["mcse_mean"], error) + OF_SD * sd))
        in_sd.append(apart / sd)
        ratios.append(row["sd"] / sd)
        own = row["sd"] / math.sqrt(2 * row["ess_bulk"])
        allowed.append(abs(row["sd"] / sd - 1) / (SPREAD + 2 * math.hypot(own, spread) / sd))
    return {
        "mean": max(off),
        "in_sd": max(in_sd),
        "least_ratio": min(ratios),
        "largest_ratio": max(ratios),
        "sd": max(allowed),
    }


def line(record: dict[str, Any]) -> str:
    """A row of the table."""
    if record["status"] != 0:
        return f"| {record['case']} | stopped: {record['message'][:150]} |"
    found = compared(record)
    right = "yes" if max(found["mean"], found["sd"]) <= 1 else "NO"
    own, other = (_speed(run) for run in (record, record["numerical"]))
    certificates = ", ".join(
        f"{name} {'GOOD' if good else 'not good'}" for name, good in record["certificates"].items()
    )
    distances = ", ".join(f"{value:.3f}" for value in record["distances"].values())
    ratios = f"{found['least_ratio']:.2f} to {found['largest_ratio']:.2f}"
    return (
        f"| {record['case']} | {record['exact']['from']} | {found['in_sd']:.2f} | {ratios} | {distances} "
        f"| {right} | {certificates} | {own[0]:.0f} | {own[1]:.0f}, {own[2]:.1f} | {other[1]:.0f}, "
        f"{other[2]:.1f} |"
    )


def _speed(run: dict[str, Any]) -> tuple[float, float, float]:
    """CPU seconds in all; least effective draws per CPU second of sampling, and of all."""
    if run["status"] != 0:
        return math.nan, math.nan, math.nan
    ess = min(row["ess_bulk"] for row in run["summary"].values())
    total = sum(run["cpu_seconds"].values())
    return total, ess / run["cpu_seconds"]["sampling"], ess / total


if __name__ == "__main__":
    main()

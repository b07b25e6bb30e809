"""Simulation-based calibration of the whole method: are posteriors right on the average over the prior?

    python benchmarks/calibration.py [--problems NAME ...] [--operator adapted|features|exact] [--broken]
        [--replicates 500] [--folder FOLDER] [--out FILE]

For each replicate theta is drawn from the prior and data by an exact operator; the package's kernel
samples the posterior with a network that was adapted to the prior once (`bilo_ppl.calibrate`). The
calibration passes if the ranks of the unknowns and of the log-likelihood are uniform by chi square and by
the simultaneous band: all p-values above 0.01.

With ``--operator features`` the network is a layer of 128 random features, as in a run by default. Two
controls: ``--operator exact`` has the exact operator in the place of the network, and must pass too;
``--broken`` understates the noise to the model by 20 %, and must fail. Prints a table and adds the record
to the file. With ``--folder`` a run that was interrupted goes on; the rank plots lie there too.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import platform
import time
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro

import bilo_ppl as bilo
from benchmarks.calibration_cases import BROKEN, CASES, Case
from bilo_ppl.plots import plot_ranks, save_figure
from bilo_ppl.surrogates import prior_thetas

INNER_STEPS = 20
FEATURES, FEATURE_POINTS, TRIED = 128, 512, 8
WARMUP, KEPT = 300, 127


def to_prior(case: Case, operator: Any, key: Any) -> bilo.Adapted:
    """An operator adapted to the prior."""
    draws = case.prior_draws
    return bilo.adapt(
        case.model, key, operator, case.points, thetas="prior", draws=draws, progress=False
    )


def adapted_operator(case: Case, key: Any) -> tuple[Any, dict[str, Any]]:
    """A network fitted to the prior, for data of any theta; and what it took."""
    keys = jax.random.split(key, 3)
    begun = time.process_time()
    network = bilo.pretrain(case.problem, case.start, key=keys[0], progress=False).operator
    operator = bilo.FineTuned(
        network.with_lora(4, key=keys[1]),
        bilo.LevenbergMarquardt(tolerance=case.tolerance, max_steps=INNER_STEPS),
        bilo.PartialDerivative(),
    )
    adapted = to_prior(case, operator, keys[2])
    report, names = adapted.report, ("fraction_ready", "worst_loss", "thetas", "rounds", "ready")
    found = {"report": str(report)} | {name: getattr(report, name) for name in names}
    found["cpu_seconds"] = time.process_time() - begun
    return adapted.operators["u"], found


def featured_operator(case: Case, key: Any) -> tuple[Any, dict[str, Any]]:
    """Random features, chosen at draws from the prior and with known solutions there."""
    keys = jax.random.split(key, 3)
    begun, finer = time.process_time(), case.on(FEATURE_POINTS)
    draws = prior_thetas(case.model, keys[0], TRIED, case.exact(), case.points)
    thetas = [case.start, *({n: v[i] for n, v in draws.items()} for i in range(TRIED))]
    local, trials = bilo.choose_random_features(finer, thetas, count=FEATURES, key=keys[1])
    best = min(trials, key=lambda trial: trial.score)
    operator = bilo.OutputLayer(local, case.start, tolerance=case.tolerance, ridge=best.ridge)
    adapted = to_prior(case, operator, keys[2])
    found = {"report": str(adapted.report), "scale": str(best), "losses": best.losses}
    found["cpu_seconds"] = time.process_time() - begun
    return adapted.operators["u"], found


def calibrated(name: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], bilo.Calibration]:
    """The record of a problem, and its calibration."""
    case = CASES[name]
    key_operator, key = jax.random.split(jax.random.key(arguments.seed))
    exact = case.exact()
    operator, adaptation = exact, None
    if arguments.operator != "exact":
        make = adapted_operator if arguments.operator == "adapted" else featured_operator
        operator, adaptation = make(case, key_operator)
    title = f"{name}, {arguments.operator}" + ", broken" * arguments.broken
    begun = time.process_time()
    found = bilo.calibrate(
        case.kernel(case.model),
        key,
        operator,
        case.points,
        generator=case.generator,
        reference=exact,
        replicates=arguments.replicates,
        warmup=WARMUP,
        kept=KEPT,
        thin=case.thin,
        folder=None if arguments.folder is None else pathlib.Path(arguments.folder) / title,
        sigma=case.sigma * (BROKEN if arguments.broken else 1.0),
    )
    spent = time.process_time() - begun
    made = {"adaptation": adaptation, "thin": case.thin, "seed": arguments.seed}
    return record_of(title, found, spent, **made), found


def record_of(
    title: str, found: bilo.Calibration, spent: float, adaptation: Any, thin: int, seed: int
) -> dict[str, Any]:
    """What is stored of a calibration; of replicates done before, CPU s are not in ``spent``."""
    seconds = [record["cpu_seconds"] for record in found.records]
    sizes = [record["effective_draws"] for record in found.records]
    counts = ("num_steps", "inner_steps", "unsolved", "diverging", "redrawn")
    return {
        "name": title,
        "passes": found.passes(),
        "p_values": found.p_values,
        "replicates": len(found.records),
        "seed": seed,
        "sampling": {"warmup": WARMUP, "kept": KEPT, "thin": thin},
        "totals": {count: found.total(count) for count in counts},
        "effective_draws": {"median": float(np.median(sizes)), "least": min(sizes)},
        "cpu_seconds": {
            "median": float(np.median(seconds)),
            "most": max(seconds),
            "replicates": sum(seconds),
            "all": spent,
        },
        "adaptation": adaptation,
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (bilo, jax, numpyro, eqx)},
        "ranks": {quantity: ranks.tolist() for quantity, ranks in found.ranks.items()},
        "truths": [record["truths"] for record in found.records],
    }


HEAD = (
    "| problem | p of ranks: chi square, band | verdict | effective of 127 (least) | unsolved "
    "| CPU s: operator, replicate (most), all |\n|---|---|---|---|---|---|"
)


def line(record: Mapping[str, Any]) -> str:
    """A row of the table."""
    values = [f"{name} {a:.2g}, {b:.2g}" for name, (a, b) in record["p_values"].items()]
    sizes, seconds = record["effective_draws"], record["cpu_seconds"]
    operator = (record["adaptation"] or {"cpu_seconds": 0})["cpu_seconds"]
    return (
        f"| {record['name']} | {'; '.join(values)} | {'passes' if record['passes'] else 'FAILS'} | "
        f"{sizes['median']:.0f} ({sizes['least']:.0f}) | {record['totals']['unsolved']:.0f} | "
        f"{operator:.0f}, {seconds['median']:.2f} ({seconds['most']:.1f}), {seconds['all']:.0f} |"
    )


def main() -> None:
    """Calibrate the chosen problems."""
    arguments = _arguments()
    jax.config.update("jax_enable_x64", True)
    print(HEAD, flush=True)
    for name in arguments.problems:
        record, found = calibrated(name, arguments)
        print(line(record), flush=True)
        _add(pathlib.Path(arguments.out), record)
        if arguments.folder is not None:
            for quantity, ranks in found.ranks.items():
                figure = plot_ranks(ranks, quantity, KEPT)
                path = pathlib.Path(arguments.folder) / record["name"] / f"{quantity}.png"
                save_figure(figure, path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problems", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--operator", choices=("adapted", "features", "exact"), default="adapted")
    parser.add_argument("--broken", action="store_true", help="understate the noise by 20 %%")
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where replicates are kept, to go on from")
    default = pathlib.Path(__file__).resolve().parent / "results" / "calibration.json"
    parser.add_argument("--out", default=str(default))
    return parser.parse_args()


def _add(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Put the record into the file, a line for each, in the place of an earlier one of its name."""
    others = json.loads(path.read_text()) if path.exists() else []
    records = [*(other for other in others if other["name"] != record["name"]), record]
    path.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")


if __name__ == "__main__":
    main()

"""Posterior error against inner tolerance on the nonlinear Poisson problem, without sampling noise.

    python benchmarks/tolerance.py [--profile quick|paper] [--out DIRECTORY] [--only NAME ...]

The potential under a tolerance, U_eps, is evaluated on a grid of log k and the posterior that it
defines is compared with that of the numerical operator by quadrature. Two ways to reach a grid point:
"fresh" starts every solve from the stored weights at k = 0.6, so that U_eps is a function of k;
"carried" walks the grid outwards from there with the weights of the neighbour, as the chain of
`BiLOHMC` does. Short chains of that kernel give the CPU time of sampling. Prints a table with the
fitted orders (error ~ tolerance^order) and writes tolerance.json and tolerance.png.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import dataclasses
import json
from typing import Any

import jax
import numpy as np
import optax

import bilo_ppl as bilo
from benchmarks.tolerance_figure import draw
from benchmarks.tolerance_study import Chain, Method, Profile, Study, at_tolerance
from models import nonlinear_poisson as case

jax.config.update("jax_enable_x64", True)

ADAM = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1.0, max_steps=5000)
LM = bilo.LevenbergMarquardt(tolerance=1.0, max_steps=60)
PAPERS, IMPLICIT = bilo.ResidualGradient(), bilo.ImplicitDifferentiation()
METHODS = (
    Method("residual gradient, Adam", ADAM, PAPERS),
    Method("residual gradient, LM", LM, PAPERS),
    Method("implicit, LM", LM, IMPLICIT),
    Method("implicit, LM, Fourier", LM, IMPLICIT, fourier=32),
)

PROFILES = {
    "quick": Profile(31, tuple(10.0**-i for i in range(1, 9)), 2, 100, (0.1,), 30.0),
    "paper": Profile(
        121, tuple(10.0 ** -(i / 2) for i in range(2, 17)), 4, 500, (0.1, 0.02), 1200.0
    ),
}


HEAD = (
    f"{'method':<26} {'weights':<8} {'tol':>7} {'solved':>6} {'steps':>7} {'ms':>8} {'TV':>8} "
    f"{'mean/sd':>8} {'sd':>8} {'ms/draw':>8} {'steps':>6} {'solved':>6} {'accept':>6}"
)


def line(entry: dict[str, Any]) -> str:
    """A row of the table."""

    def number(key, form):
        width = form.split(".")[0]
        return f"{entry[key]:>{form}}" if key in entry else f"{'-':>{width}}"

    parts = [
        f"{entry['method']:<26} {entry['weights']:<8} {entry['tolerance']:>7.0e}",
        number("converged", "6.2f"),
        number("inner_steps", "7.1f"),
        number("cpu_ms", "8.1f"),
        *(number(key, "8.1e") for key in ("total_variation", "mean_error", "sd_error")),
        number("chain_cpu_ms_per_draw", "8.1f"),
        number("chain_inner_steps", "6.1f"),
        number("chain_converged", "6.2f"),
        number("chain_acceptance", "6.2f"),
    ]
    return " ".join(parts)


def fitted_orders(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slopes of log error against log tolerance, of each method and way, for each error.

    Only tolerances that every point reached and at which the error is below 0.3: above it the
    posterior is not even near its place.
    """
    orders = []
    for key in dict.fromkeys((r["sigma"], r["method"], r["weights"]) for r in records):
        mine = [r for r in records if (r["sigma"], r["method"], r["weights"]) == key]
        solved = [r for r in mine if r["converged"] == 1 and "total_variation" in r]
        entry: dict[str, Any] = dict(zip(("sigma", "method", "weights"), key, strict=True))
        for name in ("total_variation", "mean_error", "sd_error"):
            used = [r for r in solved if r[name] < 0.3]
            x, y = (np.log([r[k] for r in used]) for k in ("tolerance", name))
            if len(used) >= 3:
                entry[f"order_{name}"] = float(np.polyfit(x, y, 1)[0])
                entry[f"points_{name}"] = len(used)
        orders.append(entry)
    return orders


def pretrained(method: Method) -> bilo.LocalOperator:
    """The operator at k = 0.6, well below most tolerances, with rank-4 increments."""
    result = bilo.pretrain(
        case.problem,
        case.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=400),
        progress=False,
        fourier=method.fourier,
        fourier_scale=3.0,
    )
    print(f"pretraining, {method.fourier} Fourier features: {result.report}", file=sys.stderr)
    return result.operator.with_lora(4, key=jax.random.key(1))


def study_method(study: Study, method: Method, local: bilo.LocalOperator) -> list[dict[str, Any]]:
    """Every tolerance that can be reached within the time allowed, printed on the way."""
    start = {"u": local.weights}
    study.potential(at_tolerance(method, local, 1.0), study.exact.z[0], start)  # compiles
    chain = Chain(method, local, study)
    records, ways = [], {"fresh", "carried"}
    for tolerance in study.profile.tolerances:
        for way in sorted(ways, reverse=True):
            entry = study.record(method, local, tolerance, carried=way == "carried")
            if entry["points"] < entry["of_points"] or entry["converged"] < 0.5:
                ways.remove(way)  # a tighter tolerance takes longer still
            if way == "carried":
                entry |= chain.record(tolerance)
            records.append(entry)
            print(line(entry), flush=True)
    return records


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", choices=tuple(PROFILES), default="quick")
    parser.add_argument("--out", default=".", help="directory of tolerance.json, .png and .svg")
    parser.add_argument("--only", nargs="*", help="parts of method names to run")
    arguments = parser.parse_args()
    profile, out = PROFILES[arguments.profile], pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    operators: dict[int, bilo.LocalOperator] = {}
    records: list[dict[str, Any]] = []
    print(HEAD, flush=True)
    for sigma in profile.sigmas:
        study = Study(sigma, profile)
        for method in METHODS:
            if arguments.only and not any(part in method.name for part in arguments.only):
                continue
            if method.fourier not in operators:
                operators[method.fourier] = pretrained(method)
            records += study_method(study, method, operators[method.fourier])
            results = {
                "profile": dataclasses.asdict(profile),
                "records": records,
                "orders": fitted_orders(records),
            }
            path = out / "tolerance.json"
            path.write_text(json.dumps(results, indent=1) + "\n")
            jax.clear_caches()
    for entry in fitted_orders(records):
        print(entry)
    draw(out / "tolerance.json")


if __name__ == "__main__":
    main()

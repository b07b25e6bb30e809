"""Where the Jacobian should be factored, and where conjugate gradients should take over.

    python benchmarks/large_systems.py [--points 15 21 31] [--out FILE.json]

Fisher-KPP on n x n points: one solve from D = rho = 1 to D = rho = 1.2 at tolerance 1e-6, from the same
weights, by Levenberg-Marquardt with the QR factorisation and with conjugate gradients. CPU seconds
after compilation, one thread. `bilo_ppl.inner.linearised.DENSE_UP_TO` is the size at which the package
goes from the one to the other.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time

import jax
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from bilo_ppl.inner import linearised
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.solvers import solve
from models import fisher_kpp

TOLERANCE = 1e-6
MAX_STEPS = 60
MOVED = {"D": 1.2, "rho": 1.2}
REPRESENTATIONS = {"QR": float("inf"), "conjugate gradients": 0.0}


def timed(operator: bilo.LocalOperator, limit: float) -> dict:
    """A solve with systems factored up to ``limit``."""
    solver = bilo.LevenbergMarquardt(TOLERANCE, MAX_STEPS)
    problem = LowerLevel(operator, bilo.ImplicitDifferentiation()).at(MOVED)
    usual, linearised.DENSE_UP_TO = linearised.DENSE_UP_TO, limit
    try:
        compiled = jax.jit(lambda w: solve(solver, problem, w)).lower(operator.weights).compile()
    finally:
        linearised.DENSE_UP_TO = usual
    begun = time.process_time()
    found = jax.block_until_ready(compiled(operator.weights))
    return {
        "seconds": time.process_time() - begun,
        "steps": int(found.steps),
        "loss": float(found.loss),
        "converged": bool(found.converged),
    }


def records(points: int) -> list[dict]:
    """Both representations on one grid."""
    operator, report = bilo.pretrain(
        type(fisher_kpp.problem)(points, points),
        fisher_kpp.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(TOLERANCE / 2, max_steps=200),
        sensitivity=bilo.ImplicitDifferentiation(),
        width=32,
        fourier=16,
        fourier_scale=2.0,
        progress=False,
    )
    print(f"  {points} x {points}: {report}", file=sys.stderr, flush=True)
    rows, weights = len(operator.points), ravel_pytree(operator.weights)[0].size
    sizes = {"rows": rows, "weights": weights}
    k2m = min(rows, weights) ** 2 * max(rows, weights)
    return [
        {"points": points, **sizes, "k2m": k2m, "solver": name, **timed(operator, limit)}
        for name, limit in REPRESENTATIONS.items()
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, nargs="+", default=[15, 21, 31])
    parser.add_argument("--out", default="large_systems.json")
    arguments = parser.parse_args()
    found = []
    print(
        f"{'points':>7} {'rows':>6} {'weights':>8} {'k^2 m':>8} {'solver':<20} {'s':>8} steps loss"
    )
    for points in arguments.points:
        for r in records(points):
            found.append(r)
            print(
                f"{points:>7} {r['rows']:>6} {r['weights']:>8} {r['k2m']:>8.1e} {r['solver']:<20} "
                f"{r['seconds']:>8.2f} {r['steps']:>5} {r['loss']:.1e}"
                + ("" if r["converged"] else " not converged"),
                flush=True,
            )
        pathlib.Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""A damped step by QR, or by a Cholesky factorisation of the Gram matrix: time and accuracy, by device.

    python benchmarks/factors.py [--device cpu|gpu] [--most 1e11] [--out FILE.json]

Jacobians of Fisher-KPP with random weights, in single and double precision. The step is that of
Levenberg-Marquardt at a damping of 1e-6 mean eigenvalues of the smaller normal matrix. Its error is in
the rows that it leaves, relative to those that QR in double precision leaves. Times are without the
Jacobian, of the best of several calls after compilation: CPU seconds of one thread, on a GPU wall
seconds.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
if "gpu" in sys.argv:
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cuda")
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

import bilo_ppl as bilo
from bilo_ppl.inner.lower_level import LowerLevel
from models import fisher_kpp

jax.config.update("jax_enable_x64", True)

DAMPING = 1e-6
GRIDS, WIDTHS = ((22, 23), (51, 51), (100, 100)), (32, 64, 128, 220)
LEAST_SECONDS = 0.3


def jacobian(grid: tuple[int, int], width: int, most: float) -> tuple[Any, Any] | None:
    """J and the rows in double precision, of a random network at the first guess.

    None where k^2 m is over ``most``: by the shape alone, for the largest J has 4 GB.
    """
    problem = fisher_kpp.FisherKPP(*grid)
    local = bilo.LocalOperator(
        problem, fisher_kpp.start, key=jax.random.key(0), width=width, depth=2, dtype=jnp.float64
    )
    rows = LowerLevel(local, bilo.PartialDerivative()).at(fisher_kpp.start)
    weights = local.weights
    shape = jax.eval_shape(lambda w: rows.jacobian(w), weights).shape
    if min(shape) ** 2 * max(shape) > most:
        return None
    return jax.jit(lambda w: rows.jacobian(w))(weights), jax.jit(lambda w: rows.rows(w))(weights)


def by_qr(J: Any, rows: Any) -> Any:
    """Of J and the damping, one above the other."""
    dual = J.shape[0] <= J.shape[1]
    size = min(J.shape)
    shift = jnp.sqrt(DAMPING * jnp.sum(J**2) / size) * jnp.eye(size, dtype=J.dtype)
    R = jnp.linalg.qr(jnp.concatenate([J.T if dual else J, shift]), mode="r")

    def solved(b):
        return solve_triangular(R, solve_triangular(R, b, trans=1))

    return J.T @ solved(rows) if dual else solved(J.T @ rows)


def by_cholesky(J: Any, rows: Any, dtype: Any = jnp.float64) -> Any:
    """The Gram matrix and its factor in ``dtype``."""
    dual = J.shape[0] <= J.shape[1]
    A = (J if dual else J.T).astype(dtype)
    G = A @ A.T
    factor = cho_factor(G + DAMPING * jnp.trace(G) / len(G) * jnp.eye(len(G), dtype=dtype), True)

    def solved(b):
        return cho_solve(factor, b.astype(dtype)).astype(J.dtype)

    return J.T @ solved(rows) if dual else solved(J.T @ rows)


WAYS: dict[str, tuple[Callable, Any]] = {
    "QR, single": (by_qr, jnp.float32),
    "QR, double": (by_qr, jnp.float64),
    "Cholesky in single of J in single": (
        lambda J, rows: by_cholesky(J, rows, jnp.float32),
        jnp.float32,
    ),
    "Cholesky in double of J in single": (by_cholesky, jnp.float32),
    "Cholesky in double of J in double": (by_cholesky, jnp.float64),
}


def timed(work: Callable, *given: Any) -> tuple[Any, float]:
    """Result, and seconds of the fastest call."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    step = jax.jit(work)
    result = jax.block_until_ready(step(*given))
    begun, best = clock(), float("inf")
    while clock() - begun < LEAST_SECONDS:
        start = clock()
        jax.block_until_ready(step(*given))
        best = min(best, clock() - start)
    return result, best


def records(most: float) -> Any:
    """One for each size and way, up to ``most`` of k^2 m."""
    for grid in GRIDS:
        for width in WIDTHS:
            system = jacobian(grid, width, most)
            if system is None:
                continue
            J, rows = system
            left = None
            base = {
                "device": jax.devices()[0].device_kind,
                "rows": J.shape[0],
                "weights": J.shape[1],
            }
            for name, (work, dtype) in reversed(WAYS.items()):
                step, seconds = timed(work, J.astype(dtype), rows.astype(dtype))
                after = rows - J @ step.astype(J.dtype)
                if name == "QR, double":
                    left = after
                yield base | {"way": name, "seconds": seconds, "left": after}, left


def measured(most: float) -> list[dict[str, Any]]:
    """The records, with each step's error relative to that by QR in double precision."""
    found: dict[tuple[int, int], list[dict]] = {}
    exact: dict[tuple[int, int], Any] = {}
    for record, left in records(most):
        size = record["rows"], record["weights"]
        found.setdefault(size, []).append(record)
        if left is not None:
            exact[size] = left
        print(f"{size}: {record['way']} {record['seconds']:.4f} s", file=sys.stderr, flush=True)
    for size, group in found.items():
        for record in group:
            off = jnp.linalg.norm(record.pop("left") - exact[size]) / jnp.linalg.norm(exact[size])
            record["error"] = float(off) if jnp.isfinite(off) else None
    return [record for group in found.values() for record in group]


def table(found: list[dict[str, Any]]) -> str:
    """Seconds, in brackets the relative error, a row for each size."""
    cells: dict[tuple[int, int], dict[str, str]] = {}
    for record in found:
        error = "fails" if record["error"] is None else f"{record['error']:.0e}"
        row = cells.setdefault((record["rows"], record["weights"]), {})
        row[record["way"]] = f"{record['seconds']:.2g} ({error})"
    head = f"| rows x weights | {' | '.join(WAYS)} |\n|{'---|' * (1 + len(WAYS))}"
    lines = [
        f"| {rows} x {weights} | {' | '.join(row.get(way, '') for way in WAYS)} |"
        for (rows, weights), row in cells.items()
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--most", type=float, default=1e11, help="largest k^2 m, k the smaller size"
    )
    parser.add_argument("--out", default="factors.json")
    arguments = parser.parse_args()
    found = measured(arguments.most)
    pathlib.Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()

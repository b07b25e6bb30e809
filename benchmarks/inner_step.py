"""Time of one inner step against width, collocation points and trained weights; other solvers beside it.

    python benchmarks/inner_step.py [--profile quick|paper] [--out FILE.json]

Three tables on the nonlinear Poisson problem, one thread, CPU seconds after compilation:

1. one Levenberg-Marquardt step by the dense QR and by matrix-free conjugate gradients, with the sizes
   of the system (`large_systems.py` compares whole solves);
2. the Jacobian point by point against reverse mode over all rows together;
3. a whole solve from k = 0.6 to 0.65, tolerance 1e-6: ours, Optimistix's Levenberg-Marquardt, and Adam.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax
import optimistix as optx
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from bilo_ppl.inner import linearised
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.solvers import solve
from models import nonlinear_poisson as case

K = 0.65
ITERATIVE = lx.Normal(lx.CG(rtol=1e-4, atol=1e-12, max_steps=200))


def on_points(count: int) -> bilo.Problem:
    """The problem with another number of collocation points."""

    class Sized(case.NonlinearPoisson):
        points = case.problem.domain.grid(count)

    return Sized()


def lower_level(points: int, width: int, rank: int) -> tuple[LeastSquares, Any]:
    """Residual rows at k = 0.65 of a network with random weights, and its trainable weights."""
    operator = bilo.LocalOperator(
        on_points(points), case.start, key=jax.random.key(0), width=width
    ).with_lora(rank, key=jax.random.key(1))
    problem = LowerLevel(operator, bilo.ImplicitDifferentiation()).at({"k": K})
    return problem, operator.weights


def timed(work: Callable, least: float = 0.5) -> tuple[Any, float]:
    """Result and CPU seconds of a call after the first, the mean of as many as fit."""
    result = jax.block_until_ready(work())
    begun, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - begun < least:
        jax.block_until_ready(work())
        calls += 1
    return result, (time.process_time() - begun) / calls


def step_row(points: int, width: int, rank: int, warm_steps: int, dense_limit: float) -> dict:
    """One Levenberg-Marquardt step in both representations, from the same state."""
    problem, weights = lower_level(points, width, rank)
    solver = bilo.LevenbergMarquardt(tolerance=1e-12, max_steps=100)
    p = ravel_pytree(weights)[0].size
    cost = min(points, p) ** 2 * max(points, p)
    row: dict[str, Any] = {
        "points": points,
        "width": width,
        "rank": rank,
        "weights": p,
        "normal_matrix": "rows" if points <= p else "weights",
        "k2m": cost,
        "jacobian_mib": 4 * points * p / 2**20,
    }

    def stepper(limit: float) -> Callable:
        # The choice is made while tracing.
        def step(state):
            old, linearised.DENSE_UP_TO = linearised.DENSE_UP_TO, limit
            try:
                return solver.step(problem, state)
            finally:
                linearised.DENSE_UP_TO = old

        return jax.jit(step)

    state = jax.jit(lambda w: solver.init(problem, w))(weights)
    advance = stepper(float("inf") if cost < dense_limit / 10 else 0.0)
    for _ in range(warm_steps):
        state = advance(state)
    row["loss"] = float(state.loss)
    for name, limit in (("dense", float("inf")), ("matrix_free", 0.0)):
        if name == "dense" and cost > dense_limit:
            continue
        step = stepper(limit)
        after, seconds = timed(lambda step=step: step(state))
        row[f"{name}_ms"] = 1e3 * seconds
        row[f"{name}_loss"] = float(after.loss)
    return row


def jacobian_row(points: int, width: int, rank: int) -> dict:
    """The Jacobian by one small reverse pass a point, and by reverse mode over all rows."""
    problem, weights = lower_level(points, width, rank)
    flat, unravel = ravel_pytree(weights)
    by_point = jax.jit(lambda w: problem.jacobian(w))
    whole = jax.jit(jax.jacrev(lambda w: problem.rows(unravel(w))))
    rows = jax.jit(lambda w: problem.rows(w))
    return {
        "points": points,
        "width": width,
        "rank": rank,
        "rows_ms": 1e3 * timed(lambda: rows(weights))[1],
        "by_point_ms": 1e3 * timed(lambda: by_point(weights))[1],
        "whole_ms": 1e3 * timed(lambda: whole(flat))[1],
    }


def optimistix_solve(problem: LeastSquares, weights: Any, linear: Any, max_steps: int):
    """Optimistix's Levenberg-Marquardt until the loss is below 1e-6, with a linear solver."""
    # Its own stopping rule is switched off: the loop ends by the loss, as ours does.
    solver = optx.LevenbergMarquardt(rtol=1e-30, atol=1e-30, linear_solver=linear)
    tolerance = 1e-6

    def residuals(w, _):
        return problem.rows(w), None

    options = {"jac": "bwd"}  # there are fewer rows than weights
    shape = jax.eval_shape(problem.rows, weights)
    state = solver.init(residuals, weights, None, options, shape, None, frozenset())

    def go_on(carry):
        w, _, count = carry
        return (problem.loss(w) > tolerance) & (count < max_steps)

    def step(carry):
        w, state, count = carry
        w, state, _ = solver.step(residuals, w, None, options, state, frozenset())
        return w, state, count + 1

    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(carry):
        w, dynamic, count = carry
        w, state, count = step((w, eqx.combine(dynamic, static), count))
        return w, eqx.filter(state, eqx.is_array), count

    w, _, count = jax.lax.while_loop(go_on, body, (weights, dynamic, jnp.array(0)))
    loss = problem.loss(w)
    return loss, count, loss <= tolerance


def solve_rows(width: int, ranks: tuple[int, ...]) -> list[dict]:
    """Whole solves from the same pretrained operator."""
    network = bilo.pretrain(
        case.problem,
        case.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=2e-7, max_steps=300),
        sensitivity=bilo.PartialDerivative(),
        progress=False,
        width=width,
    ).operator
    records = []
    for rank in ranks:
        operator = network.with_lora(rank, key=jax.random.key(1))
        problem = LowerLevel(operator, bilo.ImplicitDifferentiation()).at({"k": K})

        def ours(solver, problem=problem, operator=operator):
            found = solve(solver, problem, operator.weights)
            return found.loss, found.steps, found.converged

        def theirs(linear, problem=problem, operator=operator):
            return optimistix_solve(problem, operator.weights, linear, 100)

        methods = {
            "LevenbergMarquardt": lambda: ours(bilo.LevenbergMarquardt(1e-6, 100)),
            "Optimistix, CG": lambda: theirs(ITERATIVE),
            "Optimistix, QR": lambda: theirs(lx.QR()),
            "Adam": lambda: ours(bilo.OptaxSolver(optax.adam(1e-3), 1e-6, 3000)),
        }
        if rank == 0:
            del methods["Optimistix, QR"]  # a (weights + rows) x weights matrix: 4 GiB
        for name, work in methods.items():
            begun = time.process_time()
            compiled = jax.jit(work).lower().compile()
            compilation = time.process_time() - begun
            (loss, steps, converged), seconds = timed(compiled)
            records.append(
                {
                    "solver": name,
                    "rank": rank,
                    "steps": int(steps),
                    "loss": float(loss),
                    "converged": bool(converged),
                    "ms": 1e3 * seconds,
                    "ms_per_step": 1e3 * seconds / max(int(steps), 1),
                    "compile_s": compilation,
                }
            )
    return records


def show(title: str, records: list[dict]) -> None:
    """Print records as a table."""
    print(f"\n{title}")
    names = list(dict.fromkeys(name for r in records for name in r))
    print(" ".join(f"{name:>18}" for name in names))
    for r in records:
        cells = (r.get(name, "-") for name in names)
        print(" ".join(f"{c:>18.4g}" if isinstance(c, float) else f"{c!s:>18}" for c in cells))
    sys.stdout.flush()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", choices=("quick", "paper"), default="quick")
    parser.add_argument("--out", default="inner_step.json")
    arguments = parser.parse_args()
    quick = arguments.profile == "quick"
    widths = (64, 128, 256) if quick else (64, 128, 256, 512)
    counts = (51, 201) if quick else (51, 201, 801)
    ranks = (4, 0)
    results: dict[str, list[dict]] = {"steps": [], "jacobians": [], "solves": []}

    def save():
        pathlib.Path(arguments.out).write_text(json.dumps(results, indent=1) + "\n")

    results["solves"] = solve_rows(128, ranks)
    show("Solves from k = 0.6 to 0.65, width 128, 51 points, tolerance 1e-6", results["solves"])
    save()
    for points in counts:
        for rank in ranks:
            results["jacobians"].append(jacobian_row(points, 128, rank))
    show("Jacobians, width 128", results["jacobians"])
    save()
    for rank in ranks:
        for width in widths:
            for points in counts:
                limit = 3e10 if quick else 1e12
                results["steps"].append(step_row(points, width, rank, 3, limit))
                jax.clear_caches()
    show("One step", results["steps"])
    save()


if __name__ == "__main__":
    main()

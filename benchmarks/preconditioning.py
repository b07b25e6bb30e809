"""What a factor at home is worth as a preconditioner, or as it is, for solves from the same weights.

    python benchmarks/preconditioning.py [--most 4e11] [--out FILE.json]

Fisher-KPP, all weights, pretrained at D = rho = 1 (home) by 30 Levenberg-Marquardt steps on 287 points.
One damped system at D = rho = 1.2, at the *same* weights, in each of these ways, one thread, CPU seconds
after compilation with those of the Jacobian where it is formed:

- QR decomposition, and Gram matrix in double precision;
- conjugate gradients with passes, as `MatrixFree` does it, and with the Jacobian formed, in the
  smaller space or in that of the weights;
- preconditioned by the Cholesky factor at home, which is not counted;
- preconditioned by a randomised Nystroem approximation (Frangella, Tropp, Udell, *Randomized Nystroem
  preconditioning*, 2023), at home (not counted) or anew (counted);
- a frozen step: Jacobian and factor are those at home.

Preconditioned iterations are run with the Jacobian formed; what they would take with passes follows from
the time of a pass. Two more tables: chord steps on all weights and on increments of rank 4, and the first
6 Levenberg-Marquardt steps at theta, on 51 x 51 points, by Gram matrices, sketches and plain iterations.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from benchmarks.preconditioning_ways import (
    Formed,
    by_gram,
    by_iteration,
    by_passes,
    by_qr,
    in_weights,
    is_dual,
    nystroem,
    relative_residual,
    sketching,
)
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.linearised import Gram, linearise, solve_factored
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.sketched import RANK, Sketched
from bilo_ppl.inner.solvers import levenberg_marquardt, solve
from models import fisher_kpp

jax.config.update("jax_enable_x64", True)

MOVED = {"D": 1.2, "rho": 1.2}
GRIDS = ((22, 23), (51, 51), (100, 100))
WIDTHS = (32, 64, 128, 220)
STEPS, WHOLE = 6, (32, 64, 128)
DAMPINGS = (1e-4, 1e-6)
RANKS = (100, 400)

QR_UP_TO, GRAM_UP_TO, HOME_UP_TO, BOTH_UP_TO = 5e10, 2.5e11, 2.5e11, 5e10
"""k^2 m up to which there is a QR decomposition, a Gram matrix, one at home, and a second damping."""

COMPILED: dict[Any, Any] = {}
"""Programs of the present sizes, by their function and the shapes."""


def run(work: Callable, *given: Any, least: float = 0.0) -> tuple[Any, float]:
    """Result and CPU seconds of a call after compilation, the mean of as many as fit."""
    shapes = [(leaf.shape, leaf.dtype) for leaf in map(jnp.asarray, jax.tree.leaves(given))]
    key = (work, jax.tree.structure(given), *shapes)
    if key not in COMPILED:
        COMPILED[key] = jax.jit(work).lower(*given).compile()
    begun, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - begun < least:
        result = jax.block_until_ready(COMPILED[key](*given))
        calls += 1
    return result, (time.process_time() - begun) / calls


timed = partial(run, least=0.1)


def ways(sizes: dict, home: LeastSquares, moved: LeastSquares, weights: Any) -> Iterator[dict]:
    """Every way to solve the system at theta, with its time, iterations and step."""
    k2m = sizes["k2m"]
    flat, unravel = ravel_pytree(weights)
    loss = jax.jit(lambda w: moved.loss(unravel(w)))
    J, forming = run(lambda w: moved.jacobian(w), weights)
    rows, _ = run(lambda w: moved.rows(w), weights)
    J_home, _ = run(lambda w: home.jacobian(w), weights)
    mean = jnp.sum(J.astype(float) ** 2) / min(J.shape)
    gram = Gram(J_home) if k2m <= HOME_UP_TO else None
    sketches: dict[str, tuple] = {}
    for rank in RANKS if k2m <= GRAM_UP_TO else RANKS[:1]:
        test = sketching(J, rank)
        sketches[f"CG, Nystroem {rank} at home"] = (run(nystroem, J_home, test)[0], 0.0, 0)
        sketches[f"CG, Nystroem {rank} anew"] = (*timed(nystroem, J, test), rank)
    single = sketching(J, RANKS[0], J.dtype)
    sketches[f"CG, Nystroem {RANKS[0]} anew, single"] = (*timed(nystroem, J, single), RANKS[0])
    few = k2m > GRAM_UP_TO  # a few passes tell the time of one
    passes = partial(by_passes, moved, 20 if few else 200)
    for damping in DAMPINGS if k2m <= BOTH_UP_TO else DAMPINGS[:1]:
        shift = damping * mean
        base = {**sizes, "damping": damping}

        def record(way, step, seconds, base=base, shift=shift, **more):
            after = float(loss(flat - step.astype(flat.dtype)))
            off = float(run(relative_residual, J, rows, shift, step)[0])
            return {**base, "way": way, "seconds": seconds, "residual": off, "after": after, **more}

        for name, work, limit in (("QR", by_qr, QR_UP_TO), ("Gram matrix", by_gram, GRAM_UP_TO)):
            if k2m <= limit:
                step, taken = timed(work, J, damping, rows)
                yield record(name, step, forming + taken)
        prepared: dict[str, tuple] = {"CG, J formed": ((), 0.0, 0)}
        if gram is not None:
            factor = gram.factor(damping)
            prepared["CG, factor at home"] = ((factor,), 0.0, 0)
            step, taken = timed(solve_factored, J_home, factor, rows)
            yield record("frozen step", step, taken)
        (step, count), taken = timed(passes, weights, rows, shift)
        a_pass, a_product = taken / int(count), 0.0
        if not few:
            yield record("CG, passes", step, taken, iterations=int(count), with_passes=taken)
        if is_dual(J):
            (step, count), taken = timed(in_weights, J, rows, shift)
            more = {"iterations": int(count), "with_passes": int(count) * a_pass}
            yield record("CG in the weights, J formed", step, forming + taken, **more)
        for name, (given, extra, products) in {**prepared, **sketches}.items():
            (step, count), taken = timed(by_iteration, J, rows, shift, given)
            a_product = a_product or taken / int(count)
            # With passes, each iteration and each column of a sketch costs one in place of a product.
            added = int(count) * (a_pass - a_product) + products * a_pass
            more = {"iterations": int(count), "with_passes": extra + taken + added}
            yield record(name, step, forming + extra + taken, **more)


def pretrained(width: int) -> bilo.LocalOperator:
    """An operator near the solution at home."""
    problem = type(fisher_kpp.problem)(17, 17)
    operator = bilo.LocalOperator(problem, fisher_kpp.start, key=jax.random.key(0), width=width)
    least_squares = LowerLevel(operator, bilo.ImplicitDifferentiation()).at(fisher_kpp.start)
    solver = bilo.LevenbergMarquardt(1e-6, max_steps=30)
    found = jax.jit(lambda w: solve(solver, least_squares, w))(operator.weights)
    return operator.with_weights(found.value)


def chord_rows(operator: bilo.LocalOperator) -> list[dict]:
    """Frozen steps at theta until they gain nothing, and two full steps, from the same weights."""
    found = []
    for name, op in (
        ("all", operator),
        ("rank 4", operator.with_lora(4, key=jax.random.key(1))),
    ):
        level = LowerLevel(op, bilo.ImplicitDifferentiation())
        home, moved = level.at(fisher_kpp.start), level.at(MOVED)
        flat, unravel = ravel_pytree(op.weights)
        gram = Gram(jax.jit(lambda w, home=home: home.jacobian(w))(op.weights))
        rows = jax.jit(lambda w, moved=moved, unravel=unravel: moved.rows(unravel(w)))
        before = float(jnp.sum(rows(flat) ** 2))
        for damping in (1e-3, 1e-4, 1e-5, 1e-6, 1e-9):
            factor, losses, w = gram.factor(damping), [before], flat
            while len(losses) <= 20 and losses[-1] <= min(losses):
                w = w - solve_factored(gram.J, factor, rows(w))
                losses.append(float(jnp.sum(rows(w) ** 2)))
            least = {"steps": losses.index(min(losses)), "after": min(losses)}
            found.append({"way": f"chord, {damping:.0e}", **least})
        full = bilo.LevenbergMarquardt(1e-12, max_steps=3)
        state = full.init(moved, op.weights)
        advance = jax.jit(lambda s, p=moved, full=full: full.step(p, s))
        for count in (1, 2, 3):
            state = advance(state)
            found.append({"way": "full steps", "steps": count, "after": float(state.loss)})
        found[-8:] = [{"weights": name, "before": before, **record} for record in found[-8:]]
    return found


def whole_solves(operators: dict[int, bilo.LocalOperator]) -> Iterator[dict]:
    """Levenberg-Marquardt steps from home, each with its own Gram matrix or sketch."""
    gram = lambda p, w, **_: linearise(p, w, damped=True)  # noqa: E731
    sketched = lambda p, w, **_: Sketched(p.jacobian(w))  # noqa: E731
    in_the_weights = lambda p, w, **_: Formed(p.jacobian(w))  # noqa: E731
    for width, operator in operators.items():
        moved = LowerLevel(operator, bilo.ImplicitDifferentiation()).at(MOVED)
        n, p = len(operator.points), ravel_pytree(operator.weights)[0].size
        forms = {
            "Gram matrix": gram,
            f"Nystroem {RANK}": sketched,
            "CG in the weights": in_the_weights,
        }
        for name, form in forms.items():
            if form is gram and min(n, p) ** 2 * max(n, p) > QR_UP_TO:
                continue
            full = bilo.LevenbergMarquardt(1e-12, max_steps=STEPS)
            # The choice is made while tracing.
            levenberg_marquardt.linearise = form
            try:
                state = full.init(moved, operator.weights)
                step = jax.jit(lambda s, p=moved, f=full: f.step(p, s)).lower(state).compile()
            finally:
                levenberg_marquardt.linearise = linearise
            losses, begun = [float(state.loss)], time.process_time()
            for _ in range(STEPS):
                state = step(state)
                losses.append(float(state.loss))
            seconds = time.process_time() - begun
            sizes = {"width": width, "rows": n, "weights": p}
            yield {**sizes, "way": name, "seconds": seconds, "losses": losses}


def sized(most: float) -> list[tuple[int, tuple[int, int]]]:
    """Widths and grids by the cost of a factorisation."""

    def cost(case):
        rows, weights = case[1][0] * case[1][1], 1 + case[0] * (case[0] + 4) + case[0]
        return min(rows, weights) ** 2 * max(rows, weights)

    cases = [(width, grid) for width in WIDTHS for grid in GRIDS]
    return sorted((case for case in cases if cost(case) <= most), key=cost)


def show(record: dict) -> None:
    """One line of the table."""
    cells = [
        f"{record['rows']:>6} {record['weights']:>6} {record['damping']:.0e} {record['way']:<28}"
    ]
    for name in ("seconds", "with_passes", "iterations"):
        cells.append(f"{record[name]:>8.3g}" if name in record else f"{'-':>8}")
    cells.append(f"{record['residual']:.1e} {record['before']:.1e} {record['after']:.1e}")
    print(*cells, flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--most", type=float, default=4e11, help="largest k^2 m of the single steps"
    )
    parser.add_argument("--out", default="preconditioning.json")
    arguments = parser.parse_args()
    results: dict[str, list[dict]] = {"solves": [], "chords": [], "whole": []}

    def save():
        pathlib.Path(arguments.out).write_text(json.dumps(results, indent=1) + "\n")

    cases = sized(arguments.most)
    operators = {width: pretrained(width) for width in sorted({*WHOLE, *(w for w, _ in cases)})}
    results["chords"] = chord_rows(operators[WIDTHS[0]])
    print(*results["chords"], sep="\n")
    middle = type(fisher_kpp.problem)(*GRIDS[1]).points
    for record in whole_solves({w: operators[w].with_points(middle) for w in WHOLE}):
        results["whole"].append(record)
        print(record, flush=True)
        save()
    for width, grid in cases:
        operator = operators[width].with_points(type(fisher_kpp.problem)(*grid).points)
        level, weights = LowerLevel(operator, bilo.ImplicitDifferentiation()), operator.weights
        home, moved = level.at(fisher_kpp.start), level.at(MOVED)
        n, p = len(operator.points), ravel_pytree(weights)[0].size
        sizes = {"rows": n, "weights": p, "k2m": min(n, p) ** 2 * max(n, p)}
        losses = {"home": float(home.loss(weights)), "before": float(moved.loss(weights))}
        for record in ways({**sizes, **losses}, home, moved, weights):
            results["solves"].append(record)
            show(record)
            save()
        COMPILED.clear()
        jax.clear_caches()
    print(f"{time.process_time():.0f} CPU seconds in all", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Steps of a solver on one large problem: on all of its rows, or on a random part of them in each step.

A step on all rows costs rows^2 x weights; what a part of them leaves undone, other parts mend in later
steps. The parts come from a fixed seed, so a fit is a deterministic function of its start.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.solvers import AbstractInnerSolver, advance

__all__ = ["AllRows", "PartOfRows", "Reached"]


class Reached(NamedTuple):
    """Where a fit stands after some steps: arrays only."""

    state: Any
    """The solver's, to go on from."""
    weights: Weights
    loss: Any
    """On all rows."""
    terms: dict[str, Any]
    """The loss, term by term."""
    steps: Any
    """Taken by this call."""
    done: Any
    """Whether further steps are of no use."""


class _Steps:
    """Steps of a solver, compiled once for all stages and lengths."""

    def __init__(self, make: Callable[[], Any], run: Callable[..., Reached]):
        shapes = eqx.filter_eval_shape(make)
        self._blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        self._run, self._taken = eqx.filter_jit(run), 0

    def __call__(self, weights: Weights, state: Any, stage: Any, length: int) -> Reached:
        """At most ``length`` steps from the solver's ``state``; None: it starts at ``weights``."""
        first, known = jnp.array(state is None), self._blank if state is None else state
        taken = jnp.asarray(self._taken)
        self._taken += length
        return self._run(weights, known, first, stage, jnp.asarray(length), taken)


class AllRows(_Steps):
    """Steps of ``solver`` on the problem ``rows(stage)``; the call that starts only evaluates."""

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stage: Any,
    ):
        def run(weights, state, first, stage, length, _):
            problem = rows(stage)
            # One compilation serves the start and every chunk of every stage.
            state = jax.lax.cond(first, lambda: solver.init(problem, weights), lambda: state)
            before = state.steps
            upto = jnp.where(first, before, before + length)
            state = advance(solver, problem, state, upto)
            # A solver may count from below zero, for a first step that only evaluates.
            steps = jnp.maximum(state.steps, 0) - jnp.maximum(before, 0)
            terms = problem.terms(state.weights)
            done = solver.terminate(state)
            return Reached(state, state.weights, state.loss, terms, steps, done)

        super().__init__(lambda: solver.init(rows(stage), weights), run)


class PartOfRows(_Steps):
    """Steps of ``solver``, each on ``count`` other items of the problem ``rows(stage)``."""

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stage: Any,
        count: int,
    ):
        solver = solver.for_parts()

        def part(problem, step):
            return problem.part(jax.random.fold_in(jax.random.key(0), step), count)

        def run(weights, state, first, stage, length, taken):
            problem = rows(stage)
            start = part(problem, taken)
            state = jax.lax.cond(first, lambda: solver.init(start, weights), lambda: state)
            state = jax.lax.fori_loop(
                0, length, lambda i, s: solver.follow(part(problem, taken + i), s), state
            )
            # A count that a step made from a literal is weakly typed, and would be compiled for anew.
            state = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)
            terms = problem.terms(state.weights)
            loss = sum(terms.values())
            done = (loss <= solver.tolerance) | ~jnp.isfinite(loss)
            return Reached(state, state.weights, loss, terms, length, done)

        super().__init__(lambda: solver.init(part(rows(stage), 0), weights), run)

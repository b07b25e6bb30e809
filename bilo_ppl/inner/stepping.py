"""Steps of a solver on one large problem: on all rows, on a sample, or each on another random part.

A step on all rows costs rows^2 x weights; what a part of them leaves undone, other parts mend in later
steps. Parts and samples come from fixed seeds, so a fit is a deterministic function of its start.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bilo_ppl._types import Rows, Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.sharding import everywhere, spread, to_host
from bilo_ppl.inner.solvers import AbstractInnerSolver, advance

__all__ = ["AllRows", "PartOfRows", "Reached"]


BELOW = 0.1
"""Part of the tolerance to which a sample may be fitted."""


class Reached(NamedTuple):
    """Where a fit stands after some steps: arrays only."""

    state: Any
    """The solver's, to go on from."""
    weights: Weights
    loss: Any
    """On the rows that are watched, or on all."""
    terms: dict[str, Any]
    """The loss, term by term."""
    own: Any
    """The loss on the rows of the last step."""
    steps: Any
    """Taken by this call."""
    done: Any
    """Whether further steps are of no use: the tolerance is reached, or the loss is not finite."""
    over: Any
    """Whether the solver has come to its end on the rows that it sees."""


class _Steps:
    """Steps of a solver, compiled once for all stages and lengths.

    Over a mesh, the solver's state stays on its devices; what is given and returned besides is on one.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        run: Callable[..., Reached],
        rows: Callable[[], Rows],
        mesh: Mesh | None,
    ):
        shapes = eqx.filter_eval_shape(make)
        self._mesh = mesh
        self.taken = 0
        """Steps that were asked for so far: parts of rows follow from their number."""

        def blank():
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        if mesh is None:
            self._blank, self._run = blank(), eqx.filter_jit(run)
            return

        size = eqx.filter_eval_shape(rows).size

        def placed(*args):
            reached = run(*args)
            return spread(reached, mesh)._replace(state=spread(reached.state, mesh, size))

        self._blank = jax.jit(lambda: spread(blank(), mesh, size))()
        self._run = eqx.filter_jit(placed)

    @property
    def blank(self) -> Any:
        """Of the solver's state, the structure, shapes and types."""
        return self._blank

    def __call__(self, weights: Weights, state: Any, stage: Any, length: int) -> Reached:
        """At most ``length`` steps from the solver's ``state``; None: it starts at ``weights``."""
        first, known = jnp.array(state is None), self._blank if state is None else state
        taken = jnp.asarray(self.taken)
        self.taken += length
        if self._mesh is None:
            return self._run(weights, known, first, stage, jnp.asarray(length), taken)
        given = everywhere((weights, first, stage, jnp.asarray(length), taken), self._mesh)
        reached = self._run(given[0], known, *given[1:])
        return to_host(reached._replace(state=None))._replace(state=reached.state)


class AllRows(_Steps):
    """Steps of ``solver`` on the problem ``rows(stage)``; the call that starts only evaluates.

    With a ``count``, on so many of its items, always the same ones; then all calls take steps. ``mesh``
    is that of the problem, if it has one.
    """

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stage: Any,
        count: int | None = None,
        watched: int | None = None,
        mesh: Mesh | None = None,
    ):
        target = solver
        if count is not None:
            # What a sample is fitted to is less than what other rows are.
            solver = eqx.tree_at(lambda s: s.tolerance, solver, BELOW * solver.tolerance)

        def seen(stage):
            whole = rows(stage)
            return whole if count is None else whole.part(jax.random.key(0), count)

        def run(weights, state, first, stage, length, _):
            problem = seen(stage)
            # One compilation serves the start and every chunk of every stage.
            state = jax.lax.cond(first, lambda: solver.init(problem, weights), lambda: state)
            before = state.steps
            upto = before + (jnp.where(first, 0, length) if count is None else length)
            state = advance(solver, problem, state, upto)
            # A solver may count from below zero, for a first step that only evaluates.
            steps = jnp.maximum(state.steps, 0) - jnp.maximum(before, 0)
            over = solver.terminate(state)
            terms = _watched(rows(stage), watched).terms(state.weights)
            loss = state.loss if count is None else _total(terms)
            done = over if count is None else _ended(target, loss)
            return Reached(state, state.weights, loss, terms, state.loss, steps, done, over)

        super().__init__(
            lambda: solver.init(seen(stage), weights), run, lambda: seen(stage).rows(weights), mesh
        )


class PartOfRows(_Steps):
    """Steps of ``solver``, each on ``count`` other items of the problem ``rows(stage)``."""

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stage: Any,
        count: int,
        watched: int | None = None,
        mesh: Mesh | None = None,
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
            terms = _watched(problem, watched).terms(state.weights)
            loss, over = _total(terms), jnp.array(False)
            done = _ended(solver, loss)
            return Reached(state, state.weights, loss, terms, state.loss, length, done, over)

        super().__init__(
            lambda: solver.init(part(rows(stage), 0), weights),
            run,
            lambda: part(rows(stage), 0).rows(weights),
            mesh,
        )


def _watched(problem: LeastSquares, count: int | None) -> LeastSquares:
    """Other items than a solver sees, but always the same ones; all if there are no more."""
    return problem if count is None else problem.part(jax.random.key(1), count)


def _total(terms: dict[str, Any]) -> Any:
    return sum(terms.values(), jnp.zeros(()))


def _ended(solver: AbstractInnerSolver, loss: Any) -> Any:
    return (loss <= solver.tolerance) | ~jnp.isfinite(loss)

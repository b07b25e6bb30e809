"""Chord steps: Gauss-Newton with one linearisation for many problems near each other.

The Jacobian of the rows is formed and factored once, at one theta; a step at another costs a pass of the
rows and two triangular solves. It converges linearly, the faster the less the Jacobian varies: for
solutions that are nearly right already (Kelley, *Solving Nonlinear Equations with Newton's Method*, 2003,
section 1.5).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Count, Flag, Rows, Scalar, Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.linearised import LEAST_DAMPING, Gram, solve_factored
from bilo_ppl.inner.solvers.base import AbstractInnerSolver, check_limits
from bilo_ppl.inner.stop_reason import StopReason

__all__ = ["Chord"]

BEYOND = 1e-2
"""Part of the tolerance below which nothing more is asked for."""

LEAST_GAIN = 0.5
"""A step that lowers the loss by a smaller part is the last: what is left is slow."""


class _State(NamedTuple):
    weights: Weights
    loss: Scalar
    steps: Count
    rows: Rows
    stuck: Flag


class Chord(AbstractInnerSolver):
    """Steps by the linearisation of ``problem`` at ``weights``, for problems of the same rows near it.

    It goes on below the tolerance, as far as it comes: one cannot tell how right a solution is without
    a much better one. The solve ends where a step no longer halves the loss; one that raises
    it is undone. ``weights`` have a structure of arrays, p numbers in all. Raises a ``ValueError`` for a
    tolerance that is not positive and a limit of steps below 0.

    Examples:
        >>> from bilo_ppl.inner.solvers import Chord, solve
        >>> chord = Chord(line, jnp.zeros(2), tolerance=1e-9, max_steps=5)
        >>> nearby = items[0], items[1] + 0.1  # other data, the same Jacobian
        >>> other = LeastSquares((RowFamily(misfit, nearby, row_weights={}),))
        >>> solve(chord, other, jnp.zeros(2)).value.round(3).tolist()
        [1.1, 2.0]
    """

    J: Float[Array, "rows p"]
    factor: Float[Array, "k k"]
    """Lower Cholesky factor of the smaller normal matrix, damped."""
    tolerance: float
    max_steps: int

    def __init__(
        self, problem: LeastSquares, weights: Weights, *, tolerance: float, max_steps: int
    ):
        """Form and factor the Jacobian; double precision where JAX has it enabled."""
        self.J, self.factor = _factored(problem, weights)
        self.tolerance, self.max_steps = tolerance, max_steps
        check_limits(self)

    def init(self, problem: LeastSquares, weights: Weights) -> _State:
        """Rows and loss at the start."""
        rows = problem.rows(weights)
        return _State(weights, jnp.sum(rows**2), jnp.array(0), rows, jnp.array(False))

    def step(self, problem: LeastSquares, state: _State) -> _State:
        """One step, kept if it lowers the loss."""
        flat, unravel = ravel_pytree(state.weights)
        weights = unravel(flat - solve_factored(self.J, self.factor, state.rows))
        rows = problem.rows(weights)
        loss = jnp.sum(rows**2)
        stuck = ~(loss <= (1 - LEAST_GAIN) * state.loss)
        better = loss < state.loss

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

        return _State(
            keep(weights, state.weights),
            keep(loss, state.loss),
            state.steps + 1,
            keep(rows, state.rows),
            stuck,
        )

    def reason(self, state: _State) -> Count:
        """Why the solve ends: not at the tolerance, but where nothing more is to be had."""
        go_on = ~state.stuck & (state.steps < self.max_steps)
        go_on &= jnp.isfinite(state.loss) & (state.loss > BEYOND * self.tolerance)
        return jnp.where(go_on, int(StopReason.RUNNING), super().reason(state))

    def stuck(self, state: _State) -> Flag:
        """The last step gained little."""
        return state.stuck


@jit_once
def _factored(problem: LeastSquares, weights: Weights) -> tuple[Any, Any]:
    """The Jacobian and the factor of its normal matrix, which rounding must not make indefinite."""
    system = Gram(problem.jacobian(weights))
    least = len(system.normal) * float(jnp.finfo(system.normal.dtype).eps)
    return system.J, system.factor(max(LEAST_DAMPING, least))

"""Any optax optimiser as inner solver; Adam is what the BiLO papers use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bilo_ppl._types import Count, Scalar, Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.solvers.base import AbstractInnerSolver, check_limits

__all__ = ["OptaxSolver"]


class _State(NamedTuple):
    weights: Weights
    loss: Scalar
    steps: Count
    candidate: Weights
    optimiser: Any


class OptaxSolver(AbstractInnerSolver):
    """Gradient steps of ``optimiser`` on the lower-level loss.

    A step evaluates loss and gradient at the candidate that the previous one proposed, and proposes
    the next: n steps cost n + 1 passes, and the weights returned are always those whose loss is
    reported. The first step only evaluates. ``tolerance`` is in the units of the loss, a mean of
    squared residuals. Raises a ``ValueError`` if it is not positive, or ``max_steps`` is negative.

    Examples:
        >>> import optax
        >>> solver = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1e-8, max_steps=5)
        >>> operator = bilo.FineTuned(network, solver, bilo.PartialDerivative())
        >>> _, _, info = eqx.filter_jit(operator.solve)({"r": 6.0}, operator.init_state())
        >>> int(info.steps), str(bilo.StopReason(int(info.reason)))
        (5, 'all steps used up')
    """

    optimiser: optax.GradientTransformation
    tolerance: float
    max_steps: int

    def __check_init__(self):
        check_limits(self)

    def init(self, problem: LeastSquares, weights: Weights) -> _State:
        """Loss at the start."""
        loss = problem.loss(weights)
        # -1: the first step proposes a candidate without having tried one.
        return _State(weights, loss, jnp.array(-1), weights, self.optimiser.init(weights))

    def step(self, problem: LeastSquares, state: _State) -> _State:
        """Evaluate the candidate and propose the next."""
        loss, gradient = jax.value_and_grad(problem.loss)(state.candidate)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, state.candidate)
        proposal = optax.apply_updates(state.candidate, updates)
        return _State(state.candidate, loss, state.steps + 1, proposal, optimiser)

    def follow(self, problem: LeastSquares, state: _State) -> _State:
        """Evaluate the candidate in the new problem and propose the next; the moments are kept.

        One pass, forward and backward: gradient descent on a loss that moves.
        """
        return self.step(problem, state._replace(steps=jnp.array(0)))

"""The inner solver: interface, result, and the one loop.

A solver is ``init``, ``step`` and ``terminate``; the loop belongs to nobody else. A state carries a
consistent pair of weights and loss, so that stopping at any moment is safe.
"""

import abc
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Count, Flag, Scalar, Weights
from bilo_ppl.inner.least_squares import LeastSquares

if TYPE_CHECKING:
    # To pyright Equinox's own alias declares a field of ``__init__``; at runtime it does not.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

__all__ = ["AbstractInnerSolver", "InnerSolution", "advance", "check_limits", "solve"]


class InnerSolution(NamedTuple):
    """What an inner solve returns."""

    value: Weights
    loss: Scalar
    steps: Count
    converged: Flag


@runtime_checkable
class SolverState(Protocol):
    """Fields that every solver's state has."""

    @property
    def weights(self) -> Weights:
        """The best weights so far."""
        ...

    @property
    def loss(self) -> Scalar:
        """Their loss."""
        ...

    @property
    def steps(self) -> Count:
        """Steps taken."""
        ...


class AbstractInnerSolver(eqx.Module):
    """Minimises the lower-level loss until it is at most ``tolerance`` or ``max_steps`` are taken."""

    tolerance: AbstractVar[float]
    max_steps: AbstractVar[int]

    @abc.abstractmethod
    def init(self, problem: LeastSquares, weights: Weights) -> Any:
        """State at the start: evaluates the loss once, and no derivative."""

    @abc.abstractmethod
    def step(self, problem: LeastSquares, state: Any) -> Any:
        """One step; never called once `terminate` holds."""

    def follow(self, problem: LeastSquares, state: Any) -> Any:
        """One step on another problem (another theta), from a state that was made for a former one.

        What the solver has learnt may be kept: an optimiser's moments are. The loss of the result is
        that of its weights in the new problem; its count of steps starts afresh.
        """
        return self.step(problem, self.init(problem, state.weights))

    @abc.abstractmethod
    def stuck(self, state: Any) -> Flag:
        """Whether further steps are of no use."""

    def terminate(self, state: SolverState) -> Flag:
        """Tolerance reached, steps used up, loss not finite, or stuck."""
        done = (state.loss <= self.tolerance) | ~jnp.isfinite(state.loss)
        return done | (state.steps >= self.max_steps) | self.stuck(state)


def check_limits(solver: AbstractInnerSolver) -> None:
    """Raise a ``ValueError`` for a tolerance or step limit that cannot be meant."""
    name = type(solver).__name__
    if not solver.tolerance > 0:
        raise ValueError(f"{name}: tolerance must be positive, got {solver.tolerance}.")
    if solver.max_steps < 0:
        raise ValueError(f"{name}: max_steps must be at least 0, got {solver.max_steps}.")


def advance(
    solver: AbstractInnerSolver, problem: LeastSquares, state: Any, upto: Any = None
) -> Any:
    """Step until the solver terminates, or until ``upto`` steps in total have been taken."""

    def go_on(state):
        more = ~solver.terminate(state)
        return more if upto is None else more & (state.steps < upto)

    return jax.lax.while_loop(go_on, lambda s: solver.step(problem, s), state)


def solve(solver: AbstractInnerSolver, problem: LeastSquares, weights: Weights) -> InnerSolution:
    """Run a solver from ``weights``; nothing here is differentiated."""
    state = advance(solver, problem, solver.init(problem, weights))
    steps = jnp.maximum(state.steps, 0)
    return InnerSolution(state.weights, state.loss, steps, state.loss <= solver.tolerance)

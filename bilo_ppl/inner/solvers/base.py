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
from bilo_ppl.inner.stop_reason import StopReason

if TYPE_CHECKING:
    # To pyright Equinox's own alias declares a field of ``__init__``; at runtime it does not.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

__all__ = [
    "AbstractInnerSolver",
    "InnerSolution",
    "SolverState",
    "advance",
    "check_limits",
    "solve",
]


class InnerSolution(NamedTuple):
    """What an inner solve returns.

    Examples:
        >>> bool(found.converged), str(bilo.StopReason(int(found.reason)))
        (True, 'converged')
        >>> bool(found.loss <= 1e-9), bool(found.steps <= 20)
        (True, True)
    """

    value: Weights
    """The weights, of the structure of the first ones."""
    loss: Scalar
    """Their loss."""
    steps: Count
    """Steps taken."""
    reason: Count
    """Why it stopped: a `StopReason`."""

    @property
    def converged(self) -> Any:
        """Whether the tolerance was reached, bool."""
        return self.reason == StopReason.CONVERGED


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
    """Minimises the lower-level loss until it is at most ``tolerance`` or ``max_steps`` are taken.

    **How to write your own.** Subclass it with the fields ``tolerance`` and ``max_steps``, and give
    `init` and `step` on a state of your own: a NamedTuple of arrays with at least ``weights``, their
    ``loss`` and ``steps`` (see `SolverState`), of the same structure and types after every step, since
    the loop is a ``jax.lax.while_loop``. A `LeastSquares` problem offers ``rows``, ``loss`` and
    ``jacobian`` at any weights. `stuck` and `follow` have defaults that are right for a solver without
    memory. `OptaxSolver` is an example of 20 lines.

    Examples:
        >>> from typing import NamedTuple
        >>> class State(NamedTuple):
        ...     weights: object
        ...     loss: jax.Array
        ...     steps: jax.Array
        >>> class Descent(bilo.AbstractInnerSolver):
        ...     tolerance: float
        ...     max_steps: int
        ...     def init(self, problem, weights):
        ...         return State(weights, problem.loss(weights), jnp.array(0))
        ...     def step(self, problem, state):
        ...         slope = jax.grad(problem.loss)(state.weights)
        ...         weights = jax.tree.map(lambda w, g: w - 1e-3 * g, state.weights, slope)
        ...         return State(weights, problem.loss(weights), state.steps + 1)
        >>> operator = bilo.FineTuned(network, Descent(1e-6, 5), bilo.PartialDerivative())
        >>> _, _, info = eqx.filter_jit(operator.solve)({"r": 6.0}, operator.init_state())
        >>> str(bilo.StopReason(int(info.reason)))
        'all steps used up'
    """

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

    def for_parts(self) -> "AbstractInnerSolver":
        """The solver for steps of which each follows on another random part of the rows."""
        return self

    def stuck(self, state: Any) -> Flag:
        """Whether further steps are of no use; by default the solver never knows."""
        return jnp.array(False)

    def reason(self, state: SolverState) -> Count:
        """Why the solver stops at a state, a `StopReason`; RUNNING if it does not.

        Tolerance reached, loss not finite, steps used up, stuck: the first that holds.
        """
        running, stuck = (jnp.int32(r) for r in (StopReason.RUNNING, StopReason.STUCK))
        reason = jnp.where(self.stuck(state), stuck, running)
        for holds, meaning in (
            (state.steps >= self.max_steps, StopReason.STEP_LIMIT),
            (~jnp.isfinite(state.loss), StopReason.NOT_FINITE),
            (state.loss <= self.tolerance, StopReason.CONVERGED),
        ):
            reason = jnp.where(holds, int(meaning), reason)
        return reason

    def terminate(self, state: SolverState) -> Flag:
        """Whether there is a reason to stop."""
        return self.reason(state) != StopReason.RUNNING


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
    """Step until the solver terminates, or until ``upto`` steps in total have been taken.

    ``state`` is one of the solver's own, of ``solver.init(problem, weights)`` or of an `advance`
    before, and so is what comes back.

    Examples:
        >>> from bilo_ppl.inner.solvers import advance
        >>> solver = bilo.LevenbergMarquardt(tolerance=1e-9, max_steps=20)
        >>> state = advance(solver, line, solver.init(line, jnp.zeros(2)), upto=1)
        >>> int(state.steps), bool(state.loss < line.loss(jnp.zeros(2)))
        (1, True)
        >>> bool(solver.terminate(advance(solver, line, state)))
        True
    """

    def go_on(state):
        more = ~solver.terminate(state)
        return more if upto is None else more & (state.steps < upto)

    return jax.lax.while_loop(go_on, lambda s: solver.step(problem, s), state)


def solve(solver: AbstractInnerSolver, problem: LeastSquares, weights: Weights) -> InnerSolution:
    """Run a solver from ``weights``; nothing here is differentiated.

    Examples:
        >>> from bilo_ppl.inner.solvers import solve
        >>> found = solve(bilo.LevenbergMarquardt(tolerance=1e-9, max_steps=20), line, jnp.zeros(2))
        >>> found.value.round(3).tolist()  # of the line 1 + 2 x
        [1.0, 2.0]
    """
    state = advance(solver, problem, solver.init(problem, weights))
    steps = jnp.maximum(state.steps, 0)
    return InnerSolution(state.weights, state.loss, steps, solver.reason(state))

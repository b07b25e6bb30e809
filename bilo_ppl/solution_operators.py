"""Solution operators: from theta to the PDE solution, a function of a point."""

import abc
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax

from bilo_ppl._types import Field, Theta, Weights
from bilo_ppl.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.operator import LocalOperator
from bilo_ppl.problem import Problem, check_theta, theta_as
from bilo_ppl.solvers import AbstractInnerSolver, solve

if TYPE_CHECKING:
    # To pyright Equinox's own alias declares a field of ``__init__``; at runtime it does not.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

__all__ = ["AbstractSolutionOperator", "FineTuned", "SolveInfo"]


class SolveInfo(NamedTuple):
    """What a solve reports: arrays only, so that samplers can carry and record them."""

    steps: Any
    """Inner steps taken, int."""
    loss: Any
    """Lower-level loss at the end (an operator without one reports its own residual measure)."""
    converged: Any
    """Whether the tolerance was reached, bool."""


class AbstractSolutionOperator(eqx.Module):
    """Anything that solves the PDE for a given theta, differentiably.

    ``state`` is whatever a solve can start from (a warm start): weights for a fine-tuned network, an
    empty tuple for an operator without memory. The field depends on theta differentiably; the new
    state and the info do not.
    """

    problem: AbstractVar[Problem]

    @abc.abstractmethod
    def init_state(self) -> Any:
        """The state that a solve without history starts from."""

    @abc.abstractmethod
    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """Solve at ``theta`` from ``state``: the solution, the new state, and the report."""


class FineTuned(AbstractSolutionOperator):
    """BiLO: the local operator, fine-tuned at every theta until its loss is below a tolerance.

    ``operator`` says which weights may change (all, or LoRA increments: `LocalOperator.with_lora`),
    ``solver`` how they are found and to what tolerance, ``sensitivity`` how the solution is
    differentiated with respect to theta. ``row_weights`` are the loss weights of the lower level.
    """

    operator: LocalOperator
    solver: AbstractInnerSolver
    sensitivity: AbstractSensitivity
    row_weights: dict[str, float] = eqx.field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """The PDE."""
        return self.operator.problem

    @property
    def lower_level(self) -> LowerLevel:
        """The least-squares problem that the inner solver works on."""
        return LowerLevel(self.operator, self.sensitivity, self.row_weights)

    def init_state(self) -> Weights:
        """The stored weights."""
        return self.operator.weights

    def solve(self, theta: Theta, state: Weights) -> tuple[Field, Weights, SolveInfo]:
        """Fine-tune from the weights ``state`` if the loss at theta asks for it.

        The search for the weights is not differentiated; the sensitivity supplies the derivative.
        """
        check_theta(self.problem, theta)
        arrays, static = eqx.partition((theta_as(theta, self.operator.dtype), state), eqx.is_array)
        fixed = eqx.combine(jax.lax.stop_gradient(arrays), static)
        lower_level = self.lower_level
        solution = solve(self.solver, lower_level.at(fixed[0]), fixed[1])
        weights = self.sensitivity.attach(lower_level, solution.value, theta)
        field = self.operator.with_weights(weights).field(theta)
        return field, solution.value, SolveInfo(solution.steps, solution.loss, solution.converged)

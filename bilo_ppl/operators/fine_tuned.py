"""BiLO's solution operator: a network that is fine-tuned wherever theta goes."""

import equinox as eqx
import jax

from bilo_ppl._types import Field, Theta, Weights
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.inner.solvers import AbstractInnerSolver, solve
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem, check_theta, theta_as

__all__ = ["FineTuned"]


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

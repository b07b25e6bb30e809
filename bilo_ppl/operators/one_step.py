"""The simultaneous update of weights and theta, as a solution operator."""

from typing import Any

import equinox as eqx
import jax

from bilo_ppl._types import Field, Theta
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.pde.problem import Problem, theta_as

__all__ = ["OneStep"]


class OneStep(AbstractSolutionOperator):
    """A fixed number of inner steps at every theta, whatever the loss is.

    With one step, under an outer optimiser this is Algorithm 1 of BiLO (arXiv:2404.17789): weights
    and theta descend together, each on its own loss and with its own learning rate. The state is the
    inner solver's own, so that an optimiser's moments persist while theta moves. The field has the
    weights whose loss is reported.
    """

    operator: FineTuned
    theta: dict[str, Any]
    """Where the first state is made."""
    steps: int = eqx.field(static=True)

    @property
    def problem(self) -> Problem:
        """The PDE."""
        return self.operator.problem

    def init_state(self) -> Any:
        """The inner solver's state at the stored weights."""
        operator = self.operator
        theta = theta_as(self.theta, operator.operator.dtype)
        return operator.solver.init(operator.lower_level.at(theta), operator.init_state())

    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """``steps`` inner steps; converged says whether the solver's tolerance holds all the same."""
        local, solver = self.operator.operator, self.operator.solver
        arrays, static = eqx.partition((theta_as(theta, local.dtype), state), eqx.is_array)
        fixed, state = eqx.combine(jax.lax.stop_gradient(arrays), static)
        lower_level = self.operator.lower_level
        problem = lower_level.at(fixed)
        state = solver.follow(problem, state)
        if self.steps > 1:
            state = jax.lax.fori_loop(1, self.steps, lambda _, s: solver.step(problem, s), state)
        weights = self.operator.sensitivity.attach(lower_level, state.weights, theta)
        field = local.with_weights(weights).field(theta)
        info = SolveInfo(jax.numpy.array(self.steps), state.loss, state.loss <= solver.tolerance)
        return field, state, info

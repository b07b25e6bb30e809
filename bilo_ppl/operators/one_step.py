"""The simultaneous update of weights and theta, as a solution operator."""

from typing import Any

import equinox as eqx
import jax

from bilo_ppl._types import Field, Theta
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.solvers import AbstractInnerSolver
from bilo_ppl.network.local_operator import LocalSolution
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["OneStep"]


class OneStep(AbstractSolutionOperator):
    """A fixed number of inner steps at every theta, whatever the loss is.

    With one step, under an outer optimiser this is Algorithm 1 of BiLO (arXiv:2404.17789): weights
    and theta descend together, each on its own loss and with its own learning rate. The state is the
    inner solver's own, so that an optimiser's moments persist while theta moves. The field has the
    weights whose loss is reported. `find_map` makes one with ``method="simultaneous"``.

    Examples:
        >>> import optax
        >>> from bilo_ppl.operators import OneStep
        >>> level = bilo.LowerLevel(network, bilo.PartialDerivative())
        >>> adam = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1e-9, max_steps=1000)
        >>> operator = OneStep(level, adam, start, steps=1)
        >>> field, state, info = eqx.filter_jit(operator.solve)({"r": 6.0}, operator.init_state())
        >>> int(info.steps), bool(info.converged)
        (1, False)
    """

    lower_level: LowerLevel
    solver: AbstractInnerSolver
    theta: dict[str, Any]
    """Where the first state is made."""
    steps: int = eqx.field(static=True)

    @property
    def problem(self) -> Problem:
        """The PDE."""
        return self.lower_level.operator.problem

    def init_state(self) -> Any:
        """The inner solver's state at the stored weights."""
        local = self.lower_level.operator
        theta = theta_as(self.theta, local.dtype)
        return self.solver.init(self.lower_level.at(theta), local.weights)

    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """``steps`` inner steps; converged says whether the solver's tolerance holds all the same."""
        lower_level, solver = self.lower_level, self.solver
        local = lower_level.operator
        theta = admit(local.problem, theta, local.dtype)
        arrays, static = eqx.partition((theta, state), eqx.is_array)
        fixed, state = eqx.combine(jax.lax.stop_gradient(arrays), static)
        problem = lower_level.at(fixed)
        state = solver.follow(problem, state)
        if self.steps > 1:
            state = jax.lax.fori_loop(1, self.steps, lambda _, s: solver.step(problem, s), state)
        weights = lower_level.sensitivity.attach(lower_level, state.weights, theta)
        field = LocalSolution(local.with_weights(weights), theta)
        return field, state, SolveInfo.of(self.steps, state.loss, state.loss <= solver.tolerance)

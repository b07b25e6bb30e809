"""Solves where the output layer has the only weights: among known solutions first, then anywhere."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Field, Scalar, Theta, Weights
from bilo_ppl.inner.output_level import OutputLevel
from bilo_ppl.inner.output_rows import OutputSolution
from bilo_ppl.inner.reduced_level import ReducedLevel
from bilo_ppl.inner.ridge_problem import Minimum, RidgeProblem, smallest_ridge
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.network.features import output_weights
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit

__all__ = ["AbstractOutputLayer"]


class AbstractOutputLayer(AbstractSolutionOperator):
    """The solves of an `OutputLayer`, and what they need."""

    level: OutputLevel
    tolerance: float
    ridge: Scalar
    reduced: ReducedLevel | None
    """Between solutions that are known, once the operator is fitted to them."""
    max_steps: int = eqx.field(static=True)
    linear: bool = eqx.field(static=True)
    """Whether one step is the solution."""
    factor: Float[Array, "p p"] | None
    """Of the normal matrix, where u is linear in what theta is made of: the same for every theta."""

    @property
    def operator(self) -> LocalOperator:
        """Features and stored weights as a local operator, which does not follow theta."""
        return self.level.operator

    @property
    def problem(self) -> Problem:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The PDE."""
        return self.operator.problem

    def init_state(self) -> Float[Array, "components features"]:
        """The stored weights."""
        return output_weights(self.operator)

    def solve(self, theta: Theta, state: Weights) -> tuple[Field, Weights, SolveInfo]:
        """The minimiser at theta, from the weights ``state``, and its derivative.

        Among combinations of known solutions, where these meet the tolerance; one step more does not.
        """
        theta = admit(self.problem, theta, self.operator.dtype)
        if self.reduced is None:
            weights, state, info = self._solved(theta, state)
        else:
            weights, state, info = self._solved_between(self.reduced, theta, state)
        return OutputSolution(self.operator, weights, theta), state, info

    def _solved_between(
        self, level: ReducedLevel, theta: Theta, state: Weights
    ) -> tuple[Any, Weights, SolveInfo]:
        nowhere = jnp.zeros(len(level.directions), self.operator.dtype)
        ridge = smallest_ridge(nowhere.size, nowhere.dtype)
        problem = RidgeProblem(level, nowhere, ridge, self.linear, self.max_steps)
        found = problem.minimum(theta, nowhere)
        info = self._seen(problem, theta, found)
        arrays, static = eqx.partition(theta, eqx.is_array)

        def between(arrays: Any) -> Any:
            weights = level.weights(problem.attached(eqx.combine(arrays, static), found))
            return weights, level.weights(found.flat), info

        def anywhere(arrays: Any) -> Any:
            weights, new, other = self._solved(eqx.combine(arrays, static), state, rarely=True)
            return weights, new, other._replace(steps=other.steps + 1)

        return jax.lax.cond(info.converged, between, anywhere, arrays)

    def _solved(
        self, theta: Theta, state: Weights, *, rarely: bool = False
    ) -> tuple[Any, Weights, SolveInfo]:
        level = self.level
        problem = RidgeProblem(
            *(level, self.init_state().ravel(), self.ridge, self.linear, self.max_steps),
            limit=self.tolerance,
            factor=self.factor,
        )
        found = problem.minimum(theta, state.ravel())
        attached = problem.attached_rarely if rarely else problem.attached
        weights = level.weights(attached(theta, found))
        return weights, level.weights(found.flat), self._seen(problem, theta, found)

    def _seen(self, problem: RidgeProblem, theta: Theta, found: Minimum) -> SolveInfo:
        arrays, static = eqx.partition(theta, eqx.is_array)
        fixed = eqx.combine(jax.lax.stop_gradient(arrays), static)
        loss = jnp.sum(problem.level.rows(fixed, found.flat) ** 2)
        finite, known = jnp.isfinite(loss), problem.level.knows(fixed, found.flat)
        known &= problem.is_minimum(fixed, found)
        converged = (loss <= self.tolerance) & finite & known
        otherwise = jnp.where(known, StopReason.STUCK, StopReason.INVALID)
        otherwise = jnp.where(finite, otherwise, StopReason.NOT_FINITE)
        return SolveInfo.of(found.steps, loss, converged, otherwise)

"""A solution that can be written down, as a solution operator."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Field, Point, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit

__all__ = ["ClosedForm", "as_pytree"]


class ClosedForm(AbstractSolutionOperator):
    """The solution by a formula: exact, without a step, and never unconverged where it holds.

    With it the same model has its exact posterior, at no cost. Derivatives in theta are those of the
    formula.

    Examples:
        >>> operator = bilo.ClosedForm(problem, formula)
        >>> field, _, info = operator.solve({"r": 4.0}, operator.init_state())
        >>> round(float(field(jnp.array([0.5]))), 4), int(info.steps)
        (0.324, 0)
        >>> slope = jax.grad(lambda r: bilo.solution("u", operator, {"r": r})(jnp.array([0.5])))
        >>> round(float(slope(4.0)), 4)
        -0.0308
    """

    problem: Problem
    formula: Callable[[Any, Any], Any]
    valid: Callable[[Any], Any] | None

    def __init__(
        self,
        problem: Problem,
        formula: Callable[[Point, Theta], Any],
        valid: Callable[[Theta], Any] | None = None,
    ):
        """Functions that JAX can trace, or Equinox modules.

        **Arguments**

        - ``formula(x, theta)``: u at a point ``(d,)``: a scalar, or ``(components,)`` for a system.
        - ``valid(theta)``: whether the formula holds at theta, a bool; elsewhere a solve counts as not
          converged, for the reason ``StopReason.INVALID``. By default it holds everywhere.
        """
        self.problem = problem
        self.formula = as_pytree(formula)
        self.valid = None if valid is None else as_pytree(valid)

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """The formula at ``theta``: no step, and a loss of 0."""
        theta = admit(self.problem, theta, jnp.result_type(float))
        holds = True if self.valid is None else self.valid(theta)
        return self._field(theta), state, SolveInfo.of(0, 0.0, holds, StopReason.INVALID)

    def unsolved(self, theta: Theta) -> Field:
        """The solution itself."""
        return self._field(admit(self.problem, theta, jnp.result_type(float)))

    def _field(self, theta: Theta) -> Field:
        components = self.problem.components
        return _AtTheta(self.formula, theta, () if components == 1 else (components,))


class _AtTheta(eqx.Module):
    """The formula at one theta, a function of a point; raises a ``ValueError`` for a wrong shape."""

    formula: Callable[[Any, Any], Any]
    theta: Any
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        value = jnp.asarray(self.formula(x, self.theta))
        if value.shape != self.shape:
            raise ValueError(
                f"ClosedForm: the formula gives shape {value.shape} at a point of shape {jnp.shape(x)}; "
                f"it must give {self.shape} (is x[0] meant where x stands?)."
            )
        return value


def as_pytree(function: Callable) -> Any:
    """A plain function as a pytree without leaves, so that the operator may be an argument of jit."""
    return function if isinstance(function, eqx.Module) else jax.tree_util.Partial(function)

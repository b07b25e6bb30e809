"""``solution``: the PDE solution as a NumPyro effect, and the handlers that act on it.

Inside a model, ``u = solution("u", operator, theta)`` is a function of a point. Without a handler it
is a pure function of theta, so every NumPyro algorithm works on the model. A handler may supply the
state to start from and collect what the solve reports (`warm_start`), or put another operator in the
place of the one that the model names (`replace_operator`).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from numpyro.primitives import apply_stack

from bilo_ppl._types import Field, Flag, Theta
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.theta import check_theta

__all__ = ["TYPE", "Solved", "solution"]

TYPE = "bilo_solution"


class _Checked(eqx.Module):
    """A solution that is NaN unless its solve converged, as are its derivatives along x, of any order.

    A NaN makes the potential NaN, which NumPyro's samplers reject and count as a divergence; in
    predictions it shows. Derivatives with respect to theta stay finite, so that optimisers may step
    over it.
    """

    field: Any
    converged: Flag

    def __call__(self, x):
        value = self.field(x)
        # No derivative of the sine vanishes for ever, and none is infinite, which 0 would not undo.
        unsolved = jnp.where(self.converged, 0.0, jnp.nan) * jnp.sin(jnp.sum(x))
        return jnp.where(self.converged, value, unsolved.astype(jnp.result_type(value)))


def solution(name: str, operator: AbstractSolutionOperator, theta: Theta) -> Field:
    """The PDE solution at ``theta``: a function of a point ``(d,)``.

    ``operator`` is any solution operator: a fine-tuned network, a finite-difference reference, a
    surrogate. A solve that does not reach its tolerance yields NaN values, hence a rejected
    proposal, unless a handler accepts it. Raises a ``ValueError`` if the names in theta are not the
    parameters of the operator's problem, or a concrete value is not finite.
    """
    if not isinstance(operator, AbstractSolutionOperator):
        raise TypeError(
            f"solution({name!r}, operator, theta): operator is a {type(operator).__name__}, not a "
            "solution operator; wrap a LocalOperator in FineTuned."
        )
    check_theta(operator.problem, theta)
    message: dict[str, Any] = {
        "type": TYPE,
        "name": name,
        "fn": _solve,
        "args": (operator, theta),
        "kwargs": {"state": None, "accept": False},
        "value": None,
        "info": None,
        "cond_indep_stack": [],
        "scale": None,
        "mask": None,
        "is_observed": False,
        "infer": {},
    }
    return apply_stack(message)["value"].field  # pyright: ignore[reportArgumentType]


class Solved(eqx.Module):
    """Value of the effect: the field for the model, state and report for the handlers."""

    field: Field
    state: Any
    info: SolveInfo


def _solve(operator: AbstractSolutionOperator, theta: Theta, *, state: Any, accept: bool) -> Solved:
    start = operator.init_state() if state is None else state
    field, state, info = operator.solve(theta, start)
    if not accept:
        field = _Checked(field, info.converged)
    return Solved(field, state, info)

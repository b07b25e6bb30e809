"""``solution`` and ``solutions``: the PDE solution as a NumPyro effect.

Inside a model, ``u = solution("u", operator, theta)`` is a function of a point, and ``solutions`` gives
those of several experiments. Without a handler it is a pure function of theta, so every NumPyro
algorithm works on the model. A handler may supply the state to start from and collect what the solve
reports (`warm_start`), or put another operator in the place of the one that the model names
(`replace_operator`).
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from numpyro.primitives import apply_stack

from bilo_ppl._pages import see
from bilo_ppl._types import Field, Flag, Theta
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.point_checks import check_point
from bilo_ppl.pde.theta import check_theta
from bilo_ppl.ppl.experiments import Solutions, batched_theta, initial_state, solve_each

__all__ = ["TYPE", "Solved", "check_entries", "solution", "solutions", "solve_site"]

TYPE = "bilo_solution"


class _Checked(eqx.Module):
    """A solution that is NaN unless its solve converged, as are its derivatives along x, of any order.

    A NaN makes the potential NaN, which NumPyro's samplers reject and count as a divergence; in
    predictions it shows. Derivatives with respect to theta stay finite, so that optimisers may step
    over it.
    """

    field: Any
    converged: Flag
    domain: Box = eqx.field(static=True)

    def __call__(self, x):
        check_point(self.domain, x)
        value = self.field(x)
        # No derivative of the sine vanishes for ever, and none is infinite, which 0 would not undo.
        unsolved = jnp.where(self.converged, 0.0, jnp.nan) * jnp.sin(jnp.sum(x))
        return jnp.where(self.converged, value, unsolved.astype(jnp.result_type(value)))


def solution(name: str, operator: AbstractSolutionOperator, theta: Theta) -> Field:
    """The PDE solution at ``theta``: a function of a point ``(d,)``.

    ``operator`` is any solution operator: a fine-tuned network, a finite-difference reference, a
    surrogate. A solve that does not reach its tolerance yields NaN values, hence a rejected
    proposal, unless a handler accepts it. Raises a ``ValueError`` if the names in theta are not the
    parameters of the operator's problem, a concrete value is not finite, or an entry has another shape
    than in the theta of pretraining. For several thetas at once there is `solutions`.

    Examples:
        >>> u = bilo.solution("u", exact, {"r": 4.0})
        >>> round(float(u(jnp.array([0.5]))), 4), jax.vmap(u)(x).shape
        (0.324, (10,))
    """
    _check(name, operator, theta, "solution")
    check_entries(name, theta, None, operator.home)
    return _solved(name, operator, theta, None).field


def solutions(name: str, operator: AbstractSolutionOperator, thetas: Theta) -> Solutions:
    """The PDE solutions of n experiments, found by one vectorised solve: one site of the model.

    **Arguments**

    - ``thetas``: as for `solution`, but with one axis n in front of every array: a number for each
      experiment is an entry ``(n,)``, a vector ``(n, k)``. Scalars and functions are shared by all.

    **The result**, ``us``:

    - ``us(points)``: values ``(n, m)``, or ``(n, m, components)`` for a system, at points ``(m, d)``, the
      same for all experiments, or ``(n, m, d)``;
    - ``us[i]``: the solution of one experiment, a function of a point ``(d,)``; ``len(us)`` is n.

    An experiment whose solve does not reach its tolerance yields NaN values, as for `solution`, and the
    site counts as solved only where all are; what a solve reports are the sum of the steps and the
    largest loss. States and thetas that handlers see have the axis n. Raises a ``ValueError`` as
    `solution` does, and where the lengths of the axes disagree.

    Examples:
        >>> us = bilo.solutions("u", exact, {"r": jnp.array([4.0, 9.0])})
        >>> us(x).shape, len(us), round(float(us[0](jnp.array([0.5]))), 4)
        ((2, 10), 2, 0.324)
    """
    _check(name, operator, thetas, "solutions")
    thetas, count = batched_theta(name, operator, thetas)
    check_entries(name, thetas, count, operator.home)
    return _solved(name, operator, thetas, count).field  # pyright: ignore[reportReturnType]


def _check(name: str, operator: Any, theta: Theta, function: str) -> None:
    if not isinstance(operator, AbstractSolutionOperator):
        raise TypeError(
            f"{function}({name!r}, operator, theta): operator is a {type(operator).__name__}, not a "
            "solution operator; wrap a LocalOperator in FineTuned."
        )
    check_theta(operator.problem, theta)


def check_entries(name: str, theta: Theta, batch: int | None, known: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` for an entry of theta whose shape is not that of the known theta.

    ``batch`` is the number n of experiments of the site, whose entries have that axis in front.
    """
    for entry, value in theta.items():
        there = known.get(entry)
        if callable(value) or there is None or callable(there) or isinstance(value, (list, tuple)):
            continue
        shape, wanted = jnp.shape(value), jnp.shape(there)
        if batch is not None:
            wanted = (batch, *wanted)
        if shape != wanted:
            function = "solution" if batch is None else "solutions"
            raise ValueError(
                f"{function}({name!r}): the entry {entry!r} of theta has shape {shape}, and {wanted} is "
                f"what the operator was made for{'' if batch is None else ' (experiments first)'}. For "
                f"several experiments use bilo.solutions. {see('Several experiments')}"
            )


class Solved(eqx.Module):
    """Value of the effect: the field for the model, state and report for the handlers."""

    field: Field
    state: Any
    info: SolveInfo


def _solved(
    name: str, operator: AbstractSolutionOperator, theta: Theta, batch: int | None
) -> Solved:
    message: dict[str, Any] = {
        "type": TYPE,
        "name": name,
        "fn": solve_site,
        "args": (operator, theta),
        "kwargs": {"state": None, "accept": False, "batch": batch},
        "value": None,
        "info": None,
        "cond_indep_stack": [],
        "scale": None,
        "mask": None,
        "is_observed": False,
        "infer": {},
    }
    return apply_stack(message)["value"]  # pyright: ignore[reportReturnType]


def solve_site(
    operator: AbstractSolutionOperator,
    theta: Theta,
    *,
    state: Any = None,
    accept: bool = False,
    batch: int | None = None,
) -> Solved:
    """What a solution site does without handlers: solve at theta, from the operator's or a given state.

    With ``batch``, the number n of experiments, for all of them: arrays of theta and state have that
    axis in front. ``accept`` lets a solve that missed its tolerance stand.
    """

    domain = operator.problem.domain
    # Masks have no hash, and nothing asks for them here.
    box = Box(tuple(map(float, domain.lower)), tuple(map(float, domain.upper)))

    def check(field: Field, info: SolveInfo) -> Field:
        return field if accept else _Checked(field, info.converged, box)

    start = initial_state(operator, batch) if state is None else state
    if batch is not None:
        return Solved(*solve_each(operator, theta, start, batch, check))
    field, state, info = operator.solve(theta, start)
    return Solved(check(field, info), state, info)

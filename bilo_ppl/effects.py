"""``solution``: the PDE solution as a NumPyro effect, and the handlers that act on it.

Inside a model, ``u = solution("u", operator, theta)`` is a function of a point. Without a handler it
is a pure function of theta, so every NumPyro algorithm works on the model. A handler may supply the
state to start from and collect what the solve reports (`warm_start`), or put another operator in the
place of the one that the model names (`replace_operator`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger, apply_stack

from bilo_ppl._types import Field, Flag, Theta
from bilo_ppl.problem import check_theta
from bilo_ppl.solution_operators import AbstractSolutionOperator, SolveInfo

__all__ = ["find_solutions", "replace_operator", "solution", "warm_start", "without_solving"]

TYPE = "bilo_solution"


class _Checked(eqx.Module):
    """A solution whose values are NaN unless its solve converged.

    A NaN makes the potential NaN, which NumPyro's samplers reject and count as a divergence; in
    predictions it shows. Derivatives stay finite, so that optimisers may step over it.
    """

    field: Any
    converged: Flag

    def __call__(self, x):
        value = self.field(x)
        return jnp.where(self.converged, value, jnp.nan)


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


class _Solved(eqx.Module):
    """Value of the effect: the field for the model, state and report for the handlers."""

    field: Field
    state: Any
    info: SolveInfo


def _solve(
    operator: AbstractSolutionOperator, theta: Theta, *, state: Any, accept: bool
) -> _Solved:
    start = operator.init_state() if state is None else state
    field, state, info = operator.solve(theta, start)
    if not accept:
        field = _Checked(field, info.converged)
    return _Solved(field, state, info)


class warm_start(Messenger):  # noqa: N801
    """Start solves from given states and collect new states and reports.

    ``states`` maps solution names to operator states; ``accept_unconverged`` lets a solve that did
    not reach its tolerance stand. After the model has run, ``handler.states`` and ``handler.infos``
    hold the new states and the `SolveInfo` of every solution site.
    """

    def __init__(
        self,
        fn: Callable | None = None,
        states: Mapping[str, Any] | None = None,
        accept_unconverged: bool = False,
    ):
        self.given = dict(states or {})
        self.accept_unconverged = accept_unconverged
        self.states: dict[str, Any] = {}
        self.infos: dict[str, SolveInfo] = {}
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        """Put in the start."""
        if msg["type"] == TYPE:
            msg["kwargs"]["state"] = self.given.get(msg["name"])
            msg["kwargs"]["accept"] = self.accept_unconverged

    def postprocess_message(self, msg: Any) -> None:
        """Take out the end."""
        if msg["type"] == TYPE:
            self.states[msg["name"]] = jax.lax.stop_gradient(msg["value"].state)
            self.infos[msg["name"]] = msg["value"].info


class replace_operator(Messenger):  # noqa: N801
    """Solve with other operators than those that the model names: ``{"u": reference}``.

    The same model, another solver: every comparison of operators is made this way.
    """

    def __init__(
        self,
        fn: Callable | None = None,
        operators: Mapping[str, AbstractSolutionOperator] | None = None,
    ):
        self.operators = dict(operators or {})
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        """Swap the operator."""
        if msg["type"] == TYPE and msg["name"] in self.operators:
            _, theta = msg["args"]
            msg["args"] = (self.operators[msg["name"]], theta)


class without_solving(Messenger):  # noqa: N801
    """Put u = 0 in the place of every solution: no operator is called.

    For what needs the structure of a model and not its solution: names, priors, data, theta.
    """

    def process_message(self, msg: Any) -> None:
        """A message that has a value is not evaluated."""
        if msg["type"] == TYPE and msg["value"] is None:
            components = msg["args"][0].problem.components
            zero = jnp.zeros((components,) if components > 1 else ())
            info = SolveInfo(jnp.array(0), jnp.array(0.0), jnp.array(True))
            msg["value"] = _Solved(lambda x: zero, (), info)


class find_solutions(without_solving):  # noqa: N801
    """Record the operator and theta of every solution site, without solving.

    After the model has run, ``handler.sites[name]`` is the pair (operator, theta). Raises a
    ``ValueError`` where a name is used twice.
    """

    def __init__(self, fn: Callable | None = None):
        self.sites: dict[str, tuple[AbstractSolutionOperator, Theta]] = {}
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        """Note the call."""
        if msg["type"] == TYPE:
            if msg["name"] in self.sites:
                raise ValueError(f"solution: the name {msg['name']!r} is used twice in the model.")
            self.sites[msg["name"]] = tuple(msg["args"])
        super().process_message(msg)

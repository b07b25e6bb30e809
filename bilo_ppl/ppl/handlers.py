"""Handlers that act on the effect ``solution``: other starts, other operators, or no solve at all."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from bilo_ppl._types import Field
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.point_checks import SLACK, check_point
from bilo_ppl.pde.problem import Problem
from bilo_ppl.ppl.effect import TYPE, Solved
from bilo_ppl.ppl.experiments import Solutions

__all__ = ["given_solution", "replace_operator", "warm_start", "without_solving", "zero_solution"]


class warm_start(Messenger):  # noqa: N801
    """Start solves from given states and collect new states and reports.

    ``states`` maps solution names to operator states; ``accept_unconverged`` lets a solve that did
    not reach its tolerance stand. After the model has run, ``handler.states`` and ``handler.infos``
    hold the new states and the `SolveInfo` of every solution site.

    Examples:
        >>> handler = bilo.warm_start(states={"u": tuned.init_state()})
        >>> with handler:
        ...     u = bilo.solution("u", tuned, {"r": 7.0})
        >>> info = handler.infos["u"]
        >>> bool(info.converged), int(info.steps) > 0
        (True, True)
        >>> next_start = handler.states  # where a solve nearby needs fewer steps
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

    Examples:
        >>> from numpyro.infer.util import log_density
        >>> args = bilo.FiniteDifferences(problem, nodes=5, theta=start), x, y
        >>> round(float(log_density(model, args, {}, {"r": 9.0})[0]), 1)
        26.1
        >>> better = bilo.replace_operator(model, {"u": exact})
        >>> round(float(log_density(better, args, {}, {"r": 9.0})[0]), 1)
        26.6
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


class given_solution(Messenger):  # noqa: N801
    """Put given functions of a point in the place of solutions, by name: no operator is called.

    At a site of several experiments a function of a point is the solution of all of them.
    """

    def __init__(self, fn: Callable | None = None, fields: Mapping[str, Field] | None = None):
        self.fields = dict(fields or {})
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        """A message that has a value is not evaluated."""
        if msg["type"] == TYPE and msg["name"] in self.fields:
            msg["value"] = _given(msg, self.fields[msg["name"]])


class without_solving(Messenger):  # noqa: N801
    """Put u = 0 in the place of every solution: no operator is called.

    For what needs the structure of a model and not its solution: names, priors, data, theta.
    """

    def process_message(self, msg: Any) -> None:
        """A message that has a value is not evaluated."""
        if msg["type"] == TYPE and msg["value"] is None:
            msg["value"] = _given(msg, zero_solution(msg["args"][0].problem, msg["name"]))


def zero_solution(problem: Problem, name: str, outside: float = 0.0) -> Field:
    """u = 0, a function of a point; ``outside`` of the domain it may have another value."""
    zero = jnp.zeros((problem.components,) if problem.components > 1 else ())
    lower, upper = np.array(problem.domain.lower), np.array(problem.domain.upper)
    margin = SLACK * (upper - lower)

    def field(x: Any) -> Any:
        check_point(problem.domain, x, name)
        if not outside:
            return zero
        within = jnp.all((x >= lower - margin) & (x <= upper + margin))
        return jnp.where(within, zero, outside)

    return field


def _given(msg: Any, field: Field) -> Solved:
    """The value of a solution site that is not solved."""
    batch = msg["kwargs"]["batch"]
    if batch is not None and not isinstance(field, Solutions):
        field = Solutions(field, batch, shared=True)
    return Solved(field, (), SolveInfo.of(0, 0.0, True))

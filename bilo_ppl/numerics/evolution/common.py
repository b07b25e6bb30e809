"""What the time-stepping operators share: the kind of problem, its initial and boundary values."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Scalar, Theta
from bilo_ppl.pde.problem import Problem

__all__ = [
    "boundary_values",
    "check_evolution",
    "extents",
    "halved",
    "initial_values",
    "with_boundary",
]

Interval: TypeAlias = tuple[float | int, float | int]


def _lifted(problem: Problem, x: Scalar, t: Scalar, theta: Theta, raw: float = 0.0) -> Scalar:
    value = problem.lift(jnp.stack([x, t]), jnp.asarray(raw, x.dtype), theta)
    return jnp.reshape(value, ())


def initial_values(
    problem: Problem, nodes: Float[Array, " n"], t: Scalar, theta: Theta
) -> Float[Array, " n"]:
    """The values at the first time t, which the lift gives for any raw output."""
    return jax.vmap(lambda x: _lifted(problem, x, t, theta))(nodes)


def boundary_values(
    problem: Problem, nodes: Float[Array, " n"], t: Scalar, theta: Theta
) -> Float[Array, "2"]:
    """The values at both ends at time t, which the lift gives for any raw output."""
    return jnp.stack([_lifted(problem, nodes[i], t, theta) for i in (0, -1)])


def with_boundary(
    problem: Problem,
    nodes: Float[Array, " n"],
    interior: Float[Array, " m"],
    t: Scalar,
    theta: Theta,
) -> Float[Array, " n"]:
    """All nodal values at time t."""
    ends = boundary_values(problem, nodes, t, theta)
    return jnp.concatenate([ends[:1], interior, ends[1:]])


def extents(problem: Problem) -> tuple[Interval, Interval]:
    """``(a, b)`` in space and ``(start, end)`` in time, of a problem on points (x, t)."""
    (a, start), (b, end) = problem.domain.lower, problem.domain.upper
    return (a, b), (start, end)


def halved(grid: Shaped[Any, " n"]) -> np.ndarray:
    """Equidistant numbers with half the distances, between the same ends."""
    return np.linspace(grid[0], grid[-1], 2 * len(grid) - 1)


def check_evolution(solver: str, problem: Problem, theta: Theta, dtype: Any) -> None:
    """Refuse what is not a scalar evolution problem on points (x, t), with a ``ValueError``.

    Its initial values and its values at both ends must be built into the lift.
    """
    name = type(problem).__name__
    if problem.domain.dimension != 2 or problem.components != 1:
        raise ValueError(
            f"{solver} solves scalar problems on points (x, t); {name} has {problem.components} "
            f"components in {problem.domain.dimension} dimensions."
        )
    if problem.domain.time != 1:
        found = "has no time" if problem.domain.time is None else "has time first"
        raise ValueError(
            f"{solver} solves problems on points (x, t), but {name}.domain {found}; make it by "
            "space_time(interval(a, b), end), whose last coordinate is time."
        )
    (a, b), (start, end) = extents(problem)
    inside = np.linspace(a, b, 7)[1:-1]
    places = [("initial values", x, start) for x in inside]
    places += [("boundary values", x, t) for x in (a, b) for t in np.linspace(start, end, 5)]
    for what, x, t in places:
        at = jnp.asarray(x, dtype), jnp.asarray(t, dtype)
        values = [_lifted(problem, *at, theta, raw) for raw in (0.0, 1.0)]
        if not jnp.isfinite(values[0]) or values[0] != values[1]:
            raise ValueError(
                f"{solver} takes the {what} from {name}.lift, but at (x, t) = ({x:g}, {t:g}) it is "
                f"{values[0]:.6g} for the raw network output 0 and {values[1]:.6g} for 1."
            )
    met = problem.conditions(lambda x: jnp.zeros((), dtype), theta)
    if met:
        raise ValueError(
            f"{solver} imposes the residual and the lift of a problem, but {name} has further "
            f"conditions: {list(met)}."
        )
    x = jnp.asarray([(0.37 * b + 0.63 * a), (0.37 * end + 0.63 * start)], dtype)
    rates = [problem.residual(lambda y, r=r: 0.5 + r * (y[1] - x[1]), x, theta) for r in (0.0, 1.0)]
    if jnp.shape(rates[0]) == () and rates[0] == rates[1]:
        raise ValueError(f"{solver}: {name}.residual does not depend on u_t.")

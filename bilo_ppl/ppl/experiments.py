"""Several experiments in one model: the solutions at a batch of thetas, found by one vectorised solve."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr

from bilo_ppl._pages import see
from bilo_ppl._types import Field, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.theta import theta_as

__all__ = [
    "Solutions",
    "batched_theta",
    "each_theta",
    "first_of",
    "first_theta",
    "initial_state",
    "initial_states",
    "solve_each",
    "values_at",
]


class Solutions(eqx.Module):
    """The solutions of n experiments: ``us(points)``, ``us[i]``, ``len(us)``."""

    fields: Any
    """A function of a point, every array of it with a leading axis n."""
    count: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True, default=False)
    """Whether ``fields`` is one function without such an axis, the solution of all experiments."""

    def __call__(self, points: Any) -> Any:
        """Values ``(n, m)``, or ``(n, m, components)``, at points ``(m, d)`` or ``(n, m, d)``.

        Points without the axis n are those of all experiments. Raises a ``ValueError`` for points of
        another shape.
        """
        shape = jnp.shape(points)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != self.count):
            raise ValueError(
                f"solutions: the points have shape {shape}; they must be (m, d), the same for all "
                f"{self.count} experiments, or ({self.count}, m, d). A single solution us[i] is a "
                "function of a point (d,)."
            )
        axes = (None if self.shared else eqx.if_array(0), 0 if len(shape) == 3 else None)
        at = eqx.filter_vmap(
            lambda field, x: jax.vmap(field)(x), in_axes=axes, axis_size=self.count
        )
        return at(self.fields, jnp.asarray(points))

    def __getitem__(self, index: Any) -> Field:
        """The solution of one experiment, a function of a point ``(d,)``; the index may be traced.

        Raises an ``IndexError`` for a number that no experiment has.
        """
        if isinstance(index, (int, np.integer)) and not -self.count <= index < self.count:
            raise IndexError(f"solutions: there is no experiment {index}, only {self.count}.")
        return self.fields if self.shared else first_of(self.fields, index)

    def __len__(self) -> int:
        """Number of experiments."""
        return self.count


def values_at(field: Any, points: Any) -> Any:
    """Values at points ``(m, d)`` of a solution, ``(m, ...)``, or of several, ``(n, m, ...)``."""
    return field(points) if isinstance(field, Solutions) else jax.vmap(field)(points)


def batched_theta(
    name: str, operator: AbstractSolutionOperator, thetas: Theta
) -> tuple[dict[str, Any], int]:
    """Thetas with the axis n on every array, scalars repeated, functions as they are; and n.

    Raises a ``ValueError`` where the lengths of the axes disagree, or there is none.
    """
    functions = {entry: value for entry, value in thetas.items() if callable(value)}
    arrays = theta_as(
        {entry: _as_array(name, entry, v) for entry, v in thetas.items() if entry not in functions},
        jnp.result_type(float),
    )
    shapes = {entry: jnp.shape(value) for entry, value in arrays.items()}
    lengths = {shape[0] for shape in shapes.values() if shape}
    if len(lengths) != 1 or 0 in lengths:
        what = "have leading axes of different lengths" if lengths else "have no leading axis"
        raise ValueError(
            f"solutions({name!r}): the entries of thetas {what}, or an empty one: {shapes}. Every array "
            "needs one axis of experiments in front; only scalars and functions may be shared. "
            f"{see('Several experiments')}"
        )
    count = lengths.pop()
    repeated = {e: v if jnp.shape(v) else jnp.broadcast_to(v, (count,)) for e, v in arrays.items()}
    return {entry: repeated.get(entry, functions.get(entry)) for entry in thetas}, count


def _as_array(name: str, entry: str, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"solutions({name!r}): thetas[{entry!r}] is a {type(value).__name__} that is no array; give "
            "an array with a leading axis of experiments, or one function that all of them share."
        ) from error


def each_theta(theta: Theta, batch: int | None) -> Theta:
    """The theta of a site as a batch, an axis in front of every array: of length n, or 1."""

    def repeated(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.broadcast_to(leaf, (batch or 1, *leaf.shape))

    return {
        entry: value if batch is not None and not callable(value) else jax.tree.map(repeated, value)
        for entry, value in theta.items()
    }


def first_theta(theta: Theta, batch: int | None) -> Theta:
    """The theta of a site, or of its first experiment."""
    if batch is None:
        return theta
    return {entry: v if callable(v) else v[0] for entry, v in theta.items()}


def first_of(tree: Any, index: Any = 0) -> Any:
    """One of a batch: every array at an index of its leading axis."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, tree)


def initial_state(operator: AbstractSolutionOperator, batch: int | None) -> Any:
    """The state that the solves of a site start from; for a batch, one for each experiment."""
    state = operator.init_state()
    if batch is None:
        return state

    def repeated(leaf):
        return jnp.broadcast_to(leaf, (batch, *jnp.shape(leaf))) if eqx.is_array(leaf) else leaf

    return jax.tree.map(repeated, state)


def initial_states(
    operators: Mapping[str, AbstractSolutionOperator], batches: Mapping[str, int | None]
) -> dict[str, Any]:
    """`initial_state` by solution site."""
    return {
        name: initial_state(operator, batches.get(name)) for name, operator in operators.items()
    }


def solve_each(
    operator: AbstractSolutionOperator,
    theta: Theta,
    state: Any,
    count: int,
    check: Callable[[Field, SolveInfo], Field],
) -> tuple[Solutions, Any, SolveInfo]:
    """Solve for every experiment at once; each solution is what ``check`` makes of it and its report.

    The report is that of all: steps are summed, the loss is the largest, and the reason that of the
    first solve that did not converge, if there is one.
    """
    functions = {entry: value for entry, value in theta.items() if callable(value)}
    arrays = {entry: value for entry, value in theta.items() if entry not in functions}
    dimension = operator.problem.domain.dimension

    def one(arrays, state):
        field, state, info = operator.solve({**functions, **arrays}, state)
        return check(_as_pytree(field, dimension), info), state, info

    fields, states, infos = eqx.filter_vmap(one, axis_size=count)(arrays, state)
    worst = jnp.argmax(infos.reason != StopReason.CONVERGED)
    info = SolveInfo(jnp.sum(infos.steps), jnp.max(infos.loss), infos.reason[worst])
    return Solutions(fields, count), states, info


class _Recorded(eqx.Module):
    """A function of a point as a list of instructions, so that what it has enclosed are arrays."""

    enclosed: list[Any]
    instructions: Any = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        x = jnp.atleast_1d(x).astype(self.dtype)
        (value,) = eval_jaxpr(self.instructions, self.enclosed, x)
        return value


def _as_pytree(field: Field, dimension: int) -> Field:
    """A solution whose arrays can be seen: those that a function encloses could not leave the vmap."""
    if not any(callable(leaf) and not eqx.is_array(leaf) for leaf in jax.tree.leaves(field)):
        return field
    dtype = jnp.result_type(float)
    recorded = jax.make_jaxpr(field)(jnp.zeros(dimension, dtype))
    return _Recorded(list(recorded.consts), recorded.jaxpr, dtype)

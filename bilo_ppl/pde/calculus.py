"""Derivatives of a field at a point, for residuals written as ``laplacian(u)(x)``.

Everything is forward mode: a point has few coordinates and a field has one value for them all.
Repeated directions are nested ``jax.jvp``; the compiler merges their identical tangent streams, so
``u``, ``u'`` and ``u''`` along one axis cost three network passes, as Taylor mode does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Field, Point

__all__ = ["divergence", "grad", "laplacian", "partial"]


def _as_point(x: Any) -> Point:
    """Floating-point coordinates; raises a ``ValueError`` for a number, which is no point."""
    if jnp.ndim(x) == 0:
        raise ValueError(
            "a derivative was asked for at a number; a point is an array (d,), such as jnp.array([2.0])."
        )
    known = jnp.asarray(x)
    return known if jnp.issubdtype(known.dtype, jnp.inexact) else known.astype(float)


def _along(u: Field, axis: int) -> Field:
    """The derivative of ``u`` along a coordinate axis, again a field."""

    def derivative(x: Any):
        x = _as_point(x)
        if not -x.shape[0] <= axis < x.shape[0]:
            raise ValueError(
                f"a derivative along axis {axis} was asked for, but the points have {x.shape[0]} "
                "coordinates, counted from 0."
            )
        direction = jnp.zeros_like(x).at[axis].set(1)
        return jax.jvp(u, (x,), (direction,))[1]

    return derivative


def grad(u: Field) -> Callable[[Point], Float[Array, "*components d"]]:
    """Gradient of a field: shape ``(d,)`` for a scalar field, ``(components, d)`` for a system.

    Examples:
        >>> def u(x):
        ...     return x[0] ** 2 * x[1]
        >>> bilo.grad(u)(jnp.array([1.0, 2.0])).tolist()
        [4.0, 1.0]
        >>> def system(x):
        ...     return jnp.stack([x[0], x[0] * x[1]])
        >>> bilo.grad(system)(jnp.array([1.0, 2.0])).shape
        (2, 2)
    """
    return lambda x: jax.jacfwd(u)(_as_point(x))


def partial(u: Field, *axes: int | None) -> Field:
    """Repeated partial derivative along coordinate axes.

    ``partial(u, 0)`` is u_x, ``partial(u, 0, 0)`` is u_xx, and ``partial(u, domain.time)`` is u_t:
    ``partial(u, 1)`` with points (x, t). The value has the shape of ``u(x)``. Raises a ``ValueError``
    for no axis, the time of a domain without time, or an axis that the points do not have.

    Examples:
        >>> def u(x):
        ...     return x[0] ** 2 * x[1]
        >>> point = jnp.array([1.0, 2.0])
        >>> [float(bilo.partial(u, *axes)(point)) for axes in [(0,), (0, 0), (0, 1)]]
        [4.0, 4.0, 2.0]
    """
    if not axes:
        raise ValueError(
            "partial(u, ...) needs at least one axis: partial(u, 0) for the first coordinate."
        )
    for axis in axes:
        if axis is None:
            raise ValueError(
                "partial(u, None): the domain has no time; make it by space_time or time_interval."
            )
        u = _along(u, axis)
    return u


def laplacian(u: Field, axes: Sequence[int] | None = None) -> Field:
    """Sum of the second derivatives along ``axes`` (all coordinates if not given).

    For an evolution problem ``laplacian(u, axes=domain.space)`` leaves time out. The value has the
    shape of ``u(x)``.

    Examples:
        >>> def u(x):
        ...     return x[0] ** 2 * x[1]
        >>> point = jnp.array([1.0, 2.0])
        >>> float(bilo.laplacian(u)(point)), float(bilo.laplacian(u, axes=(1,))(point))
        (4.0, 0.0)
    """

    def value(x: Any):
        x = _as_point(x)
        chosen = range(x.shape[0]) if axes is None else axes
        return sum(partial(u, axis, axis)(x) for axis in chosen)

    return value


def divergence(flux: Field, axes: Sequence[int] | None = None) -> Field:
    """Divergence of a vector field ``flux(x)`` with one component for each of ``axes``.

    ``divergence(lambda x: D(x) * grad(u)(x))`` is div(D grad u). With ``axes`` (by default all
    coordinates; for an evolution problem give ``domain.space``), component ``i`` of the flux is
    differentiated along ``axes[i]``.

    Examples:
        >>> def u(x):
        ...     return x[0] ** 2 + x[1]
        >>> def flux(x):
        ...     return (1 + x[1]) * bilo.grad(u)(x)
        >>> float(bilo.divergence(flux)(jnp.array([1.0, 2.0])))
        7.0
    """

    def value(x: Any):
        x = _as_point(x)
        chosen = tuple(range(x.shape[0])) if axes is None else tuple(axes)
        return sum(_along(lambda y, i=i: flux(y)[i], axis)(x) for i, axis in enumerate(chosen))

    return value

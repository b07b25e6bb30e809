"""How theta enters the network: a fixed random map, added to the first pre-activation."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Key, Point, Theta

__all__ = ["ThetaEmbedding"]

REGION = 15.0
"""The embedding of a region is so many times smaller than that of typical magnitudes: in its reach the
activations are smooth functions of theta. Otherwise a fit to many thetas is right at these, and wrong by
orders of magnitude between them."""


class ThetaEmbedding(eqx.Module):
    """A fixed random linear map of the normalised theta, added to the first layer of the network.

    Scalars and arrays enter as ``(theta - centre) / scale``; a field enters by its value at the
    point (the auxiliary variable z = f(x) of the papers). It is not trained: the network has to
    follow theta through its own weights, and the inner solver cannot blind it to theta.
    """

    centre: Float[Array, " inputs"]
    scale: Float[Array, " inputs"]
    matrix: Float[Array, "width inputs"]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    """Names and shapes of the values, in the order in which they enter."""

    def __init__(
        self,
        theta: Theta,
        names: tuple[str, ...],
        points: Any,
        scales: Mapping[str, Any],
        *,
        width: int,
        key: Key,
        dtype: Any,
    ):
        values = {name: _values(theta[name], points, dtype) for name in names}
        self.shapes = tuple((name, v.shape[1:]) for name, v in values.items())
        self.centre = self._joined({name: jnp.mean(v, axis=0) for name, v in values.items()}, dtype)
        units = {name: scales.get(name, _default_scale(v)) for name, v in values.items()}
        self.scale = self._joined(units, dtype)
        size = self.centre.size
        limit = math.sqrt(3 / max(size, 1))
        self.matrix = jax.random.uniform(key, (width, size), dtype, -limit, limit)

    def _joined(self, values: Mapping[str, Any], dtype: Any) -> Float[Array, " inputs"]:
        """Values by name, each broadcast to its shape, as one vector."""
        parts = [
            jnp.ravel(jnp.broadcast_to(jnp.asarray(values[name], dtype), shape))
            for name, shape in self.shapes
        ]
        return jnp.concatenate([jnp.zeros(0, dtype), *parts])

    def by_name(self, vector: Float[Array, " inputs"]) -> dict[str, Array]:
        """The entries of a vector such as `centre` and `scale`."""
        found, start = {}, 0
        for name, shape in self.shapes:
            size = math.prod(shape)
            found[name] = vector[start : start + size].reshape(shape)
            start += size
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The entries of theta that the network sees."""
        return tuple(name for name, _ in self.shapes)

    def normalised(self, x: Point, theta: Theta) -> Float[Array, " inputs"]:
        """The values that enter the embedding at x, centred and scaled."""
        entries = {name: theta[name] for name in self.names}
        values = {name: v(x) if callable(v) else v for name, v in entries.items()}
        return (self._joined(values, self.matrix.dtype) - self.centre) / self.scale

    def __call__(self, x: Point, theta: Theta) -> Float[Array, " width"]:
        """What is added to the first pre-activation at x."""
        return self.matrix @ self.normalised(x, theta)

    def about(self, thetas: Theta, home: Mapping[str, Array]) -> "ThetaEmbedding":
        """The embedding for a region: centred at ``home``, in units of the distances of ``thetas`` to it.

        Only the entries in ``home`` change, and not the unit of one in which the thetas do not differ.
        """
        dtype = self.matrix.dtype
        centre, scale = self.by_name(self.centre), self.by_name(self.scale)
        reach = {name: 1 / REGION if name in home else 1.0 for name in self.names}
        for name in self.names:
            if name in home:
                away = jnp.sqrt(jnp.mean((thetas[name] - home[name][None]) ** 2, axis=0))
                centre[name] = home[name]
                scale[name] = jnp.where(away > 0, away, scale[name])
        return eqx.tree_at(
            lambda e: (e.centre, e.scale, e.matrix),
            self,
            (
                self._joined(centre, dtype),
                self._joined(scale, dtype),
                self.matrix * self._joined(reach, dtype)[None],
            ),
        )


def _values(value: Any, points: Any, dtype: Any) -> Array:
    """Values of an entry of theta: of a field, those at the collocation points; else a single one."""
    if callable(value):
        values: Any = jax.vmap(value)(jnp.asarray(points, dtype))
        return values.astype(dtype)
    return jnp.asarray(value, dtype)[None]


def _default_scale(values: Array) -> Array:
    """Root mean square of the first guess (of a number, its magnitude); 1 where that is zero."""
    largest = jnp.max(jnp.abs(values), axis=0)
    # The squares of small or large numbers would leave single precision.
    unit = jnp.where(largest == 0, 1, largest)
    relative = jnp.sqrt(jnp.mean((values / unit[None]) ** 2, axis=0))
    return jnp.where(largest == 0, 1, unit * relative)

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

    centre: dict[str, Array]
    scale: dict[str, Array]
    matrix: Float[Array, "width inputs"]
    names: tuple[str, ...] = eqx.field(static=True)

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
        self.names = names
        self.centre = {name: jnp.mean(v, axis=0) for name, v in values.items()}
        self.scale = {
            name: jnp.broadcast_to(
                jnp.asarray(scales.get(name, _default_scale(v)), dtype), v.shape[1:]
            )
            for name, v in values.items()
        }
        size = sum(v.size for v in self.centre.values())
        limit = math.sqrt(3 / max(size, 1))
        self.matrix = jax.random.uniform(key, (width, size), dtype, -limit, limit)

    def normalised(self, x: Point, theta: Theta) -> Float[Array, " inputs"]:
        """The values that enter the embedding at x, centred and scaled."""
        parts = []
        for name in self.names:
            value = theta[name](x) if callable(theta[name]) else theta[name]
            centred = (jnp.asarray(value) - self.centre[name]) / self.scale[name]
            parts.append(jnp.ravel(centred))
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.matrix.dtype)

    def __call__(self, x: Point, theta: Theta) -> Float[Array, " width"]:
        """What is added to the first pre-activation at x."""
        return self.matrix @ self.normalised(x, theta)

    def about(self, thetas: Theta, home: Mapping[str, Array]) -> "ThetaEmbedding":
        """The embedding for a region: centred at ``home``, in units of the distances of ``thetas`` to it.

        Only the entries in ``home`` change, and not the unit of one in which the thetas do not differ.
        """
        centre, scale = dict(self.centre), dict(self.scale)
        columns = []
        for name in self.names:
            fixed = jnp.ones(self.centre[name].size, self.matrix.dtype)
            if name in home:
                centre[name] = home[name].astype(self.matrix.dtype)
                away = jnp.sqrt(jnp.mean((thetas[name] - home[name][None]) ** 2, axis=0))
                scale[name] = jnp.where(away > 0, away, self.scale[name]).astype(self.matrix.dtype)
                fixed = fixed / REGION
            columns.append(fixed)
        matrix = self.matrix * jnp.concatenate(columns)[None] if columns else self.matrix
        return eqx.tree_at(lambda e: (e.centre, e.scale, e.matrix), self, (centre, scale, matrix))


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

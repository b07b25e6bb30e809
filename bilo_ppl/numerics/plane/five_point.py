"""The five-point finite-volume scheme for -div(A grad u) on a rectangle.

The unknowns are the values at the inner nodes of a tensor grid. Node (i, j) has the cell whose faces
are midway to its four neighbours; the flux through a face is A in the middle of the face times the
difference of the two nodes, over their distance. Everything is multiplied by the cell's area, which
makes the matrix symmetric.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

__all__ = ["FivePoint", "conductances", "face_middles", "on_points"]


class FivePoint(eqx.Module):
    """The matrix of the scheme, by the conductances of the faces: A times length over distance."""

    first: Float[Array, "n m"]
    """Between neighbours along the first axis: one row more than there are unknowns."""
    second: Float[Array, "k l"]
    """Between neighbours along the second axis: one column more than there are unknowns."""

    @property
    def diagonal(self) -> Float[Array, "n m"]:
        """The diagonal of the matrix, as the unknowns are laid out."""
        return self.first[1:] + self.first[:-1] + self.second[:, 1:] + self.second[:, :-1]

    def outflow(self, full: Float[Array, "n m"]) -> Float[Array, "k l"]:
        """Flux out of every inner cell, from the values at all nodes, boundary included."""
        first = self.first * jnp.diff(full[:, 1:-1], axis=0)
        second = self.second * jnp.diff(full[1:-1], axis=1)
        return -jnp.diff(first, axis=0) - jnp.diff(second, axis=1)

    def apply(self, interior: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """The same for zero boundary values: the matrix times the unknowns."""
        return self.outflow(jnp.pad(interior, 1))


def face_middles(
    first: Shaped[np.ndarray, " n"], second: Shaped[np.ndarray, " m"]
) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the faces across the first and the second axis, from the nodes on both."""
    middles = [(nodes[1:] + nodes[:-1]) / 2 for nodes in (first, second)]
    grids = (middles[0], second[1:-1]), (first[1:-1], middles[1])
    one, two = (np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1) for grid in grids)
    return one, two


def on_points(function: Any, points: Any, dtype: Any) -> Array:
    """A function of a point, or a number, on points ``(..., d)``."""
    points = jnp.asarray(points, dtype)
    if not callable(function):
        return jnp.broadcast_to(jnp.asarray(function, dtype), points.shape[:-1])
    values: Any = jax.vmap(function)(points.reshape(-1, points.shape[-1]))
    return jnp.reshape(values, points.shape[:-1])


def conductances(values: tuple[Array, Array], spacing: tuple[float, float]) -> FivePoint:
    """The scheme for values of A at the middles of the faces."""
    ratio = spacing[1] / spacing[0]
    return FivePoint(values[0] * ratio, values[1] / ratio)

"""Functions from their values on a grid, smooth enough to be differentiated at a point."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Count, Scalar

__all__ = ["GridField", "GridField2D", "PiecewiseGridField"]


class GridField(eqx.Module):
    """A function on an interval from its values at equidistant nodes.

    Between nodes it is the cubic through the four nearest ones, with error O(h^4) in u, O(h^3) in
    u' and O(h^2) in u''; u itself is continuous. Outside the interval the end cubics are continued.

    Examples:
        >>> from bilo_ppl.numerics import GridField
        >>> nodes = np.linspace(0, 1, 11)
        >>> cube = GridField(nodes, nodes**3)
        >>> quarter = jnp.array(0.25)
        >>> round(float(cube(quarter)), 6), round(float(jax.grad(cube)(quarter)), 6)
        (0.015625, 0.1875)
    """

    nodes: Shaped[Any, " n"]
    """Equidistant and increasing, at least four."""
    values: Shaped[Any, " n"]
    """The values there."""

    def __call__(self, x: Shaped[Any, "..."]) -> Scalar:
        """The value at a point of shape ``(1,)`` or ``()``."""
        values = jnp.asarray(self.values)
        nodes = jnp.asarray(self.nodes, values.dtype)
        first, s = _cell(jnp.reshape(jnp.asarray(x), ()), nodes, 3)
        return _cubic(jax.lax.dynamic_slice(values, (first,), (4,)), s)


class PiecewiseGridField(eqx.Module):
    """A continuous function whose derivative jumps where one `GridField` ends and the next begins.

    At such a point it is the function on the right.

    Examples:
        >>> from bilo_ppl.numerics import GridField, PiecewiseGridField
        >>> left, right = np.linspace(0, 1, 5), np.linspace(1, 2, 5)
        >>> roof = PiecewiseGridField((GridField(left, left), GridField(right, 2 - right)))
        >>> float(jax.grad(roof)(0.9)), float(jax.grad(roof)(1.1))
        (1.0, -1.0)
        >>> roof.nodes.shape, roof.values.shape  # one of them is shared
        ((9,), (9,))
    """

    pieces: tuple[GridField, ...]
    """From left to right, each beginning where the one before it ends."""

    @property
    def nodes(self) -> np.ndarray:
        """All nodes; neighbours share one."""
        ends = [np.asarray(piece.nodes)[1:] for piece in self.pieces[1:]]
        return np.concatenate([np.asarray(self.pieces[0].nodes), *ends])

    @property
    def values(self) -> Float[Array, " n"]:
        """The values at ``nodes``."""
        rest = [piece.values[1:] for piece in self.pieces[1:]]
        return jnp.concatenate([self.pieces[0].values, *rest])

    def __call__(self, x: Shaped[Any, "..."]) -> Scalar:
        """The value at a point of shape ``(1,)`` or ``()``."""
        x = jnp.reshape(jnp.asarray(x), ())
        value = self.pieces[0](x)
        for piece in self.pieces[1:]:
            value = jnp.where(x < piece.nodes[0], value, piece(x))
        return value


class GridField2D(eqx.Module):
    """A function on a rectangle from its values on an equidistant tensor grid.

    With ``degree`` 3 it is the tensor product of the cubics of `GridField`; with ``degree`` 1 it is
    bilinear, which does not overshoot at shocks. Outside the rectangle the outermost cell is
    continued. Raises a ``ValueError`` for another degree, values of another shape than the grid's, and
    fewer than ``degree + 1`` nodes each way.

    Examples:
        >>> from bilo_ppl.numerics import GridField2D
        >>> nodes, times = np.linspace(0, 1, 11), np.linspace(0, 2, 5)
        >>> u = GridField2D(nodes, times, np.outer(nodes**2, times))
        >>> bilinear = GridField2D(nodes, times, np.outer(nodes**2, times), degree=1)
        >>> point = jnp.array([0.25, 1.25])
        >>> round(float(u(point)), 6), round(float(bilinear(point)), 6)  # 0.25**2 * 1.25
        (0.078125, 0.08125)
    """

    first: Shaped[Any, " n"]
    """Nodes of the first coordinate."""
    second: Shaped[Any, " m"]
    """Nodes of the second coordinate, the time of an evolution problem."""
    values: Shaped[Any, "n m"]
    degree: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        if self.degree not in _INTERPOLATE:
            raise ValueError(f"GridField2D: degree must be 1 or 3, not {self.degree}.")
        shape = (len(self.first), len(self.second))
        if self.values.shape[-2:] != shape or min(shape) <= self.degree:
            raise ValueError(
                f"GridField2D: the nodes are {shape[0]} and {shape[1]}, the values have shape "
                f"{self.values.shape}; they must agree and be at least {self.degree + 1} each way."
            )

    def __call__(self, x: Shaped[Any, "2"]) -> Scalar:
        """The value at a point ``(2,)``."""
        values = jnp.asarray(self.values)
        i, s = _cell(x[0], jnp.asarray(self.first, values.dtype), self.degree)
        j, t = _cell(x[1], jnp.asarray(self.second, values.dtype), self.degree)
        size = self.degree + 1
        block = jax.lax.dynamic_slice(values, (i, j), (size, size))
        along = _INTERPOLATE[self.degree]
        return along(along(block, s), t)


def _cell(x: Scalar, nodes: Array, degree: int) -> tuple[Count, Scalar]:
    """The first of the ``degree + 1`` nodes to use at x, and x in cells from the node before it."""
    t = (x - nodes[0]) * (nodes.size - 1) / (nodes[-1] - nodes[0])
    before = degree // 2
    cell = jnp.floor(jax.lax.stop_gradient(t)).astype(int)
    cell = jnp.clip(cell, before, nodes.size - 1 - degree + before)
    return cell - before, t - cell


def _linear(values: Float[Array, "2 ..."], s: Scalar) -> Array:
    return values[0] + s * (values[1] - values[0])


def _cubic(values: Float[Array, "4 ..."], s: Scalar) -> Array:
    """Newton's form of the interpolating cubic, by differences: little is lost to rounding."""
    a, b, c, d = values
    second, third = a - 2 * b + c, d - a + 3 * (b - c)
    return b + s * (c - b + (s - 1) * (second / 2 + (s + 1) * third / 6))


_INTERPOLATE = {1: _linear, 3: _cubic}

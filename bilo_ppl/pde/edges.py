"""The boundary of a box, where solutions vanish: for lifts, collocation points, and checks."""

import math
from typing import Any

import numpy as np

from bilo_ppl._types import Points
from bilo_ppl.pde.domain import Box

__all__ = ["bubble", "edge_points", "without_corners"]


def bubble(domain: Box, x: Any) -> Any:
    """The product of (x_i - a_i)(b_i - x_i), at a point ``(d,)``, over the coordinates of space.

    It is zero on the boundary only: ``lift = bubble(domain, x) * raw`` keeps a solution at zero there, at
    all times.

    Examples:
        >>> square = bilo.Box((0.0, 0.0), (1.0, 1.0))
        >>> float(bilo.bubble(square, jnp.array([0.5, 0.5])))
        0.0625
        >>> float(bilo.bubble(square, jnp.array([0.5, 1.0])))
        0.0
    """
    sides = [(x[i] - domain.lower[i]) * (domain.upper[i] - x[i]) for i in domain.space]
    return math.prod(sides[1:], start=sides[0])


def without_corners(domain: Box, points: Points) -> np.ndarray:
    """The points ``(n, d)`` that lie on at most one face of the box.

    Where faces meet, a solution that vanishes on them has no second derivatives of its own: no network
    meets an equation with a source there. Raises a ``ValueError`` if no point is left.

    Examples:
        >>> square = bilo.Box((0.0, 0.0), (1.0, 1.0))
        >>> bilo.without_corners(square, square.grid(3, 3)).tolist()
        [[0.0, 0.5], [0.5, 0.0], [0.5, 0.5], [0.5, 1.0], [1.0, 0.5]]
    """
    points = np.asarray(points, float)
    lower, upper = np.array(domain.lower), np.array(domain.upper)
    on_faces = ((points <= lower) | (points >= upper))[:, list(domain.space)].sum(axis=1)
    if not (on_faces < 2).any():
        raise ValueError(f"without_corners: all {len(points)} points lie on edges of {domain}.")
    return points[on_faces < 2]


def edge_points(domain: Box, count: int = 5) -> np.ndarray:
    """Points of a grid of ``count`` along each axis that lie on the boundary in space, corners too.

    Examples:
        >>> square = bilo.Box((0.0, 0.0), (1.0, 1.0))
        >>> bilo.edge_points(square, count=3)[:4].tolist()
        [[0.0, 0.0], [0.0, 0.5], [0.0, 1.0], [0.5, 0.0]]
    """
    grid = domain.grid(*[count] * domain.dimension)
    lower, upper = np.array(domain.lower), np.array(domain.upper)
    on_faces = ((grid == lower) | (grid == upper))[:, list(domain.space)].any(axis=1)
    return grid[on_faces]

"""Collocation points for a purpose: crowded, scattered, inside a mask, or for a check.

They are NumPy arrays in double precision, as those of `bilo_ppl.pde.domain.Box`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilo_ppl._types import Points
from bilo_ppl.pde.domain import Box

__all__ = ["even_part", "graded", "hammersley", "masked", "points_along_axes", "refined"]

LARGEST_SEARCH = 64
"""Candidates of `refined` for every point that is wanted, before it makes do with fewer."""


def graded(
    space: Box, count: int, near: float | Sequence[float], *, width: float, density: float
) -> np.ndarray:
    """Coordinates ``(count,)`` in an interval, ends included, crowded near given points.

    The density of the points at x is proportional to
    ``1 + density * sum_s 1 / (1 + ((x - s) / width)^2)``, s in ``near``. So near a single s it is up to
    ``1 + density`` times that far away, and half of the excess is left at the distance ``width``. For
    shocks and layers. Raises a ``ValueError`` for a box that is no interval, for ``near`` outside
    of it, and for fewer than 2 points, a ``width`` that is not positive or a negative ``density``.

    Examples:
        >>> space = bilo.interval(0.0, 1.0)
        >>> points = bilo.graded(space, 5, near=0.0, width=0.1, density=10.0)
        >>> points.round(2).tolist()
        [0.0, 0.06, 0.18, 0.49, 1.0]
    """
    if space.dimension != 1:
        raise ValueError(
            f"graded: needs an interval, got a box of dimension {space.dimension}; give its space part."
        )
    if count < 2 or not (0 < width < np.inf and 0 <= density < np.inf):
        raise ValueError(
            "graded: needs at least 2 points, a positive width and a density of at least 0, got "
            f"count={count}, width={width}, density={density}."
        )
    (a,), (b,) = space.lower, space.upper
    centres = np.atleast_1d(np.asarray(near, float))
    outside = centres[~((centres >= a) & (centres <= b))].tolist()
    if outside:
        raise ValueError(f"graded: {outside} in near lie outside [{a:g}, {b:g}].")

    def points_up_to(x):
        crowd = np.arctan((x[:, None] - centres) / width) - np.arctan((a - centres) / width)
        return x - a + density * width * crowd.sum(axis=1)

    wanted = np.linspace(0, points_up_to(np.array([b]))[0], count)
    low, high = np.full(count, a), np.full(count, b)
    for _ in range(60):
        middle = (low + high) / 2
        below = points_up_to(middle) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    low[[0, -1]] = a, b
    return low


def hammersley(*axes: Sequence[float] | np.ndarray) -> Points:
    """Scattered points ``(n, d)`` with the given coordinates: n different ones on every axis.

    The points increase in the last coordinate. Along every other axis the r-th smallest coordinate goes
    to the point whose van der Corput number (base 2, 3, 5, ...) is the r-th smallest. With equidistant
    axes these are Hammersley's points (1960) but for shifts of a few 1/n: they are more even than a
    grid, and, since no two share a coordinate, have no rows between which a solution can hide a jump. The
    first point has the smallest coordinate on every axis. Raises a ``ValueError`` for axes of
    different lengths, or coordinates that repeat or are not finite.

    Examples:
        >>> points = bilo.hammersley(np.linspace(0, 1, 4), np.linspace(0, 2, 4))
        >>> points.round(2).tolist()
        [[0.0, 0.0], [0.67, 0.67], [0.33, 1.33], [1.0, 2.0]]
    """
    from scipy.stats import qmc  # takes a second to import

    columns = [np.asarray(axis, float) for axis in axes]
    count = columns[0].size if columns else 0
    if not count or any(c.shape != (count,) for c in columns):
        raise ValueError(
            "hammersley: give one array of coordinates for each axis, all of one length, got the shapes "
            f"{[c.shape for c in columns]}."
        )
    bad = [
        i for i, c in enumerate(columns) if not np.isfinite(c).all() or np.unique(c).size < count
    ]
    if bad:
        raise ValueError(f"hammersley: axes {bad} have coordinates that repeat or are not finite.")
    numbers = qmc.Halton(len(columns) - 1, scramble=False).random(count)
    ranks = numbers.argsort(axis=0).argsort(axis=0).T
    dealt = [np.sort(c)[rank] for c, rank in zip(columns[:-1], ranks, strict=True)]
    return np.stack([*dealt, np.sort(columns[-1])], axis=-1)


def masked(
    points: Points, inside: Callable[[np.ndarray], Any] | Sequence[bool] | np.ndarray
) -> np.ndarray:
    """The points ``(n, d)`` for which ``inside`` (a mask, or a predicate of one point) holds.

    Raises a ``ValueError`` for a mask of another length, and if no point is left.

    Examples:
        >>> points = bilo.Box((0.0, 0.0), (1.0, 1.0)).grid(3, 3)
        >>> bilo.masked(points, lambda point: point.sum() <= 0.5).tolist()
        [[0.0, 0.0], [0.0, 0.5], [0.5, 0.0]]
    """
    keep = np.array([inside(p) for p in points]) if callable(inside) else np.asarray(inside)
    if keep.shape != (len(points),):
        raise ValueError(f"masked: the mask has shape {keep.shape}, the points need {len(points)}.")
    if not keep.any():
        raise ValueError("masked: no point is left inside the mask.")
    return points[keep.astype(bool)]


def even_part(points: Points, count: int) -> np.ndarray:
    """``count`` of the points ``(n, d)``, as dense everywhere, up to a factor, as all of them.

    On an interval they are equally many apart, the first and the last among them. Else each is the middle
    one of ``count`` boxes with equally many, which halving across the longest sides leads to.
    """
    own = np.asarray(points, float)
    if not 1 <= count <= len(own):
        raise ValueError(f"even_part: {count} of {len(own)} points; give a number between.")
    if own.shape[1] == 1:
        ranks = np.linspace(0, len(own) - 1, count).round().astype(int)
        return own[np.sort(np.argsort(own[:, 0])[ranks])]
    return own[
        np.sort(
            _middles(own / np.maximum(np.ptp(own, axis=0), 1e-300) * points_along_axes(own), count)
        )
    ]


def _middles(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of the points in the middle of ``count`` boxes."""
    if count == 1:
        return ((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin(keepdims=True)
    order = np.argsort(points[:, np.ptp(points, axis=0).argmax()], kind="stable")
    first = count // 2
    below, above = np.split(order, [round(len(points) * first / count)])
    parts = (below, first), (above, count - first)
    return np.concatenate([part[_middles(points[part], number)] for part, number in parts])


def refined(points: Points, box: Box, times: int = 4) -> np.ndarray:
    """The points ``(n, d)``, and at least ``times n`` others strictly inside the domain: for a check.

    The others are scattered (Halton's points, shifted by irrational numbers, so that they meet no
    corner, no centre and none of the points). They keep to the mask of an `ImageDomain`. A mask that only
    the points have is not known here: candidates that lie farther from the points than these lie apart
    are left out, and if few remain, so there are fewer.

    Examples:
        >>> points = problem.domain.grid(5)
        >>> checks = bilo.refined(points, problem.domain, times=2)
        >>> checks.shape, bool((checks[:5] == points).all())
        ((15, 1), True)
    """
    from scipy.spatial import KDTree
    from scipy.stats import qmc  # takes a second to import

    own = np.asarray(points, float)
    lower, upper = np.asarray(box.lower, float), np.asarray(box.upper, float)
    cells = points_along_axes(own)

    def scaled(positions):
        return (positions - lower) / (upper - lower) * cells

    distinct = np.unique(scaled(own), axis=0)
    tree = KDTree(distinct)
    apart = tree.query(distinct, k=2)[0][:, 1].max() if len(distinct) > 1 else np.inf
    wanted = times * len(own)
    shift = 0.5 * (np.sqrt(5) - 1) * np.arange(1, box.dimension + 1)
    numbers = qmc.Halton(box.dimension, scramble=False)
    found, tried = np.empty((0, box.dimension)), 0
    while len(found) < wanted and tried < LARGEST_SEARCH * wanted:
        others = lower + (numbers.random(wanted) + shift) % 1 * (upper - lower)
        near = (tree.query(scaled(others))[0] <= apart) & box.contains(others)
        found, tried = np.concatenate([found, others[near]]), tried + wanted
    return np.concatenate([own, found])


def points_along_axes(points: Points) -> np.ndarray:
    """About how many points lie along each axis ``(d,)``, so that cells are even in these units.

    A tensor grid has as many as there are coordinates; scattered points, all of whose coordinates
    differ, the d-th root of their number.
    """
    n, dimension = points.shape
    along = np.array([np.unique(column).size for column in points.T], float)
    return np.maximum(along * (n / along.prod()) ** (1 / dimension), 1.0)

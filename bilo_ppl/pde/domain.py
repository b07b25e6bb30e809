"""Domains and collocation points.

Points are NumPy arrays in double precision: they are data, made when a problem is defined, and are
cast to the precision of the network where they are used.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilo_ppl._types import Points

__all__ = ["Box", "graded", "hammersley", "interval", "masked", "space_time"]


@dataclasses.dataclass(frozen=True)
class Box:
    """An axis-aligned box ``lower <= x <= upper``; in one dimension an interval.

    For an evolution problem the last coordinate is time.
    """

    lower: tuple[float | int, ...]
    upper: tuple[float | int, ...]

    def __post_init__(self):
        if len(self.lower) != len(self.upper) or not self.lower:
            raise ValueError(
                f"Box: lower has {len(self.lower)} and upper {len(self.upper)} coordinates; "
                "give the same number, at least one."
            )
        bad = [i for i, (a, b) in enumerate(zip(self.lower, self.upper, strict=True)) if not a < b]
        if bad:
            raise ValueError(
                f"Box: lower must be below upper in every coordinate, but is not in {bad}: "
                f"lower={self.lower}, upper={self.upper}."
            )

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.lower)

    def grid(self, *axes: int | Sequence[float] | np.ndarray) -> Points:
        """A tensor grid ``(n, d)``; one argument for every axis.

        An integer is the number of equidistant points, ends included; a sequence holds the increasing
        coordinates themselves, such as those of `graded`.
        """
        if len(axes) != self.dimension:
            raise ValueError(
                f"Box.grid: a box of dimension {self.dimension} needs {self.dimension} counts of "
                f"points (or their coordinates), got {len(axes)}."
            )
        limits = zip(axes, self.lower, self.upper, strict=True)
        coordinates = [_axis(i, axis, a, b) for i, (axis, a, b) in enumerate(limits)]
        return np.stack([c.ravel() for c in np.meshgrid(*coordinates, indexing="ij")], axis=-1)

    def interior_grid(self, *axes: int | Sequence[float] | np.ndarray) -> Points:
        """The tensor grid without the points that lie on the boundary: ``(n, d)``."""
        points = self.grid(*axes)
        inside = (points > np.array(self.lower)) & (points < np.array(self.upper))
        return points[inside.all(axis=-1)]

    def sample(self, seed: int, n: int) -> Points:
        """``n`` independent uniform points ``(n, d)``, reproducible from ``seed``."""
        uniform = np.random.default_rng(seed).uniform(size=(n, self.dimension))
        return np.array(self.lower) + uniform * (np.array(self.upper) - np.array(self.lower))

    def contains(self, points: Points, slack: float = 1e-9) -> np.ndarray:
        """Which of the points ``(n, d)`` lie in the box, up to ``slack`` times its size: ``(n,)``."""
        lower, upper = np.array(self.lower), np.array(self.upper)
        margin = slack * (upper - lower)
        return ((points >= lower - margin) & (points <= upper + margin)).all(axis=-1)

    def normalise(self, x):
        """Map the box to [-1, 1] in every coordinate (networks train best there)."""
        lower, upper = np.array(self.lower), np.array(self.upper)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        return (x - middle.astype(x.dtype)) / half.astype(x.dtype)


def _axis(i: int, axis: Any, lower: float, upper: float) -> np.ndarray:
    """The coordinates along axis i of a box, checked."""
    if np.ndim(axis) == 0:
        if axis < 2:
            raise ValueError(f"Box.grid: axis {i} needs at least 2 points, got {axis}.")
        return np.linspace(lower, upper, axis)
    points = np.asarray(axis, float)
    increasing = points.ndim == 1 and points.size > 0 and np.isfinite(points).all()
    if not increasing or not (np.diff(points) > 0).all():
        raise ValueError(
            f"Box.grid: the coordinates of axis {i} must be one array of increasing numbers."
        )
    if points[0] < lower or points[-1] > upper:
        raise ValueError(
            f"Box.grid: axis {i} has coordinates from {points[0]:g} to {points[-1]:g}, outside "
            f"[{lower:g}, {upper:g}]."
        )
    return points


def graded(
    space: Box, count: int, near: float | Sequence[float], *, width: float, density: float
) -> np.ndarray:
    """Coordinates ``(count,)`` in an interval, ends included, crowded near given points.

    The density of the points at x is proportional to
    ``1 + density * sum_s 1 / (1 + ((x - s) / width)^2)``, s in ``near``. So near a single s it is up to
    ``1 + density`` times that far away, and half of the excess is left at the distance ``width``. For
    shocks and layers.
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
    first point has the smallest coordinate on every axis.
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


def interval(lower: float | int, upper: float | int) -> Box:
    """The interval [lower, upper]."""
    return Box((float(lower),), (float(upper),))


def space_time(space: Box, end: float | int, start: float | int = 0.0) -> Box:
    """The cylinder ``space x [start, end]``, time being the last coordinate."""
    return Box((*space.lower, float(start)), (*space.upper, float(end)))


def masked(
    points: Points, inside: Callable[[np.ndarray], Any] | Sequence[bool] | np.ndarray
) -> np.ndarray:
    """The points ``(n, d)`` for which ``inside`` (a mask, or a predicate of one point) holds."""
    keep = np.array([inside(p) for p in points]) if callable(inside) else np.asarray(inside)
    if keep.shape != (len(points),):
        raise ValueError(f"masked: the mask has shape {keep.shape}, the points need {len(points)}.")
    if not keep.any():
        raise ValueError("masked: no point is left inside the mask.")
    return points[keep.astype(bool)]

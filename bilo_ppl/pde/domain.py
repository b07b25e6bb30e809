"""Domains: boxes of space, of time, or of both, and grids on them.

Points are NumPy arrays in double precision: they are data, made when a problem is defined, and are
cast to the precision of the network where they are used.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from bilo_ppl._types import Points

__all__ = ["Box", "interval", "space_time", "time_interval"]

Domain = TypeVar("Domain", bound="Box")


@dataclasses.dataclass(frozen=True)
class Box:
    """An axis-aligned box ``lower <= x <= upper``; in one dimension an interval.

    One of the coordinates may be time; `space_time` and `time_interval` make such boxes. Raises a
    ``ValueError`` for limits that are no box, or a ``time`` that is none of its coordinates.

    Examples:
        >>> box = bilo.Box((0.0, 0.0), (2.0, 1.0))
        >>> box.dimension, str(box)
        (2, '[0, 2] x [0, 1]')
        >>> box.grid(3, 2).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [2.0, 1.0]]
        >>> box.contains(np.array([[1.0, 0.5], [1.0, 1.5]])).tolist()
        [True, False]
    """

    lower: tuple[float | int, ...]
    upper: tuple[float | int, ...]
    time: int | None = None
    """Which coordinate is time, counted from 0; None: all are space."""

    def __post_init__(self):
        if len(self.lower) != len(self.upper) or not self.lower:
            raise ValueError(
                f"Box: lower has {len(self.lower)} and upper {len(self.upper)} coordinates; "
                "give the same number, at least one."
            )
        if not np.isfinite([*self.lower, *self.upper]).all():
            raise ValueError(
                f"Box: the limits must be finite numbers, but are lower={self.lower}, upper={self.upper}."
            )
        bad = [i for i, (a, b) in enumerate(zip(self.lower, self.upper, strict=True)) if not a < b]
        if bad:
            raise ValueError(
                f"Box: lower must be below upper in every coordinate, but is not in {bad}: "
                f"lower={self.lower}, upper={self.upper}."
            )
        if self.time is not None and self.time not in range(self.dimension):
            raise ValueError(
                f"Box: time={self.time} is none of the coordinates 0 to {self.dimension - 1}; give the "
                "one that is time, or None if all are space."
            )

    def __str__(self) -> str:
        limits = zip(self.lower, self.upper, strict=True)
        return " x ".join(f"[{a:g}, {b:g}]" for a, b in limits)

    @property
    def dimension(self) -> int:
        """Number of coordinates, time included."""
        return len(self.lower)

    @property
    def space(self) -> tuple[int, ...]:
        """The coordinates that are not time, for ``laplacian(u, axes=domain.space)``."""
        return tuple(i for i in range(self.dimension) if i != self.time)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names for labels: t for time; x, y and z for space, or x1, x2, ... beyond three."""
        count = len(self.space)
        names = iter("xyz" if count <= 3 else [f"x{i}" for i in range(1, count + 1)])
        return tuple("t" if i == self.time else next(names) for i in range(self.dimension))

    def along(self, axis: int) -> "Box":
        """The interval of one coordinate, counted from 0.

        Examples:
            >>> str(bilo.Box((0.0, 0.0), (2.0, 1.0)).along(1))
            '[0, 1]'
        """
        time = 0 if axis == self.time else None
        return Box((self.lower[axis],), (self.upper[axis],), time)

    def until(self, end: float | int, start: float | int = 0.0) -> "Box":
        """The cylinder of the box over [start, end], time being the last coordinate.

        Examples:
            >>> cylinder = bilo.interval(0.0, 2.0).until(3.0)
            >>> str(cylinder), cylinder.time
            ('[0, 2] x [0, 3]', 1)
        """
        return Box((*self.lower, float(start)), (*self.upper, float(end)), time=self.dimension)

    def grid(self, *axes: int | Sequence[float] | np.ndarray) -> Points:
        """A tensor grid ``(n, d)``; one argument for every axis.

        An integer is the number of equidistant points, ends included; a sequence holds the increasing
        coordinates themselves, such as those of `graded`. Raises a ``ValueError`` for another number of
        arguments than of coordinates, fewer than two points, and coordinates that do not increase or are
        outside of the box.

        Examples:
            >>> bilo.interval(0.0, 1.0).grid([0.0, 0.1, 1.0])[:, 0].tolist()
            [0.0, 0.1, 1.0]
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
        """The tensor grid without the points that lie on the boundary: ``(n, d)``.

        Arguments and errors are those of `grid`.

        Examples:
            >>> bilo.Box((0.0, 0.0), (2.0, 1.0)).interior_grid(3, 3).tolist()
            [[1.0, 0.5]]
        """
        points = self.grid(*axes)
        inside = (points > np.array(self.lower)) & (points < np.array(self.upper))
        return points[inside.all(axis=-1)]

    def sample(self, seed: int, n: int) -> Points:
        """``n`` independent uniform points ``(n, d)``, reproducible from ``seed``.

        Examples:
            >>> box = bilo.Box((0.0, 0.0), (2.0, 1.0))
            >>> points = box.sample(seed=0, n=100)
            >>> points.shape, bool(box.contains(points).all())
            ((100, 2), True)
        """
        uniform = np.random.default_rng(seed).uniform(size=(n, self.dimension))
        return np.array(self.lower) + uniform * (np.array(self.upper) - np.array(self.lower))

    def contains(self, points: Points, slack: float = 1e-9) -> np.ndarray:
        """Which of the points ``(n, d)`` lie in the box, up to ``slack`` times its size: ``(n,)``."""
        lower, upper = np.array(self.lower), np.array(self.upper)
        margin = slack * (upper - lower)
        return ((points >= lower - margin) & (points <= upper + margin)).all(axis=-1)

    def normalise(self, x):
        """Map the box to [-1, 1] in every coordinate (networks train best there).

        Examples:
            >>> bilo.Box((0.0, 0.0), (2.0, 1.0)).normalise(np.array([1.0, 1.0])).tolist()
            [0.0, 1.0]
        """
        lower, upper = np.array(self.lower), np.array(self.upper)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        return (x - middle.astype(x.dtype)) / half.astype(x.dtype)


def _axis(i: int, axis: Any, lower: float, upper: float) -> np.ndarray:
    """The coordinates along axis i of a box, checked."""
    if np.ndim(axis) == 0:
        if not isinstance(axis, (int, np.integer)) or axis < 2:
            raise ValueError(
                f"Box.grid: axis {i} needs a whole number of points, at least 2, got {axis!r}."
            )
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


def interval(lower: float | int, upper: float | int) -> Box:
    """The interval [lower, upper] in space.

    Examples:
        >>> domain = bilo.interval(0.0, 2.0)
        >>> domain.grid(5)[:, 0].tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0]
        >>> domain.interior_grid(5)[:, 0].tolist()
        [0.5, 1.0, 1.5]
    """
    return Box((float(lower),), (float(upper),))


def time_interval(start: float | int, end: float | int) -> Box:
    """The interval [start, end] of time: the domain of an ordinary differential equation.

    Examples:
        >>> domain = bilo.time_interval(0.0, 10.0)
        >>> domain.space, domain.time
        ((), 0)
        >>> domain.coordinates
        ('t',)
    """
    return Box((float(start),), (float(end),), time=0)


def space_time(space: Domain, end: float | int, start: float | int = 0.0) -> Domain:
    """The cylinder ``space x [start, end]``, time being the last coordinate; a mask is kept.

    Raises a ``ValueError`` if ``space`` has a time of its own.

    Examples:
        >>> domain = bilo.space_time(bilo.interval(0.0, 1.0), end=0.5)
        >>> domain.space, domain.time
        ((0,), 1)
        >>> domain.lower, domain.upper
        ((0.0, 0.0), (1.0, 0.5))
    """
    if space.time is not None:
        raise ValueError(
            f"space_time: coordinate {space.time} of the space is time already; give a box of space "
            "only, such as interval(0, 1)."
        )
    return space.until(end, start)  # pyright: ignore[reportReturnType]

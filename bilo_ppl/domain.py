"""Domains and collocation points.

Points are NumPy arrays in double precision: they are data, made when a problem is defined, and are
cast to the precision of the network where they are used.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilo_ppl._types import Points

__all__ = ["Box", "interval", "masked", "space_time"]


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

    def grid(self, *counts: int) -> Points:
        """A tensor grid with ``counts[i]`` points along axis i, ends included: ``(n, d)``."""
        if len(counts) != self.dimension or min(counts) < 2:
            raise ValueError(
                f"Box.grid: a box of dimension {self.dimension} needs {self.dimension} counts of "
                f"at least 2, got {counts}."
            )
        axes = [
            np.linspace(a, b, n) for a, b, n in zip(self.lower, self.upper, counts, strict=True)
        ]
        return np.stack([c.ravel() for c in np.meshgrid(*axes, indexing="ij")], axis=-1)

    def interior_grid(self, *counts: int) -> Points:
        """The tensor grid without the points that lie on the boundary: ``(n, d)``."""
        points = self.grid(*counts)
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

"""A grid over a domain of two coordinates, or of space at the end of time, for the images of a run."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.problem import Problem

__all__ = ["Plane", "known_fields", "plane_of", "solution_plane"]

FINE, COARSE = 101, 51
"""Points along the longer side: of one function, and of one for each of many draws."""

LEAST = 21
"""Points along the shorter side."""


class Plane:
    """A rectangle, and its grid: ``x`` ``(n,)`` by ``y`` ``(m,)``.

    Of a domain of three coordinates, one of which is time, it is space at the end of time.
    """

    def __init__(self, domain: Box, count: int = FINE):
        self.domain = domain
        self.axes = list(range(2)) if domain.dimension == 2 else list(domain.space)
        lower, upper = (np.array(end, float) for end in (domain.lower, domain.upper))
        sides = (upper - lower)[self.axes]
        self.in_space = domain.time not in self.axes
        # Of space and time, both sides count as equally long.
        ratios = sides / sides.max() if self.in_space else np.ones(2)
        counts = np.maximum((count * ratios).round().astype(int), LEAST)
        limits = zip(lower[self.axes], upper[self.axes], counts, strict=True)
        self.x, self.y = (np.linspace(a, b, n) for a, b, n in limits)
        # The grid of a masked domain would leave points out.
        grid = np.stack([c.ravel() for c in np.meshgrid(self.x, self.y, indexing="ij")], -1)
        self.points = np.tile(upper, (len(grid), 1))
        self.points[:, self.axes] = grid
        self.inside = domain.contains(self.points)

    def image(self, values: Any) -> np.ndarray:
        """Values at the points ``(n m,)`` on the grid, NaN outside of the domain: ``(n, m)``."""
        values = np.where(self.inside, np.asarray(values, float), np.nan)
        return values.reshape(len(self.x), len(self.y))

    def of(self, function: Callable[[Any], Any]) -> np.ndarray:
        """A function of a point on the grid ``(n, m)``."""
        return self.image(jit_once(jax.vmap(function))(jnp.asarray(self.points)))

    @property
    def layout(self) -> dict[str, Any]:
        """What `plot_maps` is to know of the axes."""
        names = [self.domain.coordinates[axis] for axis in self.axes]
        return {"coordinates": names, "equal": self.in_space}

    @property
    def where(self) -> str:
        """What the coordinate is that the plane lacks, to stand in a title; empty where there is none."""
        rest = set(range(self.domain.dimension)) - set(self.axes)
        return "".join(f", {self.domain.coordinates[i]} = {self.domain.upper[i]:g}" for i in rest)

    def seen(self, points: Any) -> np.ndarray:
        """Which of the points ``(k, d)`` lie in the plane, ``(k,)``."""
        rest = [axis for axis in range(self.domain.dimension) if axis not in self.axes]
        last = np.array(self.domain.upper, float)[rest]
        return np.all(np.isclose(np.asarray(points, float)[:, rest], last), axis=1)


def plane_of(problem: Problem, count: int = FINE) -> Plane | None:
    """The plane of a problem with two coordinates, time included; None for others."""
    return Plane(problem.domain, count) if problem.domain.dimension == 2 else None


def solution_plane(problem: Problem, count: int = FINE) -> Plane | None:
    """The same, and space at the end of time where it is a plane."""
    domain = problem.domain
    of_space = domain.dimension == 3 and domain.time is not None
    return Plane(domain, count) if of_space else plane_of(problem, count)


def known_fields(problem: Problem, theta: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a theta that may lack entries, as a truth may; empty if it does."""
    if theta is None or any(name not in theta for name in problem.parameters):
        return {}
    return dict(problem.fields(theta))

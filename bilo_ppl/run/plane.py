"""A grid over a domain of two coordinates, for the images of a run."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.problem import Problem

__all__ = ["Plane", "plane_of"]

FINE, COARSE = 101, 51
"""Points along the longer side: of one function, and of one for each of many draws."""

LEAST = 21
"""Points along the shorter side."""


class Plane:
    """A rectangle, and its grid: ``x`` ``(n,)`` by ``y`` ``(m,)``."""

    def __init__(self, domain: Box, count: int = FINE):
        self.domain = domain
        sides = np.array(domain.upper, float) - np.array(domain.lower, float)
        # Of space and time, both sides count as equally long.
        ratios = np.ones(2) if domain.time is not None else sides / sides.max()
        counts = np.maximum((count * ratios).round().astype(int), LEAST)
        limits = zip(domain.lower, domain.upper, counts, strict=True)
        self.x, self.y = (np.linspace(a, b, n) for a, b, n in limits)
        # The grid of a masked domain would leave points out.
        self.points = np.stack([c.ravel() for c in np.meshgrid(self.x, self.y, indexing="ij")], -1)
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
        return {"coordinates": self.domain.coordinates, "equal": self.domain.time is None}


def plane_of(problem: Problem, count: int = FINE) -> Plane | None:
    """The plane of a problem with two coordinates, time included; None for others."""
    return Plane(problem.domain, count) if problem.domain.dimension == 2 else None


def known_fields(problem: Problem, theta: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a theta that may lack entries, as a truth may; empty if it does."""
    if theta is None or any(name not in theta for name in problem.parameters):
        return {}
    return dict(problem.fields(theta))

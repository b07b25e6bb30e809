"""A problem's collocation points: other ones in their place, and the usual ones where it states none."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from bilo_ppl._replaced import replaced
from bilo_ppl._types import Points, Theta
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.points import even_part, hammersley, refined
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.sizes import unknowns_in, usual_sizes

__all__ = ["completed", "resized", "scattered", "with_points"]


def scattered(domain: Box, count: int) -> np.ndarray:
    """``count`` even points ``(count, d)``: on an interval a grid, in a box those of Hammersley.

    In a box they lie in its interior: in a corner of space-time, initial and boundary values often leave
    u no freedom. Every coordinate takes as many values as there are points, from half a step after the
    beginning to half a step before the end, so that no face is far from a point.
    """
    if domain.dimension == 1:
        return domain.grid(count)
    steps = (np.arange(count) + 0.5) / count
    limits = zip(domain.lower, domain.upper, strict=True)
    return hammersley(*(lower + steps * (upper - lower) for lower, upper in limits))


def resized(points: Points, domain: Box, count: int) -> np.ndarray:
    """``count`` points ``(count, d)`` in the place of given ones, where these are.

    Fewer are an even part of them, so that they stay crowded where they were. More are all of them, and
    others scattered between (`bilo_ppl.refined`): none where a mask has left a hole. Raises a
    ``ValueError`` where there is no room for so many.
    """
    own = np.asarray(points, float)
    if count <= len(own):
        return even_part(own, count)
    found = refined(own, domain, math.ceil(count / len(own)) - 1)[:count]
    if len(found) < count:
        raise ValueError(
            f"there is room for {len(found)} points between the {len(own)} that the problem states, "
            f"not for {count}: they lie on a small part of the domain. State more there, or take fewer."
        )
    return found


def with_points(problem: Problem, points: Points) -> Problem:
    """The problem with other collocation points ``(n, d)``; a subclass of the same name, or a field."""
    points = np.ascontiguousarray(points, float)
    if "points" in (field.name for field in dataclasses.fields(problem)):
        return replaced(problem, points=points)
    return replaced(problem, _subclass(type(problem), points.shape, points.tobytes()))


@functools.lru_cache(maxsize=64)
def _subclass(kind: Any, shape: tuple[int, ...], content: bytes) -> Any:
    """One class for the same points: compiled programs know problems by their class."""
    points = np.frombuffer(content).reshape(shape)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind)(kind.__name__, (kind,), {**names, "__doc__": kind.__doc__, "points": points})


def completed(problem: Problem, theta: Theta) -> Problem:
    """The problem; one that states no points with the usual number of scattered ones for ``theta``."""
    if hasattr(problem, "points") or not hasattr(problem, "domain"):
        return problem
    count = usual_sizes(problem.domain, unknowns_in(theta)).points
    return with_points(problem, scattered(problem.domain, count))

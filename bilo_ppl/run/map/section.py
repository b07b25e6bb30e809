"""A line through a domain, along which solutions are drawn."""

from typing import NamedTuple

import numpy as np

from bilo_ppl.pde.problem import Problem

__all__ = ["LINE", "Section", "section"]

LINE = 201
"""Points of a line."""


class Section(NamedTuple):
    """A line through a domain, on which a function of its points can be drawn."""

    points: np.ndarray
    """``(n, d)``"""
    s: np.ndarray
    """The coordinate that varies, ``(n,)``."""
    label: str
    """Its name."""
    where: str
    """What the other coordinates are; empty if there are none."""


def section(problem: Problem, count: int = LINE) -> Section:
    """The line along the first coordinate of space, the others at their middle, time at its end.

    For a problem in time only, the whole interval of time.
    """
    domain = problem.domain
    lower, upper = np.array(domain.lower, float), np.array(domain.upper, float)
    at = (lower + upper) / 2
    if domain.time is not None:
        at[domain.time] = upper[domain.time]
    axis = domain.space[0] if domain.space else 0
    points = np.tile(at, (count, 1))
    points[:, axis] = np.linspace(lower[axis], upper[axis], count)
    named = list(zip(domain.coordinates, at, strict=True))
    rest = ", ".join(f"{name} = {v:g}" for name, v in named[:axis] + named[axis + 1 :])
    return Section(points, points[:, axis], named[axis][0], f"at {rest}" if rest else "")

"""What images of solutions share: one for each component and experiment, and the data in the plane."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bilo_ppl.pde.problem import Problem
from bilo_ppl.plots import Panel
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.plane import Plane

__all__ = ["Single", "marks", "misfit", "on_grid", "singles", "unit_of"]

MOST = 6
"""Experiments of which there are images."""


class Single(NamedTuple):
    """One function of a point, of those that solutions are made of."""

    suffix: str
    """For the name of a figure."""
    name: str
    of: str
    """The name of the component, or of the solution where there is but one."""
    values: np.ndarray
    """``(draws, n)``"""
    component: int | None
    """None where there is but one."""
    experiment: int | None


def singles(u: Any, problem: Problem, site: str, *, several: bool) -> Iterator[Single]:
    """Those of solutions ``(draws, n)``, with an axis of experiments after the first where there are
    ``several``, and one of components at the end where a problem has them.
    """
    u = np.asarray(u)
    of_system = problem.components > 1
    u = u if of_system else u[..., None]
    u = u if several else u[:, None]
    names = [site]
    if of_system:
        names = list(problem.component_names or range(1, problem.components + 1))
        names = [name if isinstance(name, str) else f"{site}{name}" for name in names]
    for e in range(min(u.shape[1], MOST)):
        for i, name in enumerate(names):
            suffix = (f"_{e}" if several else "") + (f"_{name}" if of_system else "")
            told = f"{name}[{e}]" if several else name
            where = i if of_system else None, e if several else None
            yield Single(suffix, told, name, u[:, e, :, i], *where)


def unit_of(plan: Plan, one: Single, site: str) -> str:
    """That of the component, or of the solution."""
    return plan.file.units.get(one.of, plan.file.units.get(site, ""))


def on_grid(plane: Plane, values: Any) -> np.ndarray:
    """Values at the points of a plane inside of the domain as an image; what follows them is left."""
    found = np.full(len(plane.points), np.nan)
    found[plane.inside] = values[: plane.inside.sum()]
    return plane.image(found)


def marks(plane: Plane, one: Single, x: np.ndarray) -> np.ndarray | None:
    """Where the data are that lie in the plane; of several experiments only the model knows whose."""
    points = np.asarray(x)[plane.seen(x)][:, plane.axes]
    return points if one.experiment is None and len(points) else None


def misfit(plan: Plan, plane: Plane, one: Single, data: Any, fitted: Any, less: str) -> list[Panel]:
    """What the data ``(x, y, sigma)`` in the plane are off by; empty where they are of something else.

    ``fitted`` are values of the function at all of x, and ``less`` says what these are.
    """
    x, y = (np.asarray(part) for part in data[:2])
    # Data of another shape are not values of this solution, or not only.
    each = () if one.component is None else (plan.file.problem.components,)
    if not plan.by_values or one.experiment is not None or y.shape != (len(x), *each):
        return []
    off, told = (y if one.component is None else y[:, one.component]) - fitted, f"data less {less}"
    if plan.has_noise_sd:
        sigma = np.broadcast_to(data[2], y.shape).reshape(len(x), -1)
        off, told = off / sigma[:, one.component or 0], f"{told}, in sigma"
    there = plane.seen(x) & np.isfinite(off)
    panel = Panel(told, None, "difference", x[there][:, plane.axes], off[there])
    return [panel] if there.any() else []

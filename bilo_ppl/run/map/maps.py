"""Images of a point estimate in the plane: the unknown functions, the solution, the fit."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bilo_ppl.estimate import Estimate
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.plots import Panel, plot_maps
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.run.map.scores import is_on_a_line, numerical_solution
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.plane import Plane, known_fields, plane_of

__all__ = ["draw_estimate_maps"]


def draw_estimate_maps(
    plan: Plan, estimate: Estimate, numerical: AbstractSolutionOperator | None
) -> Iterator[tuple[str, Drawn]]:
    """Figures of every unknown function of two coordinates, and of the solution.

    Nothing for a problem that has not two coordinates, or several components or experiments.
    """
    problem, site = plan.file.problem, plan.solutions[0]
    plane = plane_of(problem)
    several = problem.components > 1 or estimate.experiments(site) is not None
    if plane is None or several:
        return
    if problem.domain.time is None:
        yield from _fields(plan, estimate, plane, site)
    yield "solution_map", _solution(plan, estimate, numerical, plane, site)


def _fields(plan: Plan, estimate: Estimate, plane: Plane, site: str) -> Iterator[Any]:
    file = plan.file
    truth = known_fields(file.problem, file.truth if plan.settings.data is None else None)
    for name, field in file.problem.fields(estimate.theta(site)).items():
        if is_on_a_line(field):
            continue
        found, unit = plane.of(field), file.units.get(name, "")
        panels = [Panel(f"{name}, estimate", found, unit=unit)]
        if name in truth:
            wanted = plane.of(truth[name])
            panels.insert(0, Panel(f"{name}, truth", wanted, unit=unit))
            panels.append(Panel("estimate less truth", found - wanted, "difference", unit=unit))
        layout = {**plane.layout, "contours": False, "units": plan.file.units}
        yield f"field_{name}", plot_maps(plane.x, plane.y, panels, **layout)


def _solution(plan: Plan, estimate: Estimate, numerical: Any, plane: Plane, site: str) -> Drawn:
    """u at the estimate, what the numerical solution there is off by, and the misfit at the data."""
    x, y, sigma = (np.asarray(part) for part in estimate.objective.args[1:4])
    u = np.full(len(plane.points), np.nan)
    u[plane.inside] = estimate.solution(plane.points[plane.inside], site)
    unit = plan.file.units.get(site, "")
    panels = [Panel(f"{site}, estimate", plane.image(u), "value", x, unit=unit)]
    if numerical is not None and numerical is not estimate.objective.operators[site]:
        exact = np.full(len(plane.points), np.nan)
        inside = plane.points[plane.inside]
        exact[plane.inside] = numerical_solution(numerical, estimate.theta(site), inside)
        off = plane.image(u - exact)
        panels.append(Panel(f"{site} less the numerical solution", off, "difference", unit=unit))
    # Data of another shape are not values of this solution, or not only.
    if plan.by_values and y.shape == (len(x),):
        misfit, told = y - np.asarray(estimate.solution(x, site)), f"data less {site}"
        if plan.has_noise_sd:
            misfit, told = misfit / np.broadcast_to(sigma, y.shape), f"{told}, in sigma"
        panels.append(Panel(told, None, "difference", x, misfit))
    return plot_maps(plane.x, plane.y, panels, **plane.layout, units=plan.file.units)

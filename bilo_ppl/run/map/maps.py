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
from bilo_ppl.run.plane import Plane, known_fields, plane_of, solution_plane
from bilo_ppl.run.solution_images import marks, misfit, on_grid, singles, unit_of

__all__ = ["draw_estimate_maps"]


def draw_estimate_maps(
    plan: Plan, estimate: Estimate, numerical: AbstractSolutionOperator | None
) -> Iterator[tuple[str, Drawn]]:
    """Figures of every unknown function of two coordinates, and of the solution.

    Nothing for a problem that has not two coordinates, or two of space and time: then the solution is
    that at its end, unless the model file has figures of its own.
    """
    problem, site = plan.file.problem, plan.solutions[0]
    plane, whole = solution_plane(problem), plane_of(problem)
    one_experiment = estimate.experiments(site) is None
    if whole is not None and problem.domain.time is None and one_experiment:
        yield from _fields(plan, estimate, whole, site)
    if plane is not None and (whole is not None or plan.file.figures is None):
        yield from _solution(plan, estimate, numerical, plane, site)


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


def _solution(
    plan: Plan, estimate: Estimate, numerical: Any, plane: Plane, site: str
) -> Iterator[tuple[str, Drawn]]:
    """A figure for each component and experiment: u at the estimate, and what it is off by.

    That is against the numerical solution there, and at the data.
    """
    inside, several = plane.points[plane.inside], estimate.experiments(site)
    data, problem = estimate.objective.args[1:4], plan.file.problem
    points = np.concatenate([inside, np.asarray(data[0])])
    shape = {"several": several is not None}
    u = singles(np.asarray(estimate.solution(points, site))[None], problem, site, **shape)
    exact = None
    if numerical is not None and numerical is not estimate.objective.operators[site]:
        exact = numerical_solution(numerical, estimate.theta(site), inside, several)[None]
        exact = [one.values[0] for one in singles(exact, problem, site, **shape)]
    for number, one in enumerate(u):
        name, values, unit = f"{one.name}{plane.where}", one.values[0], unit_of(plan, one, site)
        where = marks(plane, one, data[0])
        panels = [Panel(f"{name}, estimate", on_grid(plane, values), "value", where, unit=unit)]
        if exact is not None:
            off, told = values[: len(inside)] - exact[number], "less the numerical solution"
            panels.append(Panel(f"{one.name} {told}", on_grid(plane, off), "difference", unit=unit))
        panels += misfit(plan, plane, one, data, values[len(inside) :], one.name)
        drawn = plot_maps(plane.x, plane.y, panels, **plane.layout, units=plan.file.units)
        yield f"solution_map{one.suffix}", drawn

"""Images of a posterior in the plane: the solution, the unknown functions, and how sure they are."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl.diagnostics import solution_draws
from bilo_ppl.diagnostics.inner import map_spaced
from bilo_ppl.plots import Panel, plot_maps
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.plan import Plan, stand_in
from bilo_ppl.run.plane import COARSE, FINE, Plane, known_fields, plane_of, solution_plane
from bilo_ppl.run.solution_images import Single, marks, misfit, on_grid, singles, unit_of

__all__ = ["draw_maps"]

MAX_DRAWS = 200
"""Draws, evenly spaced, that moments are of."""


def draw_maps(
    plan: Plan, model: Callable, samples: Mapping[str, Any]
) -> Iterator[tuple[str, Drawn]]:
    """Figures of every solution, and of every unknown function of both coordinates.

    Nothing for a problem that has not two coordinates, or two of space and time: then the solutions are
    those at its end, unless the model file has figures of its own.
    """
    coarse, fine = solution_plane(plan.file.problem, COARSE), plane_of(plan.file.problem, FINE)
    if coarse is not None and (fine is not None or plan.file.figures is None):
        for site in plan.solutions:
            label = "solution" if len(plan.solutions) == 1 else f"solution_{site}"
            yield from _solution(plan, model, samples, coarse, site, label)
    if fine is not None and plan.file.problem.domain.time is None:
        yield from _fields(plan, samples, fine)


def _solution(
    plan: Plan, model: Callable, samples: Any, plane: Plane, site: str, label: str
) -> Iterator[tuple[str, Drawn]]:
    """A figure for each component and experiment."""
    data, problem = plan.observations, plan.file.problem
    u = solution_draws(
        model,
        samples,
        np.concatenate([plane.points[plane.inside], np.asarray(data.x)]),
        *data.model_args,
        site=site,
        max_draws=MAX_DRAWS,
        accept_unconverged=plan.settings.accept_unconverged,
        **data.model_kwargs,
    )
    several = u.ndim == 3 + (problem.components > 1)
    u = u[np.isfinite(u).reshape(len(u), -1).all(axis=1)]
    for one in singles(u, problem, site, several=several) if len(u) else ():
        yield f"{label}{one.suffix}", _moments(plan, plane, one, unit_of(plan, one, site))


def _moments(plan: Plan, plane: Plane, one: Single, unit: str) -> Drawn:
    """Mean, sd, and the misfit at the data, in standard deviations of the noise."""
    data, mean = plan.observations, one.values.mean(axis=0)
    name, points = f"{one.name}{plane.where}", marks(plane, one, data.x)
    sd = on_grid(plane, one.values.std(axis=0))
    panels = [
        Panel(f"{name}, posterior mean", on_grid(plane, mean), "value", points, unit=unit),
        Panel(f"{name}, posterior sd", sd, "spread", unit=unit),
        *misfit(plan, plane, one, data.model_args, mean[-len(data.x) :], "mean"),
    ]
    return plot_maps(plane.x, plane.y, panels, **plane.layout, units=plan.file.units)


def _fields(plan: Plan, samples: Any, plane: Plane) -> Iterator[tuple[str, Drawn]]:
    """Mean and sd of every unknown function, beside the true one where the data are of it."""
    problem, data = plan.file.problem, plan.observations
    points = jnp.asarray(plane.points)

    model = plan.model(plan.numerical or stand_in(plan))

    def values(sample):
        look = look_at(model, data.model_args, data.model_kwargs, values=sample)
        site = look.solutions[plan.solutions[0]]
        if site.batch is not None:
            return {}
        return {n: jax.vmap(f)(points) for n, f in problem.fields(site.theta).items()}

    found = map_spaced(values, samples, MAX_DRAWS, 2, 16)
    truth = known_fields(problem, plan.file.truth if plan.settings.data is None else None)
    for name, drawn in found.items():
        unit = plan.file.units.get(name, "")
        mean, sd = (plane.image(part) for part in (drawn.mean(axis=0), drawn.std(axis=0)))
        panels = [
            Panel(f"{name}, posterior mean", mean, unit=unit),
            Panel(f"{name}, posterior sd", sd, "spread", unit=unit),
        ]
        if name in truth:
            panels.insert(0, Panel(f"{name}, truth", plane.of(truth[name]), unit=unit))
        layout = {**plane.layout, "contours": False, "units": plan.file.units}
        yield f"field_{name}", plot_maps(plane.x, plane.y, panels, **layout)

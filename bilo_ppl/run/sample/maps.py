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
from bilo_ppl.run.plane import COARSE, FINE, Plane, known_fields, plane_of

__all__ = ["draw_maps"]

MAX_DRAWS = 200
"""Draws, evenly spaced, that moments are of."""


def draw_maps(
    plan: Plan, model: Callable, samples: Mapping[str, Any]
) -> Iterator[tuple[str, Drawn]]:
    """Figures of every solution with one component, and of every unknown function of both coordinates.

    Nothing for a problem that has not two coordinates.
    """
    coarse, fine = plane_of(plan.file.problem, COARSE), plane_of(plan.file.problem, FINE)
    if coarse is None or fine is None:
        return
    if plan.file.problem.components == 1:
        for site in plan.solutions:
            label = "solution" if len(plan.solutions) == 1 else f"solution_{site}"
            yield from _solution(plan, model, samples, coarse, site, label)
    if plan.file.problem.domain.time is None:
        yield from _fields(plan, samples, fine)


def _solution(
    plan: Plan, model: Callable, samples: Any, plane: Plane, site: str, label: str
) -> Iterator[tuple[str, Drawn]]:
    """Mean, sd, and the misfit at the data, in standard deviations of the noise."""
    data = plan.observations
    x, y = np.asarray(data.x), np.asarray(data.y)
    u = solution_draws(
        model,
        samples,
        np.concatenate([plane.points[plane.inside], x]),
        *data.model_args,
        site=site,
        max_draws=MAX_DRAWS,
        accept_unconverged=plan.settings.accept_unconverged,
        **data.model_kwargs,
    )
    if u.ndim != 2:
        # Of several experiments, which are too many images.
        return
    u = u[np.isfinite(u).all(axis=1)]
    if not len(u):
        return
    unit = plan.file.units.get(site, "")
    on_grid = [np.full(len(plane.points), np.nan) for _ in range(2)]
    for values, moment in zip(on_grid, (u.mean(axis=0), u.std(axis=0)), strict=True):
        values[plane.inside] = moment[: plane.inside.sum()]
    panels = [
        Panel(f"{site}, posterior mean", plane.image(on_grid[0]), "value", x, unit=unit),
        Panel(f"{site}, posterior sd", plane.image(on_grid[1]), "spread", unit=unit),
    ]
    # Data of another shape are not values of this solution, or not only.
    if plan.by_values and y.shape == (len(x),):
        misfit, told = y - u[:, -len(x) :].mean(axis=0), "data less mean"
        if plan.has_noise_sd:
            misfit, told = misfit / np.broadcast_to(data.sigma, y.shape), f"{told}, in sigma"
        panels.append(Panel(told, None, "difference", x, misfit))
    yield label, plot_maps(plane.x, plane.y, panels, **plane.layout, units=plan.file.units)


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

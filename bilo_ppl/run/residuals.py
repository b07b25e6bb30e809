"""What is left of the equation over the domain: figures of the residual of draws, or of an estimate."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Points
from bilo_ppl._units import labelled
from bilo_ppl.diagnostics.inner import map_spaced
from bilo_ppl.estimate import Estimate
from bilo_ppl.estimate.result import find_site
from bilo_ppl.plots import Panel, plot_maps
from bilo_ppl.plots._style import COLOURS, INK, new_axes
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.ppl.effect import solve_site
from bilo_ppl.ppl.look import SolutionSite, look_at, site_at
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.plane import COARSE, Plane, plane_of

__all__ = ["draw_residual_of_estimate", "draw_residuals", "residual_size"]

MAX_DRAWS = 24
"""Draws, evenly spaced, that the root mean square is of."""

LINE = 200
"""Points of a line. An even number spares the middle, where a kink may be."""

LEAST = 1e-4
"""Of the largest residual: less is drawn as this."""


def residual_size(site: SolutionSite, points: Points, state: Any = None) -> Any:
    """Euclidean norm of the residual at points ``(n, d)``, ``(n,)``, of a solve from a given state.

    A solve that misses its tolerance counts as it is. Not for the solutions of several experiments.
    """
    u = solve_site(site.operator, site.theta, state=state, accept=True).field
    problem = site.operator.problem

    def size(x):
        return jnp.linalg.norm(jnp.ravel(jnp.asarray(problem.residual(u, x, site.theta))))

    return jax.vmap(size)(jnp.asarray(points))


def draw_residuals(
    plan: Plan, model: Callable, samples: Mapping[str, Any], tolerance: float | None
) -> Iterator[tuple[str, Drawn]]:
    """A figure for each solution of one experiment by a network, on an interval or in a plane."""
    data, place = plan.observations, _Place.of(plan)
    if place is None:
        return
    args, kwargs = data.model_args, data.model_kwargs
    batches = look_at(model, args, kwargs).batches
    for name in plan.solutions:
        if batches[name] is not None:
            continue

        def sizes(sample, name=name):
            return residual_size(site_at(model, args, kwargs, sample, name), place.points)

        found = map_spaced(sizes, samples, MAX_DRAWS, 2, 1)
        label = "residual" if len(plan.solutions) == 1 else f"residual_{name}"
        yield label, place.figure(np.sqrt(np.mean(found**2, axis=0)), tolerance)


def draw_residual_of_estimate(plan: Plan, estimate: Estimate) -> Iterator[tuple[str, Drawn]]:
    """The same for a point estimate, with its weights."""
    site, place = plan.solutions[0], _Place.of(plan)
    if place is None or estimate.experiments(site) is not None:
        return

    @jit_once
    def sizes(objective, values, states, points):
        asked = find_site(objective, values, site)
        asked = asked._replace(operator=objective.operators[site])
        return residual_size(asked, points, states[site])

    at = estimate.objective, estimate.values, estimate.operator_states
    found = np.asarray(sizes(*at, jnp.asarray(place.points)))
    yield "residual", place.figure(found, estimate.objective.operators[site].loss_tolerance)


class _Place:
    """The points of a figure: of an interval, or of a plane."""

    def __init__(
        self, points: np.ndarray, plane: Plane | None, name: str, units: Mapping[str, str]
    ):
        """``name`` is that of the first coordinate."""
        self.points, self.plane, self.name, self.units = points, plane, name, units

    @classmethod
    def of(cls, plan: Plan) -> "_Place | None":
        """None where there is no figure: in more dimensions, and of what other solvers interpolate."""
        problem = plan.file.problem
        if plan.numerical is not None or problem.domain.dimension > 2:
            return None
        plane = plane_of(problem, COARSE)
        named = problem.domain.coordinates[0], plan.file.units
        if plane is None:
            line = np.asarray(problem.domain.interior_grid(LINE))
            return cls(line, None, *named)
        return cls(plane.points[plane.inside], plane, *named)

    def figure(self, sizes: np.ndarray, tolerance: float | None) -> Drawn:
        """Sizes of the residual at the points, on a logarithmic scale; the tolerance is on the loss."""
        sizes = np.asarray(sizes, float)
        # Where it happens to vanish its logarithm says nothing, and would take all of the scale.
        sizes = np.maximum(sizes, max(LEAST * np.nanmax(sizes), np.finfo(float).tiny))
        if self.plane is not None:
            values = np.full(len(self.plane.points), np.nan)
            values[self.plane.inside] = np.log10(sizes)
            panel = Panel("log10 of the residual", self.plane.image(values))
            return plot_maps(
                self.plane.x,
                self.plane.y,
                [panel],
                contours=False,
                **self.plane.layout,
                units=self.units,
            )
        ((ax,),) = new_axes()
        ax.semilogy(self.points[:, 0], sizes, color=COLOURS[0], linewidth=1.6, label="residual")
        if tolerance is not None:
            label = f"root of the tolerance, {tolerance**0.5:.1e}"
            ax.axhline(tolerance**0.5, color=INK, linestyle="--", linewidth=1.2, label=label)
        ax.set(xlabel=labelled(self.name, self.units), ylabel="size of the residual")
        ax.legend(frameon=False, fontsize="small")
        return ax

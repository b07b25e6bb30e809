"""What is left of the equation and its conditions: figures of the residual of draws, or an estimate."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

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
from bilo_ppl.plots._style import COLOURS, INK, legend_above, new_axes
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.ppl.effect import solve_site
from bilo_ppl.ppl.look import SolutionSite, look_at, site_at
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.plane import COARSE, Plane, plane_of

__all__ = ["LeftOver", "draw_residual_of_estimate", "draw_residuals", "left_over"]

MAX_DRAWS = 24
"""Draws, evenly spaced, that the root mean square is of."""

LINE = 200
"""Points of a line. An even number spares the middle, where a kink may be."""

LEAST = 1e-4
"""Of the largest residual: less is drawn as this."""


class LeftOver(NamedTuple):
    """What a solve has left of the equation, and of the problem's `conditions`."""

    sizes: Any
    """Euclidean norm of the residual at points, ``(n,)``."""
    conditions: dict[str, Any]
    """Root mean square of the rows of a condition, by name: what the loss has of it."""


def left_over(site: SolutionSite, points: Points, state: Any = None) -> LeftOver:
    """Of a solve from a given state, at points ``(n, d)``.

    A solve that misses its tolerance counts as it is. Not for the solutions of several experiments.
    """
    u = solve_site(site.operator, site.theta, state=state, accept=True).field
    problem = site.operator.problem

    def size(x):
        return jnp.linalg.norm(jnp.ravel(jnp.asarray(problem.residual(u, x, site.theta))))

    conditions = problem.conditions(u, site.theta)
    rms = {
        name: jnp.sqrt(jnp.mean(jnp.square(rows)))
        for name, rows in conditions.items()
        if jnp.size(rows)
    }
    return LeftOver(jax.vmap(size)(jnp.asarray(points)), rms)


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

        def left(sample, name=name):
            return left_over(site_at(model, args, kwargs, sample, name), place.points)

        found = map_spaced(left, samples, MAX_DRAWS, 2, 1)
        of_all = jax.tree.map(lambda sizes: np.sqrt(np.mean(np.square(sizes), axis=0)), found)
        label = "residual" if len(plan.solutions) == 1 else f"residual_{name}"
        what = f"residual, root mean square of {len(found.sizes)} draws"
        yield label, place.figure(of_all, tolerance, what)


def draw_residual_of_estimate(plan: Plan, estimate: Estimate) -> Iterator[tuple[str, Drawn]]:
    """The same for a point estimate, with its weights."""
    site, place = plan.solutions[0], _Place.of(plan)
    if place is None or estimate.experiments(site) is not None:
        return

    @jit_once
    def left(objective, values, states, points):
        asked = find_site(objective, values, site)
        asked = asked._replace(operator=objective.operators[site])
        return left_over(asked, points, states[site])

    at = estimate.objective, estimate.values, estimate.operator_states
    found = left(*at, jnp.asarray(place.points))
    tolerance = estimate.objective.operators[site].loss_tolerance
    yield "residual", place.figure(found, tolerance, "residual of the estimate")


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

    def figure(self, left: LeftOver, tolerance: float | None, what: str) -> Drawn:
        """Sizes of the residual at the points, on a logarithmic scale; the tolerance is on the loss.

        A condition has one size, wherever it holds: a level across the figure, or in a plane a line of
        the title.
        """
        sizes = np.asarray(left.sizes, float)
        conditions = {
            f"condition {name}, {float(size):.1e}": float(size)
            for name, size in left.conditions.items()
        }
        # Where it happens to vanish its logarithm says nothing, and would take all of the scale.
        sizes = np.maximum(sizes, max(LEAST * np.nanmax(sizes), np.finfo(float).tiny))
        if self.plane is not None:
            values = np.full(len(self.plane.points), np.nan)
            values[self.plane.inside] = np.log10(sizes)
            title = "\n".join(["log10 of the residual", *conditions])
            panel = Panel(title, self.plane.image(values))
            return plot_maps(
                self.plane.x,
                self.plane.y,
                [panel],
                contours=False,
                **self.plane.layout,
                units=self.units,
            )
        ((ax,),) = new_axes()
        ax.semilogy(self.points[:, 0], sizes, color=COLOURS[0], linewidth=1.6, label=what)
        for number, (label, size) in enumerate(conditions.items(), start=1):
            # One that holds to the last digit lies at the lower edge.
            level, colour = max(size, sizes.min()), COLOURS[number % len(COLOURS)]
            ax.axhline(level, color=colour, linestyle=":", linewidth=1.6, label=label)
        if tolerance is not None:
            label = f"root of the tolerance, {tolerance**0.5:.1e}"
            ax.axhline(tolerance**0.5, color=INK, linestyle="--", linewidth=1.2, label=label)
        ax.set(xlabel=labelled(self.name, self.units), ylabel="size of the residual")
        legend_above(ax, columns=2)
        return ax

"""The figures of a point estimate: unknown functions, fit, descent, and the local operator."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import compute_log_probs

from bilo_ppl._units import labelled
from bilo_ppl.estimate import Estimate
from bilo_ppl.estimate.objective import data_sites
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.plots._style import COLOURS, INK, new_axes
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.ppl.handlers import replace_operator
from bilo_ppl.run.map.maps import draw_estimate_maps
from bilo_ppl.run.map.scores import is_on_a_line, numerical_solution
from bilo_ppl.run.map.section import LINE, section
from bilo_ppl.run.own_figures import of_estimate
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.residuals import draw_residual_of_estimate

__all__ = ["draw_estimate_figures"]

CONTOURS = 25
DELTA = 0.1
"""The local operator is shown at theta0 (1 - DELTA), theta0, and theta0 (1 + DELTA)."""


def draw_estimate_figures(
    plan: Plan,
    operator: AbstractSolutionOperator,
    estimate: Estimate,
    numerical: AbstractSolutionOperator | None,
) -> Iterator[tuple[str, Drawn]]:
    """Draw the figures one by one; gives name and figure."""
    site = plan.solutions[0]
    yield "descent", _descent(estimate)
    for name, field in estimate.theta(site).items():
        if is_on_a_line(field):
            yield f"field_{name}", _field(plan, name, field)
    yield from draw_estimate_maps(plan, estimate, numerical)
    yield "solution", _solution(plan, estimate, numerical, site)
    yield from draw_residual_of_estimate(plan, estimate)
    yield from of_estimate(plan, estimate)
    scalars = [n for n, v in estimate.history.values.items() if v.ndim == 1]
    if len(scalars) == 2:
        yield "trajectory", _trajectory(plan, estimate, numerical, scalars, site)
    theta = plan.file.start
    numbers = [n for n, v in theta.items() if not callable(v) and np.ndim(v) == 0]
    # Only the residual gradient teaches the network how u depends on theta at fixed weights.
    knows = plan.settings.fine_tuned and operator.unsolved(theta) is not None
    if knows and numbers and plan.file.problem.components == 1:
        yield "local_operator", _local(plan, operator, numerical, numbers)


def _panels(count: int = 1) -> np.ndarray:
    return new_axes(1, count, (max(4.6 * count, 6.4), 3.6))[0]


def _descent(estimate: Estimate) -> Drawn:
    history = estimate.history
    axes = _panels(2)
    top, bottom = axes
    steps = np.arange(history.steps)
    lowest = np.nanmin(history.energy)
    top.plot(steps, history.energy - lowest + 1e-6, color=COLOURS[0], label="U - least U")
    top.set(xlabel="step", ylabel="nats", yscale="log")
    top.plot(steps, history.gradient, color=COLOURS[1], linewidth=1, label="largest gradient")
    top.legend(frameon=False, fontsize="small")
    bottom.plot(steps, np.maximum(history.inner_loss, 1e-30), color=COLOURS[2], label="loss")
    bottom.set(xlabel="step", ylabel="lower-level loss", yscale="log")
    known = [operator.loss_tolerance for operator in estimate.objective.operators.values()]
    for tolerance in {value for value in known if value is not None}:
        label = f"tolerance {tolerance:.1e}"
        bottom.axhline(tolerance, color=INK, linestyle="--", linewidth=1.2, label=label)
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    bottom.legend(frameon=False, fontsize="small")
    return axes


def _field(plan: Plan, name: str, field: Any) -> Drawn:
    domain = plan.file.problem.domain
    points = domain.along(0).grid(LINE)
    (ax,) = _panels()
    lines = {"estimate": (field, COLOURS[0], "-")}
    truth = (plan.file.truth or {}).get(name)
    if callable(truth) and plan.settings.data is None:
        lines["truth"] = (truth, INK, "--")
    if callable(plan.file.start.get(name)):
        lines["start"] = (plan.file.start[name], "0.6", ":")
    for label, (function, colour, style) in lines.items():
        values = np.asarray(jax.vmap(function)(jnp.asarray(points)))
        ax.plot(points[:, 0], values, style, color=colour, label=label)
    along = labelled(domain.coordinates[0], plan.file.units)
    ax.set(xlabel=along, ylabel=labelled(name, plan.file.units))
    ax.legend(frameon=False, fontsize="small")
    return ax


def _lines(ax: Any, s: np.ndarray, u: np.ndarray, style: str, colour: str, label: str) -> None:
    """u along a section, or those of several experiments, which share an entry of the legend."""
    for number, one in enumerate(np.atleast_2d(u)):
        ax.plot(s, one, style, color=colour, label=None if number else label)


def _by_component(values: Any, count: int) -> np.ndarray:
    """Values with the components on the last axis, also where there is one."""
    values = np.asarray(values)
    return values if count > 1 else values[..., None]


def _solution(plan: Plan, estimate: Estimate, numerical: Any, site: str) -> Drawn:
    """u along a section, and, where data have more coordinates, observed against fitted values.

    Of a system every component has its colour. Missing data are left out.
    """
    problem = plan.file.problem
    points, s, along, where = section(problem)
    x, y = (np.asarray(part) for part in estimate.objective.args[1:3])
    count = problem.components
    several = estimate.experiments(site)
    # Data of another shape are not those of all components: which they are, only the model knows.
    each = (count,) if count > 1 else ()
    shown = plan.by_values and several is None and y.shape[1:] == each
    line, end = x.shape[1] == 1, ", 1 sd" if plan.has_noise_sd else ""
    axes = _panels(2 if shown and not line else 1)
    ax, names = axes[0], problem.component_names or range(1, count + 1)
    values = _by_component(estimate.solution(points, site), count)
    for i, name in enumerate(names):
        label = "estimate" if count == 1 else f"estimate of {name}"
        _lines(ax, s, values[..., i], "-", _colour(i), label)
    if numerical is not None:
        u = numerical_solution(numerical, estimate.theta(site), points, several)
        u = _by_component(u, count)
        for i in range(count):
            _lines(ax, s, u[..., i], "--", INK, "" if i else "numerical, same theta")
    if shown and line and problem.domain.contains(x).all():
        bars = _bars(plan, estimate, y, count)
        for i, column in enumerate(_by_component(y, count).T):
            # A number that is NaN is not drawn.
            style = {"color": _colour(i if count > 1 else 1), "label": None if i else f"data{end}"}
            ax.errorbar(x[:, 0], column, bars[i], fmt="o", ms=4, capsize=2.5, **style)
    units = plan.file.units
    ax.set(xlabel=labelled(along, units), ylabel=labelled(site, units), title=where)
    ax.legend(frameon=False, fontsize="small")
    if shown and not line:
        bars = _bars(plan, estimate, y, count)
        fitted = _by_component(estimate.solution(x, site), count)
        for i, column in enumerate(_by_component(y, count).T):
            style = {"color": _colour(i if count > 1 else 1), "ms": 3, "elinewidth": 0.6}
            label = f"{'data' if count == 1 else names[i]}{end}"
            axes[1].errorbar(column, fitted[:, i], xerr=bars[i], fmt="o", label=label, **style)
        ends = [float(np.nanmin(y)), float(np.nanmax(y))]
        axes[1].plot(ends, ends, color=INK, linewidth=1, label="equal")
        axes[1].set(xlabel="observed", ylabel="fitted")
        axes[1].legend(frameon=False, fontsize="small")
    return axes


def _bars(plan: Plan, estimate: Estimate, y: np.ndarray, count: int) -> list[np.ndarray | None]:
    """By component the standard deviation of the noise of every value; None where that is not known."""
    if not plan.has_noise_sd:
        return [None] * count
    sigma = np.asarray(estimate.objective.args[3])
    return list(_by_component(np.broadcast_to(sigma, y.shape), count).T)


def _colour(component: int) -> str:
    return COLOURS[component % len(COLOURS)]


def _trajectory(
    plan: Plan, estimate: Estimate, numerical: Any, names: list[str], site: str
) -> Drawn:
    """The path of two parameters over the data loss of the numerical solution."""
    (ax,) = _panels()
    a, b = (estimate.history.values[name] for name in names)
    truth = plan.file.truth if plan.settings.data is None else None
    known = truth is not None and all(name in truth for name in names)
    marks = [[truth[name]] if known and truth else [] for name in names]
    axes = [_around(np.concatenate([path, mark])) for path, mark in zip((a, b), marks, strict=True)]
    if numerical is not None:
        loss = _data_loss(estimate, numerical, names, axes, site)
        # Levels are equidistant in the logarithm: valleys show.
        height = np.log10(loss - np.nanmin(loss) + 1)
        ax.contour(*axes, height.T, levels=15, linewidths=0.8, cmap="Greys")
        ax.plot([], [], color="0.6", linewidth=0.8, label="data loss")
    ax.plot(a, b, "-", color=COLOURS[0], linewidth=1.2, label="descent")
    ax.plot(a[:1], b[:1], "o", color=COLOURS[0], label="start")
    found = [[float(estimate.values[name])] for name in names]
    ax.plot(*found, "*", color=COLOURS[1], ms=11, linestyle="none", label="estimate")
    if known:
        ax.plot(*marks, "x", color=INK, label="truth")
    across, up = (labelled(name, plan.file.units) for name in names)
    ax.set(xlabel=across, ylabel=up)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _around(values: np.ndarray) -> np.ndarray:
    """An interval that holds the values, with room about them."""
    low, high = float(np.min(values)), float(np.max(values))
    room = 0.15 * (high - low) or 0.1 * (abs(high) or 1)
    # A parameter that is positive along the whole way keeps its sign.
    floor = low / 2 if low > 0 else -np.inf
    return np.linspace(max(low - room, floor), high + room, CONTOURS)


def _data_loss(estimate: Estimate, numerical: Any, names, axes, site: str) -> np.ndarray:
    """Negative log likelihood by the numerical operator on the grid of two parameters."""
    objective = estimate.objective
    model = replace_operator(objective.model, {site: numerical})
    others = {n: jnp.asarray(v) for n, v in estimate.values.items() if n not in names}

    def loss(pair):
        values = {**others, **dict(zip(names, pair, strict=True))}
        substituted = handlers.substitute(model, data=values)
        terms, trace = compute_log_probs(substituted, objective.args, objective.kwargs, {})
        sites = {n: s for n, s in trace.items() if s["type"] == "sample"}
        return -sum(terms[name] for name in data_sites(sites))

    pairs = np.stack([c.ravel() for c in np.meshgrid(*axes, indexing="ij")], axis=1)
    losses = jax.jit(lambda p: jax.lax.map(loss, p))(jnp.asarray(pairs))
    return np.asarray(losses).reshape(CONTOURS, CONTOURS)


def _local(
    plan: Plan, operator: AbstractSolutionOperator, numerical: Any, names: list[str]
) -> Drawn:
    """u(x, theta0 +- delta; W) at the pretrained weights, against the numerical solutions there."""
    points, s, along, where = section(plan.file.problem)
    axes = _panels(len(names[:4]))
    start: dict[str, Any] = {
        n: v if callable(v) else jnp.asarray(v, float) for n, v in plan.file.start.items()
    }

    @jax.jit
    def at(theta):
        u = operator.unsolved(theta)
        assert u is not None
        return jax.vmap(u)(jnp.asarray(points))

    for ax, name in zip(axes, names, strict=False):
        size = start[name] if start[name] != 0 else jnp.ones(())
        for factor, colour in zip((-DELTA, 0.0, DELTA), COLOURS, strict=False):
            theta = {**start, name: start[name] + factor * size}
            ax.plot(s, at(theta), color=colour, label=f"{float(theta[name]):.3g}")
            if numerical is not None:
                u = numerical_solution(numerical, theta, points)
                label = "numerical" if factor > 0 else None
                ax.plot(s, u, "--", color=INK, linewidth=1, label=label)
        ax.set_xlabel(labelled(along, plan.file.units))
        ax.set_title(f"{name}: network {where}".strip(), fontsize="small")
        ax.legend(frameon=False, fontsize="small")
    return axes

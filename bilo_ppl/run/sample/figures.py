"""The figures of a run."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from numpyro.distributions import Normal

from bilo_ppl.diagnostics import solution_draws, summary
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.diagnostics.inner import map_spaced
from bilo_ppl.pde.problem import Problem
from bilo_ppl.plots import (
    INK,
    plot_inner_steps,
    plot_intervals,
    plot_pairs,
    plot_posterior,
    plot_replicas,
    plot_solution_band,
    plot_trace,
)
from bilo_ppl.plots._style import legend_above
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.handlers import given_solution
from bilo_ppl.ppl.look import look_at
from bilo_ppl.ppl.prior_density import prior_density
from bilo_ppl.run.own_figures import of_draws
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.residuals import draw_residuals
from bilo_ppl.run.sample.maps import draw_maps
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.sample.table import least_known
from bilo_ppl.validation.posterior_grid import GridPosterior

__all__ = ["draw_posterior_figures"]

MAX_POSTERIORS = 12
BAND_POINTS, BAND_DRAWS = 201, 200

PROBES = (0.7, -0.5)
"""Slopes of functions in the place of u, by which data that are values of u are known."""

SAME = 1e-4
"""What rounding may be off by."""


def draw_posterior_figures(
    plan: Plan[SampleSettings],
    model: Callable,
    idata: Any,
    exact: GridPosterior | None,
    tolerance: float | None,
) -> Iterator[tuple[str, Drawn]]:
    """Draw the figures one by one; gives name and figure."""
    samples = {name: v.values for name, v in idata["posterior"].data_vars.items()}
    yield from _posteriors(plan, model, samples, exact)
    yield from _pairs(plan, samples)
    yield from _vectors(plan, idata, samples)
    worst = least_known(summary(idata), MAX_POSTERIORS)
    scalars = scalar_draws(samples)
    yield (
        "trace",
        plot_trace({name: scalars[name] for name in worst}, of=len(scalars), units=plan.file.units),
    )
    if plan.file.problem.domain.dimension == 1:
        yield from _bands(plan, model, samples)
    yield from draw_maps(plan, model, samples)
    yield from draw_residuals(plan, model, samples, tolerance)
    yield from of_draws(plan, model, samples)
    yield from _replicas(plan, idata)
    stats = idata["sample_stats"]
    if tolerance is not None and "inner_steps" in stats:
        yield (
            "inner_steps",
            plot_inner_steps(stats["inner_steps"].values, stats["inner_loss"].values, tolerance),
        )


def _posteriors(plan: Plan, model: Callable, samples, exact) -> Iterator[tuple[str, Drawn]]:
    few = {name: draws for name, draws in samples.items() if not _is_long(draws)}
    scalars = list(scalar_draws(few).items())[:MAX_POSTERIORS]
    truth, data = plan.file.truth if plan.settings.data is None else None, plan.observations
    for name, draws in scalars:
        marginal = exact.marginal(name) if exact is not None and name in exact.names else None
        true = (truth or {}).get(name)
        true = None if true is None or np.ndim(true) else float(true)
        label = "posterior" if len(scalars) == 1 else f"posterior_{name}"
        prior = partial(prior_density, model, data.model_args, data.model_kwargs, name)
        yield label, plot_posterior(draws, name, marginal, true, prior, units=plan.file.units)


def _pairs(plan: Plan, samples) -> Iterator[tuple[str, Drawn]]:
    """Where there are several unknowns, but not too many to see anything."""
    few = {name: draws for name, draws in samples.items() if not _is_long(draws)}
    if len(scalar_draws(few)) > 1:
        truth = plan.file.truth if plan.settings.data is None else None
        yield "pair", plot_pairs(few, truth, units=plan.file.units)


def _is_long(draws: Any) -> bool:
    """Whether a site has more entries than there are figures for."""
    return int(np.prod(np.shape(draws)[2:])) > MAX_POSTERIORS


def _vectors(plan: Plan, idata: Any, samples) -> Iterator[tuple[str, Drawn]]:
    """Sites of many entries, all in one figure each."""
    truth = (plan.file.truth or {}) if plan.settings.data is None else {}
    before = idata["prior"].data_vars if "prior" in list(idata) else {}
    for name, draws in samples.items():
        if _is_long(draws):
            true = truth.get(name)
            known = true is not None and np.shape(true) == np.shape(draws)[2:]
            true, prior = true if known else None, before[name].values if name in before else None
            ax = plot_intervals(draws, name, true, prior, units=plan.file.units)
            yield f"posterior_{name}", ax


def _replicas(plan: Plan, idata: Any) -> Iterator[tuple[str, Drawn]]:
    """Where data were replicated at the draws."""
    if "posterior_predictive" not in list(idata):
        return
    replicas = idata["posterior_predictive"].data_vars
    for name, values in replicas.items():
        label = "predictive" if len(replicas) == 1 else f"predictive_{name}"
        data = idata["observed_data"][name].values
        yield label, plot_replicas(data, values.values, str(name), units=plan.file.units)


def _bands(plan: Plan, model: Callable, samples: dict) -> Iterator[tuple[str, Drawn]]:
    """The solution over the interval, a figure for each solution site, or each of its experiments."""
    problem = plan.file.problem
    x, (coordinate,) = problem.domain.grid(BAND_POINTS), problem.domain.coordinates
    # Data of another shape are not those of all components: which they are, only the model knows.
    of_system = problem.components > 1
    each = (problem.components,) if of_system else ()
    known = plan.by_values and plan.observations.y.shape[1:] == each
    data = plan.observations if known else None
    truth = None
    if plan.file.exact is not None and plan.settings.data is None:
        truth = (x, np.asarray(jax.vmap(plan.file.exact)(x)))
    for site in plan.solutions:
        u = solution_draws(
            model,
            samples,
            x,
            *plan.observations.model_args,
            site=site,
            max_draws=BAND_DRAWS,
            accept_unconverged=plan.settings.accept_unconverged,
            **plan.observations.model_kwargs,
        )
        label = "solution" if len(plan.solutions) == 1 else f"solution_{site}"
        if u.ndim == 3 + of_system:
            # Which data are those of which experiment, only the model knows.
            for i in range(min(u.shape[1], MAX_POSTERIORS)):
                labels = {"name": f"{site}[{i}]", "coordinate": coordinate}
                of_one = plot_solution_band(x, u[:, i], **labels, units=plan.file.units)
                yield f"{label}_{i}", of_one
            continue
        points = data and (data.x, data.y, data.sigma if plan.has_noise_sd else None)
        names = problem.component_names if of_system else ()
        labels: dict[str, Any] = {"name": site, "coordinate": coordinate, "components": names}
        labels["units"] = plan.file.units
        noise = noise_of_values(plan, model, samples, site) if known else None
        ax = plot_solution_band(x, u, points, truth, noise=noise, **labels)
        if not plan.by_values:
            _rug(ax, plan.observations.x)
        yield label, ax


def noise_of_values(
    plan: Plan, model: Callable, samples: Mapping[str, Any], site: str
) -> np.ndarray | None:
    """The sd of normal noise at the draws of a band, ``(draws, components)``.

    NaN for a component without data; None where the data y are no plain values of this solution, or their
    noise is not the same at all points. Nothing is solved: the model is run with known functions in the
    place of u.
    """
    problem, data = plan.file.problem, plan.observations
    x, y = np.asarray(data.x), np.asarray(data.y, float)
    there = ~np.isnan(y)
    columns = there.reshape(len(x), -1)

    def seen(sample):
        """By site: what mean and data are off by, and the least and largest sd of the components."""
        found: dict[str, list] = {}
        for slope in PROBES:
            probe = partial(_probe, problem, slope)
            probed = given_solution(model, {site: probe})
            look = look_at(probed, data.model_args, data.model_kwargs, values=sample)
            u = jax.vmap(probe)(jnp.asarray(x))
            for name, one in look.observed.items():
                fn = innermost(one["fn"])
                if not isinstance(fn, Normal) or np.shape(one["value"]) != y.shape:
                    continue
                mean, sd = (jnp.broadcast_to(jnp.asarray(p), y.shape) for p in (fn.loc, fn.scale))
                off = jnp.maximum(jnp.abs(mean - u), jnp.abs(one["value"] - y))
                sd = sd.reshape(columns.shape)
                least = jnp.min(sd, axis=0, where=columns, initial=jnp.inf)
                largest = jnp.max(sd, axis=0, where=columns, initial=-jnp.inf)
                off = jnp.max(off, where=there, initial=0.0)
                found.setdefault(name, []).append((off, least, largest))
        return found

    for looks in map_spaced(seen, samples, BAND_DRAWS, 2, 16).values():
        off, least, largest = (np.stack(part) for part in zip(*looks, strict=True))
        sd = least.min(axis=0)
        if off.max() < SAME and (largest.max(axis=0) <= (1 + SAME) * sd).all():
            return np.where(np.isfinite(sd), sd, np.nan)
    return None


def _probe(problem: Problem, slope: float, x: Any) -> Any:
    """A function of a point that is not constant, and another one for each component."""
    lower, upper = np.array(problem.domain.lower), np.array(problem.domain.upper)
    value = 1.3 + slope * jnp.sum((x - lower) / (upper - lower))
    return value + jnp.arange(problem.components) if problem.components > 1 else value


def _rug(ax: Axes, x: np.ndarray) -> None:
    """Points that are the data themselves, as ticks at the foot of a figure."""
    strength = float(np.clip(100 / len(x), 0.03, 0.8))
    foot = ax.get_xaxis_transform()
    ax.vlines(x[:, 0], 0.0, 0.05, color=INK, linewidth=0.6, alpha=strength, transform=foot)
    # The ticks are pale where they are many: an entry of the legend would not be seen.
    ax.plot([], [], "|", color=INK, label="data")
    legend_above(ax, columns=2)

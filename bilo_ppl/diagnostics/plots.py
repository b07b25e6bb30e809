"""Figures of results: posterior against a reference, solution band, traces, inner steps.

Every function returns a `matplotlib.figure.Figure` made without pyplot, so that nothing is global
and nothing needs a display; `save_figure` writes it. Matplotlib is imported with this module only.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bilo_ppl._files import replacing
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.diagnostics._style import COLOURS, INK, legend_above, new_figure
from bilo_ppl.diagnostics.pairs import plot_pairs
from bilo_ppl.diagnostics.ranks import plot_ranks
from bilo_ppl.diagnostics.replicas import plot_replicas
from bilo_ppl.diagnostics.solution_band import plot_solution_band

__all__ = [
    "COLOURS",
    "INK",
    "plot_inner_steps",
    "plot_pairs",
    "plot_posterior",
    "plot_ranks",
    "plot_replicas",
    "plot_solution_band",
    "plot_trace",
    "save_figure",
]

MAX_ROWS = 12


def _chains(draws: Any, what: str) -> np.ndarray:
    draws = np.asarray(draws)
    if draws.ndim != 2 or draws.size == 0:
        raise ValueError(f"{what} must be (chains, draws) and not empty, got shape {draws.shape}.")
    return draws


def plot_posterior(
    draws: Any,
    name: str,
    reference: tuple[Any, Any] | None = None,
    truth: float | None = None,
    prior: Callable[[np.ndarray], np.ndarray | None] | None = None,
) -> Figure:
    """Histogram of the draws ``(chains, draws)`` of a scalar as a density, with their 90 % interval.

    ``reference`` is a grid ``(n,)`` and the density on it ``(n,)``, as from
    ``GridPosterior.marginal``. ``prior`` gives the density of the prior at values ``(n,)``, or None where
    it has none. Raises a ``ValueError`` for other shapes, or draws that are not
    finite.

    Examples:
        >>> from bilo_ppl.diagnostics.plots import plot_posterior
        >>> figure = plot_posterior(draws["r"], "r", truth=9.0)
        >>> figure.axes[0].get_xlabel()
        'r'
    """
    draws = _chains(draws, "plot_posterior: draws").ravel()
    if not np.isfinite(draws).all():
        raise ValueError(f"plot_posterior: {(~np.isfinite(draws)).sum()} draws are not finite.")
    figure, (ax,) = new_figure()
    bins = int(np.clip(2 * draws.size**0.4, 12, 60))
    label = f"{draws.size} draws, {_moments(draws.mean(), draws.std())}"
    style = {"color": COLOURS[0], "alpha": 0.35, "edgecolor": "white", "linewidth": 0.5}
    ax.hist(draws, bins=bins, density=True, label=label, **style)
    low, high = np.quantile(draws, [0.05, 0.95])
    interval = {"color": COLOURS[0], "linestyle": ":", "linewidth": 1.4}
    ax.axvline(low, label=f"5 to 95 %: {low:.4g} to {high:.4g}", **interval)
    ax.axvline(high, **interval)
    if reference is not None:
        _reference_line(ax, reference, draws)
    if prior is not None:
        _prior_line(ax, prior)
    if truth is not None:
        ax.axvline(
            truth, color=COLOURS[1], linestyle="--", linewidth=1.6, label=f"truth {truth:.4g}"
        )
    ax.set(xlabel=name, ylabel="posterior density")
    legend_above(ax, columns=2)
    return figure


def _prior_line(ax: Axes, prior: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Over what is shown of the posterior, which it does not change."""
    limits, top = ax.get_xlim(), ax.get_ylim()[1]
    x = np.linspace(*limits, 200)
    density = prior(x)
    if density is not None:
        ax.plot(x, density, color=COLOURS[2], linestyle="-.", linewidth=1.4, label="prior")
        ax.set(xlim=limits, ylim=(0, top))


def _moments(mean: float, sd: float) -> str:
    return f"mean {mean:.4g}, sd {sd:.3g}"


def _reference_line(ax: Axes, reference: tuple[Any, Any], draws: np.ndarray) -> None:
    x, density = (np.asarray(part, dtype=float) for part in reference)
    if x.ndim != 1 or x.shape != density.shape or len(x) < 2:
        raise ValueError(
            f"plot_posterior: reference is (x, density), both (n,), not {x.shape}, {density.shape}."
        )
    mass = np.trapezoid(density, x)
    mean = float(np.trapezoid(x * density, x) / mass)
    sd = float(np.sqrt(np.trapezoid((x - mean) ** 2 * density, x) / mass))
    ax.plot(x, density / mass, color=INK, linewidth=1.8, label=f"reference, {_moments(mean, sd)}")
    # A reference grid may reach far beyond the mass.
    low, high = min(draws.min(), mean - 4 * sd), max(draws.max(), mean + 4 * sd)
    ax.set_xlim(max(low, min(x[0], draws.min())), min(high, max(x[-1], draws.max())))


def plot_trace(draws: Mapping[str, Any], warmup: int = 0, of: int | None = None) -> Figure:
    """Traces of every scalar in ``draws`` (``(chains, draws, ...)`` by name), one colour a chain.

    The first ``warmup`` draws of each chain are marked as warm-up. At most 12 scalars are drawn,
    and the title says how many there are; where they are those of ``of`` scalars that have the fewest
    effective draws, it says that. Raises a ``ValueError`` if there are no draws.

    Examples:
        >>> from bilo_ppl.diagnostics.plots import plot_trace
        >>> figure = plot_trace(draws, warmup=20)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['r']
    """
    scalars = scalar_draws(draws)
    if not scalars:
        raise ValueError("plot_trace: there are no draws.")
    shown = dict(list(scalars.items())[:MAX_ROWS])
    height = 1.2 + 1.5 * len(shown)
    figure, axes = new_figure(len(shown), height=height, sharex=True)
    for ax, (name, values) in zip(axes, shown.items(), strict=True):
        for chain, trace in enumerate(values):
            style = {"color": COLOURS[chain % len(COLOURS)], "linewidth": 0.6, "alpha": 0.7}
            ax.plot(trace, label=f"chain {chain}" if chain < len(COLOURS) else None, **style)
        if warmup:
            ax.axvspan(0, warmup, color="0.5", alpha=0.15, linewidth=0, label="warm-up")
            ax.axvline(warmup, color="0.4", linestyle=":", linewidth=1.2)
        ax.set_ylabel(name)
        ax.margins(x=0.01)
    axes[-1].set_xlabel("draw")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    legend_above(axes[0], columns=5)
    if of is not None and of > len(shown):
        title = f"the {len(shown)} of {of} parameters with the fewest effective draws"
        figure.suptitle(title, fontsize="medium")
    elif len(scalars) > MAX_ROWS:
        figure.suptitle(f"the first {MAX_ROWS} of {len(scalars)} parameters", fontsize="medium")
    return figure


def plot_inner_steps(inner_steps: Any, loss: Any, tolerance: float) -> Figure:
    """Inner steps, and final loss against the tolerance, of every draw: ``(chains, draws)``.

    Steps of different chains are set a little apart, so that none is hidden. Losses above the
    tolerance are marked and counted. On the logarithmic axis a loss of zero lies at the lower edge,
    one that is not finite at the upper. Raises a ``ValueError`` for arrays of two shapes.

    Examples:
        >>> from bilo_ppl.diagnostics.plots import plot_inner_steps
        >>> steps, losses = np.array([[0, 1, 2]]), np.array([[1e-8, 1e-7, 1e-7]])  # (chains, draws)
        >>> figure = plot_inner_steps(steps, losses, tolerance=1e-6)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['inner steps', 'final loss']
    """
    steps = _chains(inner_steps, "plot_inner_steps: inner_steps")
    loss = _chains(loss, "plot_inner_steps: loss")
    if steps.shape != loss.shape:
        raise ValueError(
            f"plot_inner_steps: inner_steps has shape {steps.shape}, but loss {loss.shape}."
        )
    figure, (top, bottom) = new_figure(2, height=5.0, sharex=True)
    number, drawn = np.arange(steps.shape[1]), _on_log_axis(loss, tolerance)
    apart = np.linspace(-0.15, 0.15, len(steps)) if len(steps) > 1 else np.zeros(1)
    for chain in range(len(steps)):
        style = {"s": 9, "color": COLOURS[chain % len(COLOURS)], "alpha": 0.6, "linewidths": 0}
        top.scatter(number, steps[chain] + apart[chain], **style)
        bottom.scatter(number, drawn[chain], **style)
    share = f"{steps.mean():.3g} inner steps per draw, none for {np.mean(steps == 0):.0%}"
    top.set_title(share, fontsize="medium", loc="left")
    top.set_ylabel("inner steps")
    # Room for whole numbers, also where all steps are the same.
    top.set_ylim(steps.min() - 0.5, max(steps.max(), steps.min() + 1) + 0.5)
    for axis in (top.xaxis, top.yaxis):
        axis.get_major_locator().set_params(integer=True)
    bottom.axhline(
        tolerance, color=INK, linestyle="--", linewidth=1.4, label=f"tolerance {tolerance:.3g}"
    )
    missed = ~(loss <= tolerance)
    if missed.any():
        label = f"above tolerance: {missed.sum()} of {loss.size}"
        where = np.broadcast_to(number, loss.shape)[missed]
        bottom.scatter(where, drawn[missed], marker="x", s=28, color="#C00000", label=label)
    bottom.set(xlabel="draw", ylabel="final loss", yscale="log")
    legend_above(bottom, columns=2)
    return figure


def _on_log_axis(loss: np.ndarray, tolerance: float) -> np.ndarray:
    """Losses with zeros and values that are not finite put at the edges."""
    inside = np.append(loss[np.isfinite(loss) & (loss > 0)], tolerance)
    high = np.where(np.isfinite(loss), loss, 10 * inside.max())
    return np.where(high > 0, high, inside.min() / 10)


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> pathlib.Path:
    """Write a figure, whole or not at all; the suffix (.png, .pdf, .svg) gives the format.

    Examples:
        >>> from bilo_ppl.diagnostics.plots import plot_trace, save_figure
        >>> save_figure(plot_trace(draws), folder / "trace.png").name
        'trace.png'
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return pathlib.Path(path)

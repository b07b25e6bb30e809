"""The posterior of a number: its draws beside the prior, a reference and the truth."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bilo_ppl._units import labelled
from bilo_ppl.diagnostics._draws import of_chains
from bilo_ppl.plots._style import COLOURS, INK, ax_for, legend_above

__all__ = ["plot_posterior"]


def plot_posterior(
    draws: Any,
    name: str,
    reference: tuple[Any, Any] | None = None,
    truth: float | None = None,
    prior: Callable[[np.ndarray], np.ndarray | None] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Histogram of the draws ``(chains, draws)`` of a scalar as a density, with their 90 % interval.

    ``reference`` is a grid ``(n,)`` and the density on it ``(n,)``, as from
    ``GridPosterior.marginal``. ``prior`` gives the density of the prior at values ``(n,)``, or None where
    it has none. Raises a ``ValueError`` for other shapes, or draws that are not finite.

    Examples:
        >>> from bilo_ppl.plots import plot_posterior
        >>> ax = plot_posterior(draws["r"], "r", truth=9.0, units={"r": "1/day"})
        >>> ax.get_xlabel()
        'r (1/day)'
    """
    draws = of_chains(draws, "plot_posterior: draws").ravel()
    if not np.isfinite(draws).all():
        raise ValueError(f"plot_posterior: {(~np.isfinite(draws)).sum()} draws are not finite.")
    ax = ax_for(ax, "plot_posterior")
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
    ax.set(xlabel=labelled(name, units), ylabel="density")
    legend_above(ax, columns=2)
    return ax


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

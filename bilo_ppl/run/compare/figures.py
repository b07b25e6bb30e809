"""One figure with all posteriors: a panel for each unknown, a line and an interval for each method."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bilo_ppl._units import labelled
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.plots._style import COLOURS, INK, legend_above, new_axes
from bilo_ppl.plots.figure_file import Drawn
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.scores import Exact

__all__ = ["draw_posteriors"]

MOST = 8
"""Unknowns that are shown."""

DASHES = ("-", "--", "-.", ":")
APART = 0.06
"""Of the height of the densities: from one interval to the next."""

INTERVAL = (0.05, 0.5, 0.95)
FAR = 8.0
"""Exact standard deviations beyond which an axis does not reach."""


def draw_posteriors(
    outcomes: Mapping[str, Outcome],
    exact: Exact,
    truth: Mapping[str, Any],
    units: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Drawn]]:
    """The figure, if there is an unknown that is a number."""
    names: list[str] = []
    for outcome in outcomes.values():
        names += [n for n in scalar_draws(_as_draws(outcome)) if n not in names]
    names = names[:MOST]
    if not names:
        return
    axes = new_axes(len(names), size=(7.2, 1.4 + 2.4 * len(names)))[:, 0]
    for ax, name in zip(axes, names, strict=True):
        _panel(ax, name, outcomes, exact, truth)
        ax.set_xlabel(labelled(name, units))
    told: set[str] = set()
    for ax in axes:
        # Methods that lack the first unknown are told where they are, and estimates off the axis.
        labels = set(ax.get_legend_handles_labels()[1])
        if labels - told:
            legend_above(ax, columns=4)
            told |= labels
    yield "posteriors", axes


def _as_draws(outcome: Outcome) -> dict[str, Any]:
    """Draws, or the estimate as one draw of one chain."""
    return dict(outcome.samples) or {
        n: np.asarray(v)[None, None] for n, v in outcome.values.items()
    }


def _panel(ax, name, outcomes, exact, truth) -> None:
    low, high = np.inf, -np.inf
    estimates, intervals = [], []
    moments = exact.moments(name)
    for number, (method, outcome) in enumerate(outcomes.items()):
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
            "label": method,
        }
        draws = scalar_draws(_as_draws(outcome)).get(name)
        if draws is None:
            continue
        draws = np.ravel(draws)
        low, high = min(low, draws.min()), max(high, draws.max())
        if len(draws) == 1 or np.ptp(draws) == 0:
            estimates.append((draws[0], ax.axvline(draws[0], linewidth=1.2, **style)))
            continue
        bins = int(np.clip(2 * len(draws) ** 0.4, 12, 60))
        density, edges = np.histogram(draws, bins=bins, density=True)
        ax.stairs(density, edges, linewidth=1.4, **style)
        intervals.append((np.quantile(draws, INTERVAL), style))
    if exact.grid is not None and name in exact.grid.names:
        x, density = exact.grid.marginal(name)
        ax.plot(x, density, color=INK, linewidth=1.8, label="exact", zorder=1)
        intervals.append((exact.grid.quantile(name, INTERVAL), {"color": INK}))
    true = truth.get(name)
    if true is not None and np.ndim(true) == 0 and not callable(true):
        ax.axvline(float(true), color="0.5", linestyle=":", label="truth")
    if moments is not None:
        mean, sd = moments
        low, high = max(low, mean - FAR * sd), min(high, mean + FAR * sd)
        low, high = min(low, mean - 4 * sd), max(high, mean + 4 * sd)
    if low < high:
        ax.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        for value, line in estimates:
            if not low <= value <= high:
                line.set_label(f"{line.get_label()} ({value:.3g})")
    _bars(ax, intervals)
    ax.set_ylabel("density")


def _bars(ax: Any, intervals: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """Intervals and medians, one below the other at the foot, in the order of the legend."""
    if not intervals:
        return
    top = ax.get_ylim()[1]
    ticks = [tick for tick in ax.get_yticks() if 0 <= tick <= top]
    for number, ((low, middle, high), style) in enumerate(intervals, start=1):
        line, height = {**style, "label": None}, -number * APART * top
        ax.plot([low, high], [height, height], linewidth=2.2, **line)
        ax.plot(middle, height, "o", color=line["color"], markeredgecolor="white", markersize=5)
    ax.plot([], [], "-o", color="0.5", markersize=4, label="5 to 95 %, median")
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.set_ylim(-(len(intervals) + 0.7) * APART * top, top)
    ax.set_yticks(ticks)

"""The entries of a vector side by side: what is known of each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bilo_ppl._units import labelled
from bilo_ppl.plots._style import COLOURS, INK, ax_for, legend_above

__all__ = ["plot_intervals"]

WIDER = 0.5
"""Of the height of the posterior: how far a prior is shown beyond it, above and below."""


def plot_intervals(
    draws: Any,
    name: str,
    truth: Any = None,
    prior: Any = None,
    *,
    units: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Median, and intervals of 50 and 90 %, of every entry of draws ``(chains, draws, ...)``.

    Entries of an array are numbered along its last axis first. ``truth`` has the shape of one draw.
    ``prior`` are draws ``(chains, draws, ...)`` of the prior, whose intervals of 90 % stand behind: as
    far as those of the posterior reach, and half of that beyond. Raises a ``ValueError`` for draws of a
    scalar, or a truth or prior of another shape.

    >>> from bilo_ppl.plots import plot_intervals
    >>> rates = np.stack([draws["r"], draws["r"] + 1], axis=-1)  # (chains, draws, 2)
    >>> plot_intervals(rates, "r", truth=[9.0, 10.0]).get_xlabel()
    'entry of r'
    """
    draws = np.asarray(draws, float)
    if draws.ndim < 3 or draws.size == 0:
        raise ValueError(
            f"plot_intervals: draws of {name} must be (chains, draws, ...) and not empty, got shape "
            f"{draws.shape}."
        )
    if truth is not None and np.shape(truth) != draws.shape[2:]:
        raise ValueError(
            f"plot_intervals: the truth of {name} has shape {np.shape(truth)}, a draw {draws.shape[2:]}."
        )
    if prior is not None and np.shape(prior)[2:] != draws.shape[2:]:
        raise ValueError(
            f"plot_intervals: draws of the prior of {name} have shape {np.shape(prior)}; one of them "
            f"must have that of a draw, {draws.shape[2:]}."
        )
    rows = draws.reshape(-1, int(np.prod(draws.shape[2:])))
    number = np.arange(rows.shape[1])
    low, first, middle, last, high = np.quantile(rows, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    size = (float(np.clip(0.13 * len(number), 6.4, 14.0)), 3.6)
    ax = ax_for(ax, "plot_intervals", size)
    ax.vlines(number, low, high, color=COLOURS[0], linewidth=1.2, label="5 to 95 %")
    ax.vlines(number, first, last, color=COLOURS[0], linewidth=3.2, label="25 to 75 %")
    ax.plot(number, middle, "o", color="white", markeredgecolor=COLOURS[0], ms=3.5, label="median")
    if truth is not None:
        ax.plot(number, np.ravel(truth), "x", color=COLOURS[1], ms=5, label="truth")
    if prior is not None:
        _prior_bars(ax, np.asarray(prior, float).reshape(-1, len(number)))
    ax.axhline(0, color=INK, linewidth=0.6, label="zero")
    ax.set(xlabel=f"entry of {name}", ylabel=labelled(name, units))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.01)
    legend_above(ax, columns=5)
    return ax


def _prior_bars(ax: Axes, rows: np.ndarray) -> None:
    """Behind the posterior, which they must not make small."""
    low, high = np.quantile(rows, [0.05, 0.95], axis=0)
    least, largest = ax.get_ylim()
    room = WIDER * (largest - least)
    style = {"color": COLOURS[2], "alpha": 0.25, "linewidth": 5, "zorder": 0}
    ax.vlines(np.arange(len(low)), low, high, label="prior, 5 to 95 %", **style)
    bottom, top = max(low.min(), least - room), min(high.max(), largest + room)
    ax.set_ylim(min(least, bottom), max(largest, top))

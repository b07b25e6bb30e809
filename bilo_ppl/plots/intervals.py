"""The entries of a vector side by side: what is known of each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bilo_ppl._units import labelled
from bilo_ppl.plots._style import COLOURS, INK, ax_for, legend_above

__all__ = ["plot_intervals"]


def plot_intervals(
    draws: Any,
    name: str,
    truth: Any = None,
    *,
    units: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Median, and intervals of 50 and 90 %, of every entry of draws ``(chains, draws, ...)``.

    Entries of an array are numbered along its last axis first. ``truth`` has the shape of one draw.
    Raises a ``ValueError`` for draws of a scalar, or a truth of another shape.

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
    ax.axhline(0, color=INK, linewidth=0.6, label="zero")
    ax.set(xlabel=f"entry of {name}", ylabel=labelled(name, units))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.01)
    legend_above(ax, columns=5)
    return ax

"""Unknowns against each other: what the data cannot tell apart shows as a ridge."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.diagnostics._style import COLOURS

__all__ = ["MOST", "plot_pairs"]

MOST = 6
"""Scalars that are drawn at most."""

SHOWN = 2000
"""Points in a panel, evenly spaced among the draws."""


def plot_pairs(draws: Mapping[str, Any], truth: Mapping[str, Any] | None = None) -> Figure:
    """Every two of the scalars in ``draws`` (``(chains, draws, ...)`` by name) against each other.

    Below the diagonal are points, on it histograms; the first 6 scalars are drawn. ``truth`` has numbers
    by name, drawn as lines. The correlation of two stands in their panel. Raises a ``ValueError`` for
    fewer than two scalars.

    >>> from bilo_ppl.diagnostics.plots import plot_pairs
    >>> figure = plot_pairs({"r": draws["r"], "s": 2 * draws["r"]}, {"r": 9.0})
    >>> [label for ax in figure.axes if (label := ax.get_ylabel())]
    ['s']
    """
    scalars = {name: np.asarray(values).ravel() for name, values in scalar_draws(draws).items()}
    if len(scalars) < 2:
        raise ValueError(f"plot_pairs: two or more scalars are needed, not {list(scalars)}.")
    names, number = list(scalars)[:MOST], min(len(scalars), MOST)
    figure = Figure(figsize=(1.2 + 1.7 * number, 1.0 + 1.6 * number), layout="constrained")
    axes = figure.subplots(number, number, squeeze=False)
    for row, below in enumerate(names):
        for column, name in enumerate(names):
            ax = axes[row, column]
            if column > row:
                ax.set_axis_off()
                continue
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize="small", labelbottom=row == number - 1)
            x, y = _finite(scalars[name], scalars[below])
            _line(ax.axvline, truth, name)
            if column == row:
                ax.hist(x, bins=30, color=COLOURS[0], alpha=0.5)
                ax.set_yticks([])
            else:
                ax.tick_params(labelleft=column == 0)
                kept = np.unique(np.linspace(0, len(x) - 1, SHOWN).astype(int))
                ax.scatter(x[kept], y[kept], s=3, alpha=0.25, color=COLOURS[0], linewidths=0)
                _line(ax.axhline, truth, below)
                where = {"transform": ax.transAxes, "ha": "right", "va": "top"}
                ax.text(0.98, 0.98, f"{np.corrcoef(x, y)[0, 1]:+.2f}", fontsize="small", **where)
            if row == number - 1:
                ax.set_xlabel(name)
            if column == 0 and row:
                ax.set_ylabel(below)
    if len(scalars) > MOST:
        figure.suptitle(f"the first {MOST} of {len(scalars)} unknowns", fontsize="medium")
    return figure


def _finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(x) & np.isfinite(y)
    return x[there], y[there]


def _line(draw: Any, truth: Mapping[str, Any] | None, name: str) -> None:
    value = (truth or {}).get(name)
    if value is not None and np.ndim(value) == 0:
        draw(float(value), color=COLOURS[1], linestyle="--", linewidth=1.2)

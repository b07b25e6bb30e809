"""Unknowns against each other: what the data cannot tell apart shows as a ridge."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bilo_ppl._units import labelled
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.plots._style import COLOURS, axes_for

__all__ = ["MOST", "plot_pairs"]

MOST = 6
"""Scalars that are drawn at most."""

SHOWN = 2000
"""Points in a panel, evenly spaced among the draws."""


def plot_pairs(
    draws: Mapping[str, Any],
    truth: Mapping[str, Any] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    axes: Any = None,
) -> np.ndarray:
    """Every two of the scalars in ``draws`` (``(chains, draws, ...)`` by name) against each other.

    Below the diagonal are points, on it histograms with their 90 % interval; the first 6 scalars are
    drawn. ``truth`` has numbers by name, drawn as lines. The correlation of two stands in their panel.
    Returns the axes ``(scalars, scalars)``, of which those above the diagonal are empty but for the
    legend. Raises a ``ValueError`` for fewer than two scalars.

    >>> from bilo_ppl.plots import plot_pairs
    >>> axes = plot_pairs({"r": draws["r"], "s": 2 * draws["r"]}, {"r": 9.0})
    >>> axes[1, 0].get_xlabel(), axes[1, 0].get_ylabel()
    ('r', 's')
    """
    scalars = {name: np.asarray(values).ravel() for name, values in scalar_draws(draws).items()}
    if len(scalars) < 2:
        raise ValueError(f"plot_pairs: two or more scalars are needed, not {list(scalars)}.")
    names, number = list(scalars)[:MOST], min(len(scalars), MOST)
    size = (1.2 + 1.7 * number, 1.0 + 1.6 * number)
    drawn = axes_for(axes, (number, number), "plot_pairs", size)
    for row, below in enumerate(names):
        for column, name in enumerate(names):
            ax = drawn[row, column]
            if column > row:
                ax.set_axis_off()
                continue
            ax.grid(False)
            ax.tick_params(labelsize="small", labelbottom=row == number - 1)
            x, y = _finite(scalars[name], scalars[below])
            _line(ax.axvline, truth, name)
            if column == row:
                ax.hist(x, bins=30, color=COLOURS[0], alpha=0.5, label="draws")
                ends = {"color": COLOURS[0], "linestyle": ":", "linewidth": 1.4}
                for end, label in zip(
                    np.quantile(x, [0.05, 0.95]), ("5 to 95 %", None), strict=True
                ):
                    ax.axvline(end, label=label, **ends)
                ax.set_yticks([])
            else:
                ax.tick_params(labelleft=column == 0)
                kept = np.unique(np.linspace(0, len(x) - 1, SHOWN).astype(int))
                ax.scatter(x[kept], y[kept], s=3, alpha=0.25, color=COLOURS[0], linewidths=0)
                _line(ax.axhline, truth, below)
                where = {"transform": ax.transAxes, "ha": "right", "va": "top"}
                ax.text(0.98, 0.98, f"{np.corrcoef(x, y)[0, 1]:+.2f}", fontsize="small", **where)
            if row == number - 1:
                ax.set_xlabel(labelled(name, units))
            if column == 0 and row:
                ax.set_ylabel(labelled(below, units))
    handles: dict[str, Any] = {}
    for ax in drawn.diagonal():
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    style = {"loc": "upper right", "frameon": False, "fontsize": "small"}
    drawn[0, -1].legend(handles.values(), handles, **style)
    if len(scalars) > MOST and axes is None:
        title = f"the first {MOST} of {len(scalars)} unknowns"
        drawn[0, 0].figure.suptitle(title, fontsize="medium")
    return drawn


def _finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(x) & np.isfinite(y)
    return x[there], y[there]


def _line(draw: Any, truth: Mapping[str, Any] | None, name: str) -> None:
    value = (truth or {}).get(name)
    if value is not None and np.ndim(value) == 0:
        draw(float(value), color=COLOURS[1], linestyle="--", linewidth=1.2, label="truth")

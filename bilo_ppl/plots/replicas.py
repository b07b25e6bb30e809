"""Data beside what the model predicts for them: replicated data, noise included."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bilo_ppl._units import labelled
from bilo_ppl.plots._style import COLOURS, FLAGGED, ax_for, legend_above

__all__ = ["plot_replicas"]

MANY = 60
"""Data beyond which only as many are drawn, evenly spaced in their order."""


def plot_replicas(
    data: Any,
    replicas: Any,
    name: str = "y",
    *,
    units: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Data ``(n, ...)`` over the 5 to 95 % intervals of replicas ``(chains, draws, n, ...)``.

    One after another in their order, as many as can be seen; those outside of their interval are marked,
    and counted among all: about a tenth is what should be. Missing data (NaN) are left out. Raises a
    ``ValueError`` for other shapes.

    >>> from bilo_ppl.plots import plot_replicas
    >>> noise = 0.02 * np.random.default_rng(0).normal(size=(2, 200, len(y)))
    >>> plot_replicas(y, np.asarray(y) + noise).get_title(loc="left")
    '0 of 10 data are outside of their 90 % interval'
    """
    data, replicas = np.asarray(data, float), np.asarray(replicas, float)
    if replicas.ndim < 2 or replicas.shape[2:] != data.shape or not data.size:
        raise ValueError(
            f"plot_replicas: replicas have shape {replicas.shape}; of data {data.shape} they must be "
            "(chains, draws, *data.shape)."
        )
    values, drawn = data.ravel(), replicas.reshape(-1, data.size)
    there = np.isfinite(values)
    values, drawn = values[there], drawn[:, there]
    low, middle, high = np.quantile(drawn, [0.05, 0.5, 0.95], axis=0)
    outside = (values < low) | (values > high)
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), MANY)).astype(int))
    ax = ax_for(ax, "plot_replicas")
    place = np.flatnonzero(there)[shown]
    bars = {"color": COLOURS[0], "alpha": 0.35, "linewidth": 4}
    ax.vlines(place, low[shown], high[shown], label="5 to 95 %", **bars)
    ax.scatter(place, middle[shown], marker="_", s=30, color=COLOURS[0], label="median")
    for mask, colour, marker, label in (
        (~outside[shown], COLOURS[1], "o", "data"),
        (outside[shown], FLAGGED, "X", "data outside"),
    ):
        if mask.any():
            style = {"s": 18, "color": colour, "marker": marker, "zorder": 3}
            ax.scatter(place[mask], values[shown][mask], label=label, **style)
    text = f"{outside.sum()} of {len(values)} data are outside of their 90 % interval"
    ax.set_title(text, fontsize="medium", loc="left", pad=22)
    ax.set(xlabel="datum", ylabel=labelled(name, units))
    legend_above(ax, columns=4)
    return ax

"""What all figures look like. Matplotlib is imported with this module only, and without pyplot."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "legend_above", "new_figure"]

# Okabe and Ito's colours, distinguishable with impaired colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#666666")
INK = "#222222"


def new_figure(rows: int = 1, height: float = 3.6, width: float = 6.4, **layout: Any):
    """A figure with panels below each other: the figure, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, **layout)[:, 0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def legend_above(ax: Axes, columns: int) -> None:
    """A legend that cannot hide data."""
    where = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    ax.legend(ncols=columns, frameon=False, fontsize="small", **where)

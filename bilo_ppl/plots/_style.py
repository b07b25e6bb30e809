"""What all figures look like, and where they are drawn. Made without pyplot: nothing is global."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "FLAGGED",
    "INK",
    "ax_for",
    "axes_for",
    "legend_above",
    "new_axes",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#666666")
"""Okabe and Ito's colours, distinguishable with impaired colour vision: of lines, in this order."""

INK = "#222222"
"""Of what is the same in all figures: exact values, outlines, text."""

FLAGGED = "#C00000"
"""What is not as it should be."""

SIZE = (6.4, 3.6)


def new_axes(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = SIZE, **layout: Any
) -> np.ndarray:
    """The axes ``(rows, columns)`` of a new figure; ``size`` is in inches."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **layout)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    return axes


def axes_for(
    given: Any,
    shape: tuple[int, int],
    function: str,
    size: tuple[float, float] = SIZE,
    **layout: Any,
) -> np.ndarray:
    """The axes that a caller gives, in this shape, or new ones; ``function`` is what they are given to.

    Raises a ``ValueError`` for another number of axes.
    """
    if given is None:
        return new_axes(*shape, size, **layout)
    axes = np.array(given, dtype=object)
    if axes.size != shape[0] * shape[1] or not all(isinstance(ax, Axes) for ax in axes.flat):
        count = "x".join(str(n) for n in shape if n > 1) or "one"
        raise ValueError(
            f"{function}: {count} Matplotlib axes are needed, and {axes.size} given; "
            "see figure.subplots."
        )
    return axes.reshape(shape)


def ax_for(given: Axes | None, function: str, size: tuple[float, float] = SIZE) -> Axes:
    """The same for one panel."""
    return axes_for(given, (1, 1), function, size)[0, 0]


def legend_above(ax: Axes, columns: int) -> None:
    """A legend that cannot hide data."""
    where = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    ax.legend(ncols=columns, frameon=False, fontsize="small", **where)

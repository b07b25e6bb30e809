"""Figures as files."""

import os
import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from bilo_ppl._files import replacing

__all__ = ["Drawn", "figure_of", "save_figure"]

Drawn = Figure | Axes | np.ndarray
"""A figure, or what the functions of this folder return: its axes, or an array of them."""


def figure_of(drawn: Any) -> Figure:
    """The whole figure. Raises a ``TypeError`` for something else than a figure or axes."""
    first = drawn.flat[0] if isinstance(drawn, np.ndarray) and drawn.size else drawn
    found = first.figure if isinstance(first, Axes) else first
    while isinstance(found, SubFigure):
        found = found.figure
    if not isinstance(found, Figure):
        raise TypeError(f"a Matplotlib figure or its axes are needed, not {type(first).__name__}.")
    return found


def save_figure(drawn: Drawn, path: str | os.PathLike, dpi: int = 150) -> pathlib.Path:
    """Write a figure, given as such or by its axes, whole or not at all; the suffix is the format.

    Examples:
        >>> from bilo_ppl.plots import plot_trace, save_figure
        >>> save_figure(plot_trace(draws), folder / "trace.png").name
        'trace.png'
    """
    figure = figure_of(drawn)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return pathlib.Path(path)

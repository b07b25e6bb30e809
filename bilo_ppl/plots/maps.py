"""Functions of two coordinates as images, side by side: a solution, a coefficient, how sure they are."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bilo_ppl._units import labelled
from bilo_ppl.plots._style import INK, axes_for, legend_above

__all__ = ["Panel", "plot_maps"]

Kind = Literal["value", "spread", "difference"]

COLOUR_MAPS: dict[Kind, str] = {"value": "viridis", "spread": "magma", "difference": "RdBu_r"}

LEVELS = 9
"""Contours between the least and the largest value."""

CLIPPED = 0.5
"""Per cent at either end of differences whose colours are cut off: one outlier would pale the rest."""

SMALLEST, LARGEST = 3.0, 26.0
"""Areas of the marks of data, in points squared: the more data, the smaller."""


class Panel(NamedTuple):
    """One image, or marks at points where there is none between them.

    >>> from bilo_ppl.plots import Panel, plot_maps
    >>> side, data = np.linspace(0, 1, 5), np.array([[0.25, 0.5], [0.5, 0.5]])
    >>> mean, sd = np.outer(side, 1 - side), np.full((5, 5), 0.1)
    >>> axes = plot_maps(side, side, [Panel("mean", mean, points=data), Panel("sd", sd, "spread")])
    >>> [ax.get_title(loc="left") for ax in axes]
    ['mean', 'sd']
    """

    title: str
    values: Any
    """``(n, m)`` on the grid, NaN where the function is not defined; None for marks only."""
    kind: Kind = "value"
    """All values of a figure share their colours; spreads and differences from zero have their own."""
    points: Any = None
    """``(k, 2)``, to be marked: where data are."""
    at_points: Any = None
    """``(k,)``, the colours of the marks; without them they are plain."""
    unit: str = ""
    """Of the values."""


def plot_maps(
    x: Any,
    y: Any,
    panels: Sequence[Panel],
    *,
    coordinates: Sequence[str] = ("x", "y"),
    equal: bool = True,
    contours: bool = True,
    units: Mapping[str, str] | None = None,
    axes: Any = None,
) -> np.ndarray:
    """Images of functions on the grid of ``x`` ``(n,)`` and ``y`` ``(m,)``, with contours.

    ``coordinates`` are the labels of the axes; ``equal`` says that both have one unit of length.
    Contours are drawn for values, unless ``contours`` is false, and stand in the bar of colours too.
    ``units`` are those of the coordinates.
    Returns the axes ``(panels,)``. Raises a ``ValueError`` for values of another shape than the grid's,
    points that are not in the plane, and a panel of nothing.

    >>> from bilo_ppl.plots import Panel, plot_maps
    >>> x, y = np.linspace(0, 2, 5), np.linspace(0, 1, 4)
    >>> (ax,) = plot_maps(x, y, [Panel("u", np.add.outer(x, y), unit="mol")], units={"x": "cm"})
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('x (cm)', 'y')
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if not panels:
        raise ValueError("plot_maps: there are no panels.")
    for panel in panels:
        _check(panel, (len(x), len(y)))
    told = any(panel.points is not None and panel.at_points is None for panel in panels)
    width, height = _size(x, y, len(panels), equal)
    (row,) = axes_for(axes, (1, len(panels)), "plot_maps", (width, height + 0.25 * told))
    shared = _limits([panel for panel in panels if panel.kind == "value"])
    for number, (ax, panel) in enumerate(zip(row, panels, strict=True)):
        ax.grid(False)
        ax.spines[:].set_visible(True)
        low, high = shared if panel.kind == "value" else _own_limits(panel)
        style = {"cmap": COLOUR_MAPS[panel.kind], "vmin": low, "vmax": high}
        drawn = lines = None
        if panel.values is not None:
            values = np.asarray(panel.values, float).T
            drawn = ax.pcolormesh(x, y, values, shading="gouraud", rasterized=True, **style)
            if contours and panel.kind == "value" and high > low:
                levels = np.linspace(low, high, LEVELS + 2)[1:-1]
                line = {"colors": "white", "linewidths": 0.6, "alpha": 0.8}
                lines = ax.contour(x, y, values, levels, **line)
        if panel.points is not None:
            drawn = _marks(ax, panel, style) or drawn
        _bar(ax, drawn, panel.unit, lines)
        ax.set_title(panel.title, fontsize="medium", loc="left", pad=22 if told else None)
        along, up = (labelled(name, units) for name in coordinates)
        ax.set(xlabel=along, ylabel="" if number else up)
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        if equal:
            ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
    return row


def _check(panel: Panel, shape: tuple[int, int]) -> None:
    if panel.values is None and panel.points is None:
        raise ValueError(f"plot_maps: the panel {panel.title!r} has neither values nor points.")
    if panel.values is not None and np.shape(panel.values) != shape:
        raise ValueError(
            f"plot_maps: the values of {panel.title!r} have shape {np.shape(panel.values)}; the grid "
            f"has {shape}."
        )
    if panel.points is not None and np.shape(panel.points)[1:] != (2,):
        raise ValueError(
            f"plot_maps: the points of {panel.title!r} have shape {np.shape(panel.points)}; they must "
            "be (k, 2)."
        )


def _size(x: np.ndarray, y: np.ndarray, count: int, equal: bool) -> tuple[float, float]:
    """Width and height of a figure, in inches, whose panels have the shape of the domain."""
    ratio = (y[-1] - y[0]) / (x[-1] - x[0]) if equal else 0.8
    width = 3.9 if count > 1 else 5.0
    return width * count, float(np.clip((width - 1.1) * ratio, 1.6, 7.0)) + 0.9


def _numbers(panel: Panel) -> np.ndarray:
    parts = [np.ravel(p) for p in (panel.values, panel.at_points) if p is not None]
    found = np.concatenate([*parts, np.zeros(0)])
    return found[np.isfinite(found)]


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    found = np.concatenate([*map(_numbers, panels), np.zeros(0)])
    return (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)


def _own_limits(panel: Panel) -> tuple[float, float]:
    if panel.kind == "difference":
        size = np.abs(_numbers(panel))
        most = float(np.percentile(size, 100 - CLIPPED)) if len(size) else 1.0
        return -(most or 1.0), most or 1.0
    return 0.0, _limits([panel])[1]


def _marks(ax: Axes, panel: Panel, style: dict[str, Any]) -> Any:
    """The points; what a bar of colours can be made of, if they have any."""
    points = np.asarray(panel.points, float)
    area = float(np.clip(8000 / max(len(points), 1), SMALLEST, LARGEST))
    if panel.at_points is None:
        edge = {"linewidths": 0.4, "edgecolors": "white"}
        ax.scatter(*points.T, s=area / 2, color=INK, label="data", **edge)
        legend_above(ax, columns=1)
        return None
    return ax.scatter(*points.T, s=area, c=panel.at_points, linewidths=0, **style)


def _bar(ax: Axes, drawn: Any, unit: str, lines: Any = None) -> None:
    if drawn is not None:
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.9, pad=0.02)
        if lines is not None:
            bar.add_lines(lines)
        bar.set_label(unit, fontsize="small")
        bar.ax.tick_params(labelsize="small")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]

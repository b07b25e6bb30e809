"""The band of solutions over an interval, with the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bilo_ppl._units import labelled
from bilo_ppl.plots._style import COLOURS, INK, ax_for, legend_above

__all__ = ["plot_solution_band"]


def plot_solution_band(
    x: Any,
    u_draws: Any,
    data: tuple[Any, Any, Any] | None = None,
    truth: tuple[Any, Any] | None = None,
    name: str = "u",
    coordinate: str = "x",
    components: Sequence[str] = (),
    *,
    noise: Any = None,
    units: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Median and 5 to 95 % band, point by point, of solutions ``(draws, n)`` at ``x``.

    Solutions of a system, ``(draws, n, components)``, have a colour for each component; ``components``
    are their names, by default 1, 2, ... ``x`` is ``(n,)`` or ``(n, 1)``; ``name`` and ``coordinate`` are
    the labels of the axes. Components without a common unit have theirs in the legend.
    ``data`` is ``(x, y, sigma)``: points ``(m,)`` or ``(m, 1)``, values ``(m,)`` or ``(m, components)``,
    of which those that are NaN are missing, and the standard deviation of their noise, a number or one
    for each value, observation or component, or None if that is not what they have. ``noise`` is the
    standard deviation of normal noise at the draws, a number, ``(draws,)`` or ``(draws,
    components)``: with it the band of data y, u with its noise, is drawn too, lighter; a component
    whose noise is NaN has none. ``truth`` is ``(x, u)``. Draws with a value that is not finite
    (unconverged solves) are left out and counted in the legend. Raises a ``ValueError`` for points of
    more than one dimension, for values of other shapes, and for noise that is not positive.

    Examples:
        >>> from bilo_ppl.plots import plot_solution_band
        >>> u_draws = bilo.solution_draws(model, draws, x, exact, x, y)
        >>> ax = plot_solution_band(x, u_draws, data=(x, y, 0.02), noise=0.02, units={"x": "cm"})
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('x (cm)', 'u')
        >>> ax.get_legend_handles_labels()[1][:2]
        ['y: 5 to 95 %', 'u: 5 to 95 %']
    """
    x, u = _line(x, "x"), np.asarray(u_draws)
    system = u.ndim == 3
    if u.ndim not in {2, 3} or u.shape[1] != len(x):
        raise ValueError(
            f"plot_solution_band: u_draws must be (draws, {len(x)}), or (draws, {len(x)}, components) "
            f"of a system, got {u.shape}."
        )
    u = u if system else u[:, :, None]
    finite = np.isfinite(u).all(axis=(1, 2))
    if not finite.any():
        raise ValueError("plot_solution_band: no draw has finite values at all points.")
    count = u.shape[2]
    names = list(components) or [str(i) for i in range(1, count + 1)]
    if system and len(names) != count:
        raise ValueError(
            f"plot_solution_band: there are {len(names)} names {names} for {count} components."
        )
    left_out = (
        "" if finite.all() else f" ({(~finite).sum()} of {len(u)} draws left out: not finite)"
    )
    order = np.argsort(x)
    ax = ax_for(ax, "plot_solution_band")
    of_all, of_each = _units_of(name, names if system else [], units or {})
    kept = u[finite][:, order]
    if noise is not None:
        _predictive_bands(ax, x[order], kept, _of_draws(noise, u.shape)[finite])
    for i in range(count):
        low, middle, high = np.quantile(kept[..., i], [0.05, 0.5, 0.95], axis=0)
        band = {"color": _colour(i), "alpha": 0.25, "linewidth": 0}
        label = None if i else f"{name}: 5 to 95 %{left_out}"
        ax.fill_between(x[order], low, high, label=label, **band)
        median = f"median of {labelled(names[i], of_each)}" if system else "median"
        ax.plot(x[order], middle, color=_colour(i), linewidth=1.8, label=median)
    if truth is not None:
        _truth_line(ax, truth)
    if data is not None:
        _data_points(ax, data, count if system else None)
    ax.set(xlabel=labelled(coordinate, units), ylabel=labelled(name, of_all))
    ax.margins(x=0.02)
    legend_above(ax, columns=2 if noise is None else 3)
    return ax


def _of_draws(noise: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The noise of every draw and component, ``(draws, components)``."""
    sd = np.asarray(noise, float)
    if sd.shape not in {(), shape[:1], (shape[0], shape[2])} or (sd <= 0).any():
        raise ValueError(
            f"plot_solution_band: noise has shape {sd.shape}; it must be positive numbers, one, "
            f"{shape[:1]} or {(shape[0], shape[2])}."
        )
    return np.broadcast_to(sd[:, None] if sd.ndim == 1 else sd, (shape[0], shape[2]))


def _predictive_bands(ax: Axes, x: np.ndarray, u: np.ndarray, sd: np.ndarray) -> None:
    label: str | None = "y: 5 to 95 %"
    for i in range(u.shape[2]):
        if np.isnan(sd[:, i]).any():
            continue
        low, high = (_quantile(u[..., i], sd[:, i, None], level) for level in (0.05, 0.95))
        band = {"color": _colour(i), "alpha": 0.1, "linewidth": 0}
        ax.fill_between(x, low, high, label=label, **band)
        label = None


def _quantile(u: np.ndarray, sd: np.ndarray, level: float) -> np.ndarray:
    """That of u plus normal noise, point by point, the draws ``(draws, n)`` being equally likely.

    By bisection of the distribution function: noise that is drawn would leave the band ragged.
    """
    from scipy.special import ndtr

    low, high = (u - 8 * sd).min(axis=0), (u + 8 * sd).max(axis=0)
    for _ in range(40):
        middle = (low + high) / 2
        below = ndtr((middle - u) / sd).mean(axis=0) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _units_of(
    name: str, components: Sequence[str], units: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Units for the axis, which are those of the name or of all components, and for each component."""
    own = {units.get(component, "") for component in components}
    if name in units or len(own) != 1:
        return units, units
    return {name: own.pop()}, {}


def _colour(component: int) -> str:
    return COLOURS[component % len(COLOURS)]


def _line(x: Any, what: str) -> np.ndarray:
    """Points of an interval as ``(n,)``."""
    x = np.asarray(x)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(
            f"plot_solution_band: {what} has shape {x.shape}; a band is drawn over one coordinate, "
            "(n,) or (n, 1). In more dimensions take a section: values along a line of points."
        )
    return x


def _truth_line(ax: Axes, truth: tuple[Any, Any]) -> None:
    x, u = _line(truth[0], "truth[0]"), np.asarray(truth[1])
    order = np.argsort(x)
    for i, values in enumerate(u.reshape(len(u), -1)[order].T):
        label = None if i else "truth"
        ax.plot(x[order], values, color=INK, linestyle="--", linewidth=1.4, label=label)


def _data_points(ax: Axes, data: tuple[Any, Any, Any], components: int | None) -> None:
    """The values that are not missing, with their noise; of a system in the colour of the component."""
    x, y = _line(data[0], "data[0]"), np.asarray(data[1])
    wanted = (len(x),) if components is None else (len(x), components)
    if y.shape != wanted:
        raise ValueError(f"plot_solution_band: data[1] has shape {y.shape}; it must be {wanted}.")
    columns = y.reshape(len(y), -1)
    bars = None if data[2] is None else _bars_of(np.asarray(data[2]), y).reshape(columns.shape)
    style = {"fmt": "o", "markersize": 4, "capsize": 2.5, "linewidth": 1.1, "zorder": 3}
    label: str | None = "data" if bars is None else "data, 1 sd"
    for i, values in enumerate(columns.T):
        there = ~np.isnan(values)
        if there.any():
            style["color"] = _colour(1 if components is None else i)
            yerr = None if bars is None else bars[there, i]
            ax.errorbar(x[there], values[there], yerr=yerr, label=label, **style)
            label = None


def _bars_of(sigma: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The standard deviation of every value."""
    if y.ndim == 2 and sigma.shape == y.shape[:1] != y.shape[1:]:
        sigma = sigma[:, None]
    return np.broadcast_to(sigma, y.shape)

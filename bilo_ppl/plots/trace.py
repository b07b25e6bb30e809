"""Traces of chains."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bilo_ppl._units import labelled
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.plots._style import COLOURS, axes_for, legend_above

__all__ = ["plot_trace"]

MOST = 12
"""Scalars that are drawn at most."""


def plot_trace(
    draws: Mapping[str, Any],
    warmup: int = 0,
    of: int | None = None,
    *,
    units: Mapping[str, str] | None = None,
    axes: Any = None,
) -> np.ndarray:
    """Traces of every scalar in ``draws`` (``(chains, draws, ...)`` by name), one colour a chain.

    The first ``warmup`` draws of each chain are marked as warm-up. At most 12 scalars are drawn,
    and the title of a new figure says how many there are; where they are those of ``of`` scalars that
    have the fewest effective draws, it says that. Returns the axes ``(scalars,)``. Raises a
    ``ValueError`` if there are no draws.

    Examples:
        >>> from bilo_ppl.plots import plot_trace
        >>> [ax.get_ylabel() for ax in plot_trace(draws, warmup=20)]
        ['r']
    """
    scalars = scalar_draws(draws)
    if not scalars:
        raise ValueError("plot_trace: there are no draws.")
    shown = dict(list(scalars.items())[:MOST])
    height = 1.2 + 1.5 * len(shown)
    drawn = axes_for(axes, (len(shown), 1), "plot_trace", (6.4, height), sharex=True)[:, 0]
    for ax, (name, values) in zip(drawn, shown.items(), strict=True):
        for chain, trace in enumerate(values):
            style = {"color": COLOURS[chain % len(COLOURS)], "linewidth": 0.6, "alpha": 0.7}
            ax.plot(trace, label=f"chain {chain}" if chain < len(COLOURS) else None, **style)
        if warmup:
            ax.axvspan(0, warmup, color="0.5", alpha=0.15, linewidth=0, label="warm-up")
        ax.set_ylabel(labelled(name, units))
        ax.margins(x=0.01)
    drawn[-1].set_xlabel("draw")
    drawn[-1].xaxis.get_major_locator().set_params(integer=True)
    legend_above(drawn[0], columns=5)
    title = ""
    if of is not None and of > len(shown):
        title = f"the {len(shown)} of {of} parameters with the fewest effective draws"
    elif len(scalars) > MOST:
        title = f"the first {MOST} of {len(scalars)} parameters"
    if title and axes is None:
        drawn[0].figure.suptitle(title, fontsize="medium")
    return drawn

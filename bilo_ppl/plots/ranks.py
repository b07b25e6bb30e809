"""Ranks of a calibration beside what uniform ones would do."""

from typing import Any

import numpy as np
from scipy import stats

from bilo_ppl.plots._style import COLOURS, INK, axes_for, legend_above
from bilo_ppl.validation.uniformity import binned, ecdf_limits, even_bins

__all__ = ["plot_ranks"]

PROBABILITY = 0.99


def plot_ranks(ranks: Any, name: str, kept: int, *, axes: Any = None) -> np.ndarray:
    """Ranks ``(replicates,)``, 0 to ``kept``, in bins, and the difference of their ECDF to uniform ones'.

    Shaded is what uniform ranks do with a probability of 99 %: of every bin alone above, and of the whole
    line below (Säilynoja et al. 2022). High at both ends are posteriors that are too narrow, high in the
    middle those that are too wide. Returns both axes ``(2,)``. Raises a ``ValueError`` for ranks that are
    none.

    Examples:
        >>> from bilo_ppl.plots import plot_ranks
        >>> [ax.get_ylabel() for ax in plot_ranks(np.arange(200) % 20, "r", kept=19)]
        ['replicates', 'ECDF - uniform']
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or not ranks.size or ranks.min() < 0 or ranks.max() > kept:
        raise ValueError(
            f"plot_ranks: ranks of {name} must be 0 to {kept}, (replicates,); got shape {ranks.shape}."
        )
    drawn = axes_for(axes, (2, 1), "plot_ranks", (6.4, 5.2), sharex=True)[:, 0]
    top, bottom = drawn
    number = even_bins(len(ranks), kept)
    edges = np.linspace(0, 1, number + 1)
    low, high = stats.binom.interval(PROBABILITY, len(ranks), 1 / number)
    band = {"color": "0.85", "linewidth": 0, "zorder": 0}
    top.axhspan(low, high, label=f"{PROBABILITY:.0%} of uniform ranks", **band)
    style = {"color": COLOURS[0], "alpha": 0.6, "edgecolor": "white", "align": "edge"}
    top.bar(edges[:-1], binned(ranks, kept, number), width=1 / number, label="ranks", **style)
    top.axhline(len(ranks) / number, color=INK, linewidth=1.0, label="their mean")
    top.set(ylabel="replicates", xlim=(0, 1))
    legend_above(top, columns=3)
    levels, lowest, highest = ecdf_limits(len(ranks), kept, PROBABILITY)
    below = np.cumsum(np.bincount(ranks, minlength=kept + 1))[:-1] / len(ranks)
    label = f"{PROBABILITY:.0%} of uniform ranks"
    bottom.fill_between(levels, lowest - levels, highest - levels, label=label, **band)
    line = {"where": "mid", "color": COLOURS[0], "linewidth": 1.4, "label": "ranks"}
    bottom.step(levels, below - levels, **line)
    bottom.axhline(0, color=INK, linewidth=1.0, label="their mean")
    bottom.set(xlabel=f"rank of {name} among {kept} draws, as a fraction", ylabel="ECDF - uniform")
    legend_above(bottom, columns=3)
    return drawn

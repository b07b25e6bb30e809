"""Figures of results, as Matplotlib's axes: into yours, or into those of a new figure.

Every function draws into ``ax`` (or ``axes``, where there are several panels) if given, makes a figure
if not, and returns what it drew into; the figure is its ``.figure``. ``units``, by name, stand in the
labels. Figures are made without pyplot, so that nothing is global and nothing needs a display.
Matplotlib is imported with this package, and ``import bilo_ppl`` does not import it.
"""

from bilo_ppl.plots._style import COLOURS, INK
from bilo_ppl.plots.figure_file import save_figure
from bilo_ppl.plots.images import ImagePanel, plot_density, plot_images
from bilo_ppl.plots.inner_steps import plot_inner_steps
from bilo_ppl.plots.intervals import plot_intervals
from bilo_ppl.plots.maps import Panel, plot_maps
from bilo_ppl.plots.pairs import plot_pairs
from bilo_ppl.plots.posterior import plot_posterior
from bilo_ppl.plots.ranks import plot_ranks
from bilo_ppl.plots.replicas import plot_replicas
from bilo_ppl.plots.solution_band import plot_solution_band
from bilo_ppl.plots.trace import plot_trace

__all__ = [
    "COLOURS",
    "INK",
    "ImagePanel",
    "Panel",
    "plot_density",
    "plot_images",
    "plot_inner_steps",
    "plot_intervals",
    "plot_maps",
    "plot_pairs",
    "plot_posterior",
    "plot_ranks",
    "plot_replicas",
    "plot_solution_band",
    "plot_trace",
    "save_figure",
]

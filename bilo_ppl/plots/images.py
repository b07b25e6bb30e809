"""Figures of images: a field over an anatomy, with contours of its own and outlines of masks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from bilo_ppl._units import labelled
from bilo_ppl.pde.image import ImageDomain
from bilo_ppl.plots._style import COLOURS, INK, axes_for, legend_above

__all__ = ["ImagePanel", "plot_density", "plot_images"]


LINES = ("white", COLOURS[1], COLOURS[3])
"""Colours of contours and outlines, none of which is in the colour map; all have a dark edge."""


class ImagePanel(NamedTuple):
    """One image, and what is drawn on it.

    >>> from bilo_ppl.plots import ImagePanel, plot_images
    >>> plane, density = bilo.image_domain(np.ones((4, 3))), np.linspace(0, 1, 12)
    >>> drawn = {"contours": (0.5,), "masks": (density > 0.3,), "mask_names": ("seen",)}
    >>> (ax,) = plot_images(plane, [ImagePanel("density", density, **drawn)])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['0.5', 'seen']
    """

    title: str
    values: Any
    """At the voxels inside ``(n,)``, in the order of `ImageDomain.centres`; NaN is not drawn."""
    contours: Sequence[float] = ()
    """Levels of the values, drawn as lines."""
    masks: Sequence[Any] = ()
    """Masks ``(n,)`` at the same voxels, drawn as dashed outlines."""
    mask_names: Sequence[str] = ()
    """For the legend; by default mask 1, 2, ..."""
    unit: str = ""
    """Of the values."""


def plot_images(
    domain: ImageDomain,
    panels: Sequence[ImagePanel],
    anatomy: Any = None,
    *,
    units: Mapping[str, str] | None = None,
    axes: Any = None,
) -> np.ndarray:
    """Images of a plane side by side, the first coordinate to the right and the second upwards.

    ``anatomy`` is an image with the shape of the domain's mask, shown in grey below; values fade into it
    where they are small. Contours and outlines are told in a legend. ``units`` are those of the
    coordinates. Returns the axes ``(panels,)``. Raises a ``ValueError`` for a domain that is not a plane,
    no panels, values of another number than there are voxels inside, and names of another number than
    there are masks.

    >>> from bilo_ppl.plots import ImagePanel, plot_images
    >>> plane = bilo.image_domain(np.ones((4, 3)))
    >>> (ax,) = plot_images(plane, [ImagePanel("u", np.arange(12.0))], units={"x": "cm"})
    >>> ax.get_xlabel()
    'x (cm)'
    """
    if domain.mask.ndim != 2:
        raise ValueError(
            f"plot_images: the image has {domain.mask.ndim} axes; give a plane, such as a slice."
        )
    if not panels:
        raise ValueError("plot_images: there are no panels.")
    count = int(domain.mask.sum())
    for panel in panels:
        for what in (panel.values, *panel.masks):
            if np.shape(what) != (count,):
                raise ValueError(
                    f"plot_images: {panel.title!r} has values of shape {np.shape(what)}; the domain has "
                    f"{count} voxels inside, ({count},)."
                )
        if panel.mask_names and len(panel.mask_names) != len(panel.masks):
            raise ValueError(
                f"plot_images: {panel.title!r} has {len(panel.mask_names)} names {panel.mask_names} for "
                f"{len(panel.masks)} masks."
            )
    (row,) = axes_for(axes, (1, len(panels)), "plot_images", (4.4 * len(panels), 4.2))
    low, high = np.array(domain.lower[:2]), np.array(domain.upper[:2])
    style: dict[str, Any] = {
        "extent": (low[0], high[0], low[1], high[1]),
        "origin": "lower",
        "interpolation": "nearest",
    }
    told = any(len(panel.contours) + len(panel.masks) for panel in panels)
    for ax, panel in zip(row, panels, strict=True):
        ax.grid(False)
        ax.spines[:].set_visible(True)
        if anatomy is not None:
            ax.imshow(np.asarray(anatomy, float).T, cmap="gray", **style)
        image = _image(domain, panel.values)
        largest = float(np.nanmax(image)) if np.isfinite(image).any() else 1.0
        opaque = np.clip(np.nan_to_num(image) / (0.2 * (largest or 1.0)), 0, 0.75).T
        shown = ax.imshow(
            image.T, cmap="viridis", vmin=0, vmax=largest or 1.0, alpha=opaque, **style
        )
        ax.figure.colorbar(shown, ax=ax, shrink=0.8).set_label(panel.unit)
        _lines(ax, domain, panel, image)
        ax.set_title(panel.title, fontsize="medium", loc="left", pad=22 if told else None)
        along, up = (labelled(name, units) for name in domain.coordinates[:2])
        ax.set(xlabel=along, ylabel=up)
    return row


def plot_density(
    domain: ImageDomain,
    u: Any,
    levels: Sequence[float],
    x: Any,
    labels: Any,
    anatomy: Any = None,
    *,
    names: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    axes: Any = None,
) -> np.ndarray:
    """The mean of draws of a density, with contours, with outlines of labels, and its standard deviation.

    ``u`` are values ``(draws, n)`` at the voxels inside; draws that are not finite are left out, and of
    one draw there is no standard deviation. ``labels`` ``(m, k)``, 0 or 1, are those of k masks at points
    ``x (m, d)``, of which those count that are centres of voxels; ``names`` are those of the masks, and
    ``units`` those of the coordinates and of ``"u"``. Returns the axes, ``(3,)``, or ``(2,)`` of one
    draw. Raises a ``ValueError`` if no draw is finite.

    >>> from bilo_ppl.plots import plot_density
    >>> plane = bilo.image_domain(np.ones((4, 3)))
    >>> u = np.linspace(0, 1, 24).reshape(2, 12)  # two draws
    >>> axes = plot_density(plane, u, [0.5], plane.centres, u[:1].T > 0.2)
    >>> axes[2].get_title(loc="left")
    'standard deviation of u, 2 draws'
    """
    u = np.asarray(u, float)
    u = u[np.isfinite(u).all(axis=1)]
    if not len(u):
        raise ValueError("plot_density: no draw is finite.")
    row = _rows_at(domain, np.asarray(x, float))
    masks = [np.where(row < 0, 0.0, column[row]) for column in np.asarray(labels, float).T]
    name, mean = "u" if len(u) == 1 else "mean of u", u.mean(axis=0)
    at, unit = ", ".join(f"{c:.3g}" for c in levels), (units or {}).get("u", "")
    panels = [
        ImagePanel(f"{name}, contours at {at}", mean, contours=levels, unit=unit),
        ImagePanel(f"{name}, outlines of the data", mean, masks=masks, mask_names=names, unit=unit),
    ]
    if len(u) > 1:
        title = f"standard deviation of u, {len(u)} draws"
        panels.append(ImagePanel(title, u.std(axis=0), unit=unit))
    return plot_images(domain, panels, anatomy, units=units, axes=axes)


def _lines(ax: Axes, domain: ImageDomain, panel: ImagePanel, image: np.ndarray) -> None:
    """Contours of the image and outlines of masks, those that there are, with a legend."""
    x, y = (
        low + h * (np.arange(n) + 0.5)
        for low, h, n in zip(domain.lower, domain.spacing, domain.mask.shape, strict=False)
    )
    drawn = False

    def line(values: np.ndarray, level: float, number: int, label: str, dashes: str, width: float):
        nonlocal drawn
        drawn = True
        edge: list[Any] = [withStroke(linewidth=width + 1.2, foreground=INK, alpha=0.8)]
        style: dict[str, Any] = {"linestyles": dashes, "linewidths": width}
        colour = LINES[number % len(LINES)]
        lines = ax.contour(x, y, values.T, levels=[level], colors=[colour], **style)
        lines.set_path_effects(edge)
        ax.plot([], [], dashes, color=colour, linewidth=width, path_effects=edge, label=label)

    there = image[np.isfinite(image)]
    least, largest = (there.min(), there.max()) if there.size else (0.0, 0.0)
    for number, level in enumerate(panel.contours):
        if least < level < largest:
            line(image, level, number, f"{level:.3g}", "-", 1.6)
    names = panel.mask_names or [f"mask {i}" for i in range(1, len(panel.masks) + 1)]
    for number, (mask, name) in enumerate(zip(panel.masks, names, strict=True)):
        outline = np.nan_to_num(_image(domain, mask))
        if 0 < outline.sum() < outline.size:
            line(outline, 0.5, number, name, "--", 1.2)
    if drawn:
        legend_above(ax, columns=4)


def _rows_at(domain: ImageDomain, x: np.ndarray) -> np.ndarray:
    """The row of a table of points at each voxel's centre, -1 where there is none."""
    from scipy.spatial import KDTree

    dimension = domain.mask.ndim
    distance, row = KDTree(x[:, :dimension]).query(domain.centres)
    return np.where(distance < 1e-6 * max(domain.spacing), row, -1)


def _image(domain: ImageDomain, values: Any) -> np.ndarray:
    """Values at the voxels inside as an image, NaN outside."""
    image = np.full(domain.mask.shape, np.nan)
    image[domain.mask] = np.asarray(values, float)
    return image

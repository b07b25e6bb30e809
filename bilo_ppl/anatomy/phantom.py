"""A brain by a formula: smooth, the same everywhere, at any resolution."""

import numpy as np

from bilo_ppl.anatomy.tissue_maps import TissueMaps

__all__ = ["brain_phantom"]

CENTRE = (-20.0, 6.0)
"""Of the brain, in millimetres; the point 0 lies in the white matter to its right."""

AXES = (48.0, 58.0)
"""Half the width and the length of the slice."""


def brain_phantom(spacing: float = 1.0, half: float = 42.0) -> TissueMaps:
    """White and grey matter on the square of +- ``half`` millimetres about a point in white matter.

    A slice of 96 x 116 mm with a folded cortex some 8 mm thick, a ventricle, and a nucleus of grey
    matter. Edges are 2 to 3 mm wide, as in templates of many brains. ``spacing`` are the edges of a
    voxel, in millimetres. Raises a ``ValueError`` for a spacing or a size that is not positive.

    Examples:
        >>> from bilo_ppl.anatomy import brain_phantom
        >>> maps = brain_phantom(spacing=2.0)
        >>> maps.white.shape, maps.origin
        ((43, 43), (-42.0, -42.0))
        >>> domain = bilo.image_domain(maps.brain, maps.spacing, maps.origin)
        >>> bool(domain.contains(np.array([[0.0, 0.0]]))[0])
        True
    """
    if not (np.isfinite([spacing, half]).all() and 0 < spacing <= half):
        raise ValueError(
            f"brain_phantom: needs 0 < spacing <= half, in mm, got spacing={spacing}, half={half}."
        )
    count = int(np.floor(half / spacing + 1e-9))
    axis = spacing * np.arange(-count, count + 1)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    x, y = x - CENTRE[0], y - CENTRE[1]
    scaled, angle = np.hypot(x / AXES[0], y / AXES[1]), np.arctan2(y / AXES[1], x / AXES[0])
    outline = 50 * (1 - scaled)  # about the distance from the skull, in mm
    folds = 8 + 3 * np.sin(11 * angle) + 1.5 * np.sin(17 * angle + 1)

    ventricle = _blob(x - 5, y, 4.5, 15.0)
    nucleus = _blob(x - 24, y + 22, 7.0, 8.0)
    tissue = _step(outline / 1.2) * (1 - ventricle)
    white = tissue * _step((outline - folds) / 1.2) * (1 - nucleus)
    return TissueMaps(white, tissue - white, (spacing, spacing), (float(axis[0]),) * 2)


def _step(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(z / 2))


def _blob(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """1 inside of an ellipse with the half axes a and b, in mm, and 0 outside."""
    return _step(min(a, b) * (1 - np.hypot(x / a, y / b)) / 0.8)

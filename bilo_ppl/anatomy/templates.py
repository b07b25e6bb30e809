"""Slices of a template brain, from the maps that nilearn's wheel holds.

The ICBM 152 maps (Fonov et al., *NeuroImage* 54, 2011): averages over 152 brains, in MNI coordinates.
"""

import importlib
from typing import Any

import numpy as np

from bilo_ppl.anatomy.tissue_maps import TissueMaps

__all__ = ["template_slice"]


def template_slice(height: float = 20.0) -> TissueMaps:
    """The axial slice at an MNI ``height`` z in millimetres: x to the right, y to the front.

    Raises an ``ImportError`` without nilearn, and a ``ValueError`` for a height outside of the image.
    """
    try:
        datasets = importlib.import_module("nilearn.datasets")
    except ImportError as error:
        raise ImportError(
            "template_slice: the maps come with nilearn, which is not installed: "
            'pip install "bilo-ppl[brain]". brain_phantom() needs nothing.'
        ) from error
    white = datasets.load_mni152_wm_template(resolution=1)
    grey = datasets.load_mni152_gm_template(resolution=1)
    return _slice(white, grey, height)


def _slice(white: Any, grey: Any, height: float) -> TissueMaps:
    """From two images of nibabel's on one grid, whose axes are those of space up to their signs."""
    affine = np.asarray(white.affine, float)
    if not np.allclose(affine, grey.affine) or np.count_nonzero(affine[:3, :3]) != 3:
        raise ValueError(
            "template_slice: the maps of white and grey matter are not on one grid along the axes."
        )
    maps = [np.asarray(image.dataobj, float) for image in (white, grey)]
    edges, first = np.diag(affine)[:3].copy(), affine[:3, 3].copy()
    for axis in np.flatnonzero(edges < 0).tolist():
        first[axis] += edges[axis] * (maps[0].shape[axis] - 1)
        maps = [np.flip(image, axis) for image in maps]
    edges = np.abs(edges)
    k = round((height - first[2]) / edges[2])
    if not 0 <= k < maps[0].shape[2]:
        last = first[2] + edges[2] * (maps[0].shape[2] - 1)
        raise ValueError(
            f"template_slice: there is no slice at z = {height:g} mm; give one between {first[2]:g} and "
            f"{last:g}."
        )
    top = 255.0 if max(image.max() for image in maps) > 1 else 1.0
    slices = [np.clip(image[:, :, k] / top, 0, 1) for image in maps]
    # Rounding of both may make their sum a little more than 1.
    total = np.maximum(slices[0] + slices[1], 1.0)
    return TissueMaps(
        slices[0] / total, slices[1] / total, tuple(edges[:2].tolist()), tuple(first[:2].tolist())
    )

"""Images as their users give them: errors say what to mend before anything is computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["as_image", "as_mask", "as_probability", "per_axis"]


def as_mask(mask: Any) -> np.ndarray:
    """A mask as an array of bool that nobody changes; raises a ``ValueError`` if it is none."""
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3):
        raise ValueError(
            f"image_domain: the mask has shape {mask.shape}; it must have 2 or 3 axes, one for each "
            "coordinate of space."
        )
    values = np.unique(mask)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"image_domain: the mask must hold True and False (or 1 and 0), got values such as "
            f"{values[~np.isin(values, (0, 1))][:3].tolist()}; compare with a threshold, mask = p > 0.5."
        )
    if not mask.any():
        raise ValueError(f"image_domain: no voxel of the {mask.shape} is inside the mask.")
    mask = mask.astype(bool)
    mask.setflags(write=False)
    return mask


def as_image(image: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An image in double precision; raises a ``ValueError`` for another shape or wrong values."""
    image = np.asarray(image)
    if image.shape != shape:
        turned = sorted(image.shape) == sorted(shape)
        hint = "the axes seem to be in another order (np.transpose)" if turned else "resample it"
        raise ValueError(f"{name} has shape {image.shape}, the mask {shape}: {hint}.")
    image = image.astype(float)
    bad = ~np.isfinite(image)
    if bad.any():
        raise ValueError(
            f"{name} is not finite at {bad.sum()} voxels, the first at {np.argwhere(bad)[0].tolist()}."
        )
    return image


def as_probability(image: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An image of probabilities; raises a ``ValueError`` also where it leaves [0, 1]."""
    image = as_image(image, shape, name)
    if image.min() < 0 or image.max() > 1:
        hint = "; divide by 255" if image.min() >= 0 and 1 < image.max() <= 255 else ""
        raise ValueError(
            f"{name} must hold probabilities, between 0 and 1, but goes from {image.min():g} to "
            f"{image.max():g}{hint}."
        )
    return image


def per_axis(name: str, value: float | Sequence[float], dimension: int) -> np.ndarray:
    """One finite number for each axis."""
    values = np.asarray(value, float)
    if values.shape not in ((), (dimension,)) or not np.isfinite(values).all():
        raise ValueError(
            f"image_domain: {name}={value!r}; give a finite number, or {dimension}, one for each axis."
        )
    return np.broadcast_to(values, (dimension,)).copy()

"""Probabilities of white and grey matter on an image, wherever they come from."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bilo_ppl.pde.image_checks import as_probability, per_axis

__all__ = ["TissueMaps"]

FAINT = 0.02
"""A probability of tissue next to which that of white matter means nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class TissueMaps:
    """Two images of probabilities, in two or three dimensions.

    ``white[i, j]`` belongs to the voxel whose centre is ``origin + (i, j) * spacing``, as in
    `bilo_ppl.image_domain`; lengths in millimetres. What is neither white nor grey matter is fluid, or
    outside of the brain.

    Raises a ``ValueError`` for images of different shapes, values that are no probabilities, also
    together, and a spacing that is not positive.

    Examples:
        >>> from bilo_ppl.anatomy import TissueMaps
        >>> white, grey = np.array([[0.9, 0.1, 0.0]]), np.array([[0.0, 0.7, 0.2]])
        >>> maps = TissueMaps(white, grey, spacing=(1.0, 1.0), origin=(0.0, 0.0))
        >>> maps.brain.tolist(), maps.tissue.round(1).tolist()
        ([[True, True, False]], [[0.9, 0.8, 0.2]])
        >>> maps.diffusivity(grey=0.1).round(2).tolist()  # white matter, mostly grey, grey
        [[0.98, 0.21, 0.1]]
        >>> part = maps.around((0.0, 1.0), radius=1.0)
        >>> part.white.shape, part.centres[0, 0].tolist()
        ((1, 3), [0.0, -1.0])
    """

    white: np.ndarray = dataclasses.field(repr=False)
    grey: np.ndarray = dataclasses.field(repr=False)
    spacing: tuple[float, ...]
    """Edges of a voxel."""
    origin: tuple[float, ...]
    """Centre of the voxel with all indices 0."""

    def __post_init__(self):
        white = np.asarray(self.white)
        white = as_probability(white, white.shape, "white")
        grey = as_probability(self.grey, white.shape, "grey")
        if (white + grey).max() > 1 + 1e-6:
            raise ValueError(
                f"white and grey are {(white + grey).max():g} together somewhere; as probabilities of "
                "different tissues they are at most 1."
            )
        spacing = per_axis("spacing", self.spacing, white.ndim)
        if (spacing <= 0).any():
            raise ValueError(f"TissueMaps: spacing must be positive, got {spacing.tolist()}.")
        origin = per_axis("origin", self.origin, white.ndim)
        for name, value in (("white", white), ("grey", grey)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "spacing", tuple(spacing.tolist()))
        object.__setattr__(self, "origin", tuple(origin.tolist()))

    @property
    def tissue(self) -> np.ndarray:
        """Probability of either, an image."""
        return np.minimum(self.white + self.grey, 1.0)

    @property
    def brain(self) -> np.ndarray:
        """Where there is more likely tissue than not: a mask."""
        return self.tissue > 0.5

    @property
    def centres(self) -> np.ndarray:
        """Centres of all voxels, ``(..., d)``, in millimetres."""
        index = np.moveaxis(np.indices(self.white.shape), 0, -1)
        return index * np.array(self.spacing) + np.array(self.origin)

    def diffusivity(self, grey: float = 0.1) -> np.ndarray:
        """1 in white matter, ``grey`` in grey matter, by their shares of the tissue; an image.

        Where there is hardly any tissue it is that of grey matter.
        """
        share = self.white / (self.tissue + FAINT)
        return grey + (1 - grey) * share

    def around(self, centre: Sequence[float], radius: float) -> "TissueMaps":
        """The voxels within ``radius`` of a point along every axis, the point being the new zero.

        Raises a ``ValueError`` for a point outside of the image.
        """
        place = per_axis("centre", centre, self.white.ndim)
        first = np.array(self.origin)
        steps = np.array(self.white.shape) - 1
        last = first + steps * np.array(self.spacing)
        if ((place < first) | (place > last)).any():
            raise ValueError(
                f"TissueMaps.around: the point {place.tolist()} is outside of the image, which goes "
                f"from {first.tolist()} to {last.tolist()} mm."
            )
        low = np.ceil((place - radius - first) / np.array(self.spacing) - 1e-9).astype(int)
        high = np.floor((place + radius - first) / np.array(self.spacing) + 1e-9).astype(int)
        low, high = np.maximum(low, 0), np.minimum(high, steps)
        part = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
        origin = first + low * np.array(self.spacing) - place
        return TissueMaps(self.white[part], self.grey[part], self.spacing, tuple(origin.tolist()))

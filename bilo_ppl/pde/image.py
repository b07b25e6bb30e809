"""Images and masks as domains, in two or three dimensions, with or without time.

An image is an array with an axis for each coordinate of space: ``image[i, j]`` belongs to the voxel whose
centre is ``origin + (i, j) * spacing``. The domain is the union of the voxels inside a mask.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilo_ppl._types import Points
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.image_checks import as_image, as_mask, as_probability, per_axis
from bilo_ppl.pde.image_function import ImageFunction

__all__ = ["ImageDomain", "image_domain"]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDomain(Box):
    """The voxels inside a mask: a box of which a part is cut off. `image_domain` makes one.

    As a `Box`, its limits are those of the image; `contains`, `grid`, `sample` and `scatter` keep to
    the mask, and so do points that are added by the residual. Two domains are equal if their limits
    and masks are.

    Examples:
        >>> image = bilo.image_domain(np.array([[0, 1, 1], [1, 1, 1]]))
        >>> image.contains(np.array([[0.0, 0.0], [0.0, 1.0]])).tolist()
        [False, True]
        >>> image.grid(2, 3).shape
        (5, 2)
    """

    mask: np.ndarray = dataclasses.field(kw_only=True, repr=False)
    """Which voxels are inside, bool, with an axis for each coordinate of space."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageDomain) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return (
            f"{super().__str__()}, of which {self.mask.sum()} of {self.mask.size} voxels are inside"
        )

    @functools.cached_property
    def _key(self) -> tuple:
        digest = hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest()
        return self.lower, self.upper, self.time, self.mask.shape, digest

    @property
    def spacing(self) -> tuple[float, ...]:
        """Edges of a voxel."""
        limits = zip(self.lower, self.upper, self.mask.shape, strict=False)  # time is last
        return tuple((b - a) / n for a, b, n in limits)

    @property
    def origin(self) -> tuple[float, ...]:
        """Centre of the voxel with all indices 0."""
        return tuple(a + h / 2 for a, h in zip(self.lower, self.spacing, strict=False))

    @property
    def volume(self) -> float:
        """Area or volume of space inside the mask.

        Examples:
            >>> bilo.image_domain(np.array([[0, 1], [1, 1]]), spacing=0.5).volume
            0.75
        """
        return float(self.mask.sum() * np.prod(self.spacing))

    @property
    def centres(self) -> Points:
        """Centres of the voxels inside ``(n, d)``, d coordinates of space.

        Examples:
            >>> bilo.image_domain(np.array([[0, 1], [1, 1]]), spacing=0.5).centres.tolist()
            [[0.0, 0.5], [0.5, 0.0], [0.5, 0.5]]
        """
        return np.argwhere(self.mask) * np.array(self.spacing) + np.array(self.origin)

    def until(self, end: float | int, start: float | int = 0.0) -> "ImageDomain":
        """The cylinder of the domain over [start, end], time being the last coordinate."""
        box = super().until(end, start)
        return ImageDomain(box.lower, box.upper, box.time, mask=self.mask)

    def contains(self, points: Points, slack: float = 1e-9) -> np.ndarray:
        """Which of the points ``(n, d)`` lie in a voxel inside, its faces included: ``(n,)``."""
        points = np.asarray(points, float)
        lower, spacing = np.array(self.lower), np.array(self.spacing)
        places = (points - lower)[:, : spacing.size] / spacing
        margin = slack * np.array(self.mask.shape)
        found = np.zeros(len(points), bool)
        for side in itertools.product((-1, 1), repeat=spacing.size):
            index = np.floor(places + np.array(side) * margin)
            last = np.array(self.mask.shape) - 1
            index = np.clip(np.nan_to_num(index), 0, last).astype(int)
            found |= self.mask[tuple(index.T)]
        return found & super().contains(points, slack)

    def grid(self, *axes: int | Sequence[float] | np.ndarray) -> Points:
        """Those points of the tensor grid on the image that lie inside: ``(n, d)``."""
        points = super().grid(*axes)
        return points[self.contains(points)]

    def sample(self, seed: int, n: int) -> Points:
        """``n`` independent points ``(n, d)``, uniform inside the mask (and in time)."""
        rng = np.random.default_rng(seed)
        inside = np.argwhere(self.mask)
        voxels = inside[rng.integers(len(inside), size=n)]
        uniform = rng.uniform(size=(n, self.dimension))
        dimension = len(self.spacing)
        space = np.array(self.spacing) * (voxels + uniform[:, :dimension])
        extent = np.array(self.upper) - np.array(self.lower)
        return np.array(self.lower) + np.concatenate(
            [space, extent[dimension:] * uniform[:, dimension:]], axis=1
        )

    def scatter(self, n: int) -> Points:
        """``n`` points ``(n, d)``, evenly scattered inside the mask (and in time): Halton's.

        Examples:
            >>> image = bilo.image_domain(np.array([[0, 1], [1, 1]]))
            >>> bool(image.contains(image.scatter(50)).all())
            True
        """
        from scipy.stats import qmc  # takes a second to import

        # Candidates lie in the smallest box about the mask.
        inside, dimension = np.argwhere(self.mask), len(self.spacing)
        lower, upper = np.array(self.lower, float), np.array(self.upper, float)
        first, spacing = lower[:dimension].copy(), np.array(self.spacing)
        lower[:dimension] = first + inside.min(axis=0) * spacing
        upper[:dimension] = first + (inside.max(axis=0) + 1) * spacing
        numbers = qmc.Halton(self.dimension, scramble=False)
        shift = 0.5 * (np.sqrt(5) - 1) * np.arange(1, self.dimension + 1)
        found = np.empty((0, self.dimension))
        while len(found) < n:
            others = lower + (numbers.random(max(2 * n, 64)) + shift) % 1 * (upper - lower)
            found = np.concatenate([found, others[self.contains(others)]])
        return found[:n]

    def values(self, function: Callable[[Any], Any]) -> np.ndarray:
        """A function of a point of space ``(d,)`` at the centres of all voxels: an image.

        Examples:
            >>> bilo.image_domain(np.ones((2, 3))).values(lambda x: x[0] + x[1]).tolist()
            [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
        """
        import jax

        index = np.moveaxis(np.indices(self.mask.shape), 0, -1)
        centres = index * np.array(self.spacing) + np.array(self.origin)
        values = jax.vmap(function)(centres.reshape(-1, len(self.spacing)))
        return np.asarray(values).reshape(self.mask.shape)

    def function(self, image: Any, name: str = "image") -> ImageFunction:
        """An image as a smooth function of a point; see `ImageFunction`.

        ``name`` is that of the image in messages. Raises a ``ValueError`` for another shape than the
        mask's, and for values that are not finite.

        Examples:
            >>> image = bilo.image_domain(np.ones((2, 3)), spacing=0.5)
            >>> ramp = image.function([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
            >>> bilo.grad(ramp)(jnp.array([0.25, 0.5])).round(6).tolist()
            [0.0, 2.0]
        """
        return ImageFunction.of(as_image(image, self.mask.shape, name), self.origin, self.spacing)

    def probability(self, image: Any, name: str = "image") -> ImageFunction:
        """The same for an image of probabilities; raises a ``ValueError`` also where they are none.

        Examples:
            >>> bilo.image_domain(np.ones((1, 3))).probability([[0, 128, 255]], "white")
            Traceback (most recent call last):
                ...
            ValueError: white must hold probabilities, between 0 and 1, but goes from 0 to 255; ...
        """
        return self.function(as_probability(image, self.mask.shape, name), name)

    def smoothed_mask(self, width: float) -> ImageFunction:
        """The mask smoothed by a Gaussian of standard deviation ``width``, in units of the spacing's.

        A function of a point with values in [0, 1], twice continuously differentiable; 1/2 near the
        boundary where that is flat. The splines smooth by spacing / sqrt(3) themselves, so that
        ``width`` must be at least that; raises a ``ValueError`` where it is not.

        Examples:
            >>> inside = bilo.image_domain(np.ones((20, 20))).smoothed_mask(width=1.0)
            >>> middle, edge = jnp.array([10.0, 10.0]), jnp.array([-0.5, 10.0])
            >>> round(float(inside(middle)), 2), round(float(inside(edge)), 2)
            (1.0, 0.5)
        """
        from scipy.ndimage import gaussian_filter

        spacing = np.array(self.spacing)
        left = width**2 - spacing**2 / 3
        if not (np.isfinite(width) and (left >= 0).all()):
            raise ValueError(
                f"ImageDomain.smoothed_mask: the width must be at least the voxels' edges / sqrt(3), "
                f"{spacing.max() / np.sqrt(3):.3g}, got {width}."
            )
        sigma = np.sqrt(left) / spacing
        # Outside of the image is outside of the domain.
        room = np.ceil(4 * sigma).astype(int) + 1
        padded = np.pad(self.mask.astype(float), [(r, r) for r in room])
        smooth = np.clip(gaussian_filter(padded, sigma, mode="constant"), 0, 1)
        return ImageFunction.of(smooth, np.array(self.origin) - room * spacing, self.spacing)


def image_domain(
    mask: Any, spacing: float | Sequence[float] = 1.0, origin: float | Sequence[float] | None = None
) -> ImageDomain:
    """The voxels inside a mask as a domain of space.

    **Arguments**

    - ``mask``: bool (or 0 and 1), with an axis for each coordinate, 2 or 3 of them.
    - ``spacing``: edges of a voxel, a number or one for each axis; positive: flip an image whose axis
      points the other way.
    - ``origin``: centre of the voxel with all indices 0; by default the point 0.

    ``space_time(image_domain(...), end)`` adds time. Raises a ``ValueError`` for a mask that is empty,
    no mask, or of another dimension.

    Examples:
        >>> mask = np.array([[0, 1, 1], [1, 1, 1]])
        >>> image = bilo.image_domain(mask, spacing=0.5)
        >>> str(image)
        '[-0.25, 0.75] x [-0.25, 1.25], of which 5 of 6 voxels are inside'
        >>> bilo.space_time(image, end=2.0).coordinates
        ('x', 'y', 't')
    """
    mask = as_mask(mask)
    edges = per_axis("spacing", spacing, mask.ndim)
    if (edges <= 0).any():
        raise ValueError(
            f"image_domain: spacing must be positive, got {edges.tolist()}; flip an axis that points the "
            "other way (np.flip) and give its length."
        )
    first = per_axis("origin", 0.0 if origin is None else origin, mask.ndim) - edges / 2
    last = first + edges * np.array(mask.shape)
    return ImageDomain(tuple(first.tolist()), tuple(last.tolist()), mask=mask)

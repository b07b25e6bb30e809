"""A function of space and time from its values on a masked image at some times."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Scalar
from bilo_ppl.pde.image import ImageDomain

__all__ = ["ImageSeries", "continued", "nearest_inside"]

_ROOM = 2


class ImageSeries(eqx.Module):
    """Interpolated by cubics in space, and in time by those through the four nearest times.

    Where there are fewer times, all are used. Outside of the mask, and of the image, it goes on with the
    value of the nearest voxel inside, as fits a boundary without flux. Before the first and after the
    last time it is NaN. `ReactionDiffusion` gives its solutions in this form.

    Examples:
        >>> from bilo_ppl.numerics import ImageSeries
        >>> isinstance(field, ImageSeries)  # of the example before
        True
        >>> field.images.shape, field.times
        ((5, 4, 5), (0.0, 0.25, 0.5, 0.75, 1.0))
        >>> float(field(jnp.array([1.0, 2.0, 1.5])))  # after the last time
        nan
    """

    values: Float[Array, "..."]
    """``(times, ...)``: images continued by some voxels on all sides, see `continued`."""
    times: tuple[float, ...] = eqx.field(static=True)
    origin: tuple[float, ...] = eqx.field(static=True)
    """Centre of the image's first voxel."""
    spacing: tuple[float, ...] = eqx.field(static=True)

    @property
    def images(self) -> Float[Array, "..."]:
        """The values at the voxels ``(times, ...)``; meaningless outside of the mask."""
        inner = (slice(_ROOM, -_ROOM),) * len(self.spacing)
        return self.values[:, *inner]

    def __call__(self, x: Shaped[Any, " n"]) -> Scalar:
        """The value at a point ``(d + 1,)``, time last."""
        dtype = self.values.dtype
        x = jnp.asarray(x, dtype)
        origin, spacing = (jnp.asarray(v, dtype) for v in (self.origin, self.spacing))
        shape = np.array(self.values.shape[1:])
        place = (x[:-1] - origin) / spacing + _ROOM
        place = jnp.clip(place, 1, jnp.asarray(shape - 2, dtype))
        cell = jnp.floor(jax.lax.stop_gradient(place)).astype(int)
        cell = jnp.clip(cell, 1, jnp.asarray(shape - 3))
        at, weights = self._in_time(x[-1])
        corner = (at.astype(cell.dtype), *(cell - 1))
        sizes = (weights.size, *(4,) * len(spacing))
        block = jax.lax.dynamic_slice(self.values, corner, sizes)
        block = jnp.tensordot(weights, block, axes=1)
        for axis in range(len(spacing)):
            block = jnp.tensordot(_cubics(place[axis] - cell[axis]), block, axes=1)
        return block

    def _in_time(self, t: Scalar) -> tuple[Array, Array]:
        """The first of the times to use, and the weights of these times (Lagrange)."""
        times = jnp.asarray(self.times, t.dtype)
        size = min(4, len(self.times))
        after = jnp.searchsorted(times, jax.lax.stop_gradient(t))
        first = jnp.clip(after - size // 2, 0, len(self.times) - size)
        near = jax.lax.dynamic_slice(times, (first,), (size,))
        other = ~np.eye(size, dtype=bool)
        gaps = jnp.where(other, near[:, None] - near[None, :], 1)
        weights = jnp.prod(jnp.where(other, t - near[None, :], 1) / gaps, axis=1)
        slack = 1e-6 * (self.times[-1] - self.times[0]) + 1e-6 * abs(self.times[-1])
        known = (t >= times[0] - slack) & (t <= times[-1] + slack)
        return first, jnp.where(known, weights, jnp.nan)


def nearest_inside(domain: ImageDomain) -> np.ndarray:
    """For every voxel of the continued image the number of the nearest one inside the mask."""
    from scipy.ndimage import distance_transform_edt

    outside = np.pad(~domain.mask, _ROOM, constant_values=True)
    index: Any = distance_transform_edt(
        outside, domain.spacing, return_distances=False, return_indices=True
    )
    return np.asarray(np.ravel_multi_index(tuple(index - _ROOM), domain.mask.shape))


def continued(images: Shaped[Any, "..."], nearest: Any) -> Shaped[Any, "..."]:
    """Images ``(times, ...)`` continued from inside the mask, by the numbers of `nearest_inside`."""
    return images.reshape(len(images), -1)[:, nearest]


def _cubics(s: Scalar) -> Float[Array, "4"]:
    """Weights of four equidistant nodes in the cubic through them, s after the second of them."""
    outer = s * (1 - s) / 6
    return jnp.stack(
        [-outer * (2 - s), (1 - s**2) * (2 - s) / 2, s * (1 + s) * (2 - s) / 2, -outer * (1 + s)]
    )

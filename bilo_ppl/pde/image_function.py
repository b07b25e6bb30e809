"""Images as smooth functions of a point, for use inside of residuals."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Scalar

__all__ = ["ImageFunction"]

_ROOM = 3


class ImageFunction(eqx.Module):
    """A sum of cubic B-splines whose coefficients are the values of an image at its voxels.

    It is twice continuously differentiable, stays between the smallest and the largest value of the
    image, and is linear where the image is. It smooths a little, by a kernel of standard deviation
    spacing / sqrt(3): an interpolation would overshoot at the edges of tissues. Beyond the image it
    goes on with the values at the border. Derivatives along x are exact (`bilo_ppl.grad`).
    `ImageDomain.function` makes one.

    Examples:
        >>> from bilo_ppl.pde.image_function import ImageFunction
        >>> step = ImageFunction.of(np.repeat([[0.0, 1.0]], 2, axis=0), (0.0, 0.0), (1.0, 1.0))
        >>> round(float(step(jnp.array([0.5, 0.5]))), 6), round(float(step(jnp.array([0.5, 9.0]))), 6)
        (0.5, 1.0)
    """

    coefficients: Shaped[Any, "..."]
    """The image, continued by a few voxels on all sides."""
    first: tuple[float, ...] = eqx.field(static=True)
    """Centre of the first of these voxels."""
    spacing: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, image: np.ndarray, origin: Any, spacing: Sequence[float]) -> "ImageFunction":
        """The function of an image whose first voxel has its centre at ``origin``."""
        padded = np.pad(np.asarray(image, float), _ROOM, mode="edge")
        first = np.asarray(origin, float) - _ROOM * np.asarray(spacing, float)
        return cls(padded, tuple(first.tolist()), tuple(float(h) for h in spacing))

    def __call__(self, x: Shaped[Any, " n"]) -> Scalar:
        """The value at a point, whose first coordinates are those of space (time may follow)."""
        dimension = len(self.spacing)
        x = jnp.asarray(x)[:dimension]
        first, spacing = (jnp.asarray(v, x.dtype) for v in (self.first, self.spacing))
        last = jnp.asarray(self.coefficients.shape, x.dtype) - 3
        place = jnp.clip((x - first) / spacing, 1, last)
        cell = jnp.minimum(jnp.floor(jax.lax.stop_gradient(place)), last - 1)
        corner = tuple(cell.astype(int) - 1)
        values = jnp.asarray(self.coefficients, x.dtype)
        block = jax.lax.dynamic_slice(values, corner, (4,) * dimension)
        for axis in range(dimension):
            block = jnp.tensordot(_splines(place[axis] - cell[axis]), block, axes=1)
        return block


def _splines(s: Scalar) -> Float[Array, "4"]:
    """The four cubic B-splines that do not vanish, s in [0, 1] after the second of their nodes."""
    rest = 1 - s
    middle = [4 - 3 * t**2 * (2 - t) for t in (s, rest)]
    return jnp.stack([rest**3, *middle, s**3]) / 6

"""Diffusion on the voxels inside a mask, without flux through its boundary, in any dimension.

The flux through the face between two voxels is the conductance of the face times the difference of their
values. A conductance is the harmonic mean of both diffusivities, exact where they are constant within
voxels (tissues), over the squared spacing; it is 0 where one of the voxels is outside. So what leaves
a voxel enters another: mass is conserved.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Diffusion"]


class Diffusion(eqx.Module):
    """The matrix of ``-div(D grad u)`` on an image: symmetric, and 0 outside of the mask.

    With a phase, a smoothed mask phi in (0, 1], it is that of ``-div(phi D grad u)``.
    """

    conductances: tuple[Float[Array, "..."], ...]
    """For every axis those of the faces between neighbours: one fewer than voxels along the axis."""

    @classmethod
    def of(
        cls, diffusivity: Float[Array, "..."], mask: Any, phase: Any, spacing: tuple[float, ...]
    ) -> "Diffusion":
        """From the diffusivities of the voxels, inside and outside, and the phase there (or None)."""
        dtype = diffusivity.dtype
        inside = jnp.asarray(mask, dtype)
        known = jnp.where(mask, diffusivity, jnp.zeros((), dtype))
        conductances = []
        for axis, h in enumerate(spacing):
            total = _before(known, axis) + _after(known, axis)
            product = 2 * _before(known, axis) * _after(known, axis)
            mean = product / jnp.where(total == 0, jnp.ones((), dtype), total)
            both = _before(inside, axis) * _after(inside, axis)
            if phase is not None:
                weight = jnp.asarray(phase, dtype)
                both = both * (_before(weight, axis) + _after(weight, axis)) / 2
            conductances.append(mean * both / jnp.asarray(h**2, dtype))
        return cls(tuple(conductances))

    @property
    def diagonal(self) -> Float[Array, "..."]:
        """The diagonal of the matrix, an image."""
        sums = [
            _along(k, axis, 1, 0) + _along(k, axis, 0, 1)
            for axis, k in enumerate(self.conductances)
        ]
        return sum(sums[1:], sums[0])

    def apply(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """The matrix times an image: the flux out of every voxel, over its volume."""
        outflows = []
        for axis, k in enumerate(self.conductances):
            flux = k * jnp.diff(u, axis=axis)
            outflows.append(_along(flux, axis, 1, 0) - _along(flux, axis, 0, 1))
        return sum(outflows[1:], outflows[0])


def _before(image: Array, axis: int) -> Array:
    return jax.lax.slice_in_dim(image, 0, image.shape[axis] - 1, axis=axis)


def _after(image: Array, axis: int) -> Array:
    return jax.lax.slice_in_dim(image, 1, image.shape[axis], axis=axis)


def _along(values: Array, axis: int, before: int, after: int) -> Array:
    """With zeros put in before and after along an axis."""
    room = [(before, after) if i == axis else (0, 0) for i in range(values.ndim)]
    return jnp.pad(values, room)

"""Fourier neural operator on an equidistant grid of an interval or a rectangle.

    v_0 = P(theta, x),   v_{l+1} = gelu(W_l v_l + F^-1(R_l F v_l)),   raw = Q(v_L)

with the Fourier transform F cut off at some modes (Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya,
Stuart, Anandkumar, *ICLR* 2021). Nothing here is periodic: the grid is padded by zeros. Between grid
points the output is interpolated linearly.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from bilo_ppl._types import Key

__all__ = ["FNO"]

PADDING = 4
"""One in so many grid points is added at the end of every axis."""


class _Layer(eqx.Module):
    """A linear map of the channels, and one of the lowest Fourier modes."""

    weight: Float[Array, "c c"]
    bias: Float[Array, " c"]
    real: Float[Array, "..."]
    imaginary: Float[Array, "..."]
    modes: int = eqx.field(static=True)

    def __init__(self, channels: int, modes: int, dimension: int, key: Key):
        keys = jax.random.split(key, 3)
        self.weight = jax.random.normal(keys[0], (channels, channels), jnp.float32) / channels**0.5
        self.bias = jnp.zeros(channels, jnp.float32)
        # Along all axes but the last there are negative frequencies too.
        shape = (*[2 * modes] * (dimension - 1), modes, channels, channels)
        self.real, self.imaginary = (
            jax.random.normal(k, shape, jnp.float32) / channels for k in keys[1:]
        )
        self.modes = modes

    def __call__(self, v: Float[Array, "... c"]) -> Float[Array, "... c"]:
        axes = tuple(range(v.ndim - 1))
        spectrum = jnp.fft.rfftn(v, axes=axes)
        kept = _lowest(spectrum, self.modes, axes)
        mapped = jnp.einsum("...i,...io->...o", kept, self.real + 1j * self.imaginary)
        spectrum = _embedded(mapped, spectrum.shape, self.modes, axes)
        smooth = jnp.fft.irfftn(spectrum, s=v.shape[:-1], axes=axes)
        return v @ self.weight.T + jnp.broadcast_to(self.bias, v.shape) + smooth.astype(v.dtype)


class FNO(eqx.Module):
    """From an encoded theta ``(m,)`` to values on a grid, and from there to a point.

    Every number of theta is a channel that is constant over the grid, or, for a function of theta that is
    known on the grid (``sampled``), one channel with its values. Raises a ``ValueError`` for more modes
    than half the points along an axis.

    >>> from bilo_ppl.surrogates import FNO
    >>> network = FNO([0.0], [1.0], (16,), 1, 1, channels=4, modes=4, depth=1, key=key)
    >>> values = network.at(jnp.array([0.5]))  # of a theta, at all points of the grid
    >>> values.shape, network.grid.shape
    ((1, 16), (16, 1))
    >>> bool(network.value(values, jnp.array([1.0]))[0] == values[0, -1])  # between them, linear
    True
    """

    enter: Float[Array, "c inputs"]
    layers: list[_Layer]
    leave: eqx.nn.MLP
    sampled: bool = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        lower: Any,
        upper: Any,
        shape: tuple[int, ...],
        thetas: int,
        components: int,
        *,
        sampled: bool = False,
        channels: int = 24,
        modes: int = 12,
        depth: int = 3,
        key: Key,
    ):
        """A grid of ``shape`` points between two corners; ``thetas`` is the size of an encoded theta."""
        if any(modes > n // 2 for n in shape):
            raise ValueError(f"FNO: a grid of {shape} points has no {modes} modes along each axis.")
        keys = jax.random.split(key, depth + 2)
        dimension = len(shape)
        inputs = (1 if sampled else thetas) + dimension
        self.enter = jax.random.normal(keys[0], (channels, inputs), jnp.float32) / inputs**0.5
        self.layers = [_Layer(channels, modes, dimension, k) for k in keys[1:-1]]
        self.leave = eqx.nn.MLP(
            channels, components, 2 * channels, 1, jax.nn.gelu, dtype=jnp.float32, key=keys[-1]
        )
        self.sampled, self.shape = sampled, tuple(shape)
        self.lower, self.upper = tuple(map(float, lower)), tuple(map(float, upper))

    @property
    def grid(self) -> np.ndarray:
        """The points of the grid, ``(n, d)``."""
        axes = [
            np.linspace(a, b, n) for a, b, n in zip(self.lower, self.upper, self.shape, strict=True)
        ]
        return np.stack([c.ravel() for c in np.meshgrid(*axes, indexing="ij")], axis=1)

    def at(self, t: Float[Array, " m"]) -> Float[Array, "components *grid"]:
        """The output on the grid."""
        unit = (self.grid - np.array(self.lower)) / (np.array(self.upper) - np.array(self.lower))
        place = jnp.asarray(2 * unit - 1, jnp.float32).reshape(*self.shape, -1)
        channels = self.enter.shape[1] - len(self.shape)
        known = jnp.broadcast_to(
            t.reshape(*self.shape, 1) if self.sampled else t, (*self.shape, channels)
        )
        v = jnp.concatenate([known, place], axis=-1) @ self.enter.T
        v = jnp.pad(v, [*((0, n // PADDING) for n in self.shape), (0, 0)])
        for number, layer in enumerate(self.layers):
            v = layer(v)
            v = jax.nn.gelu(v) if number < len(self.layers) - 1 else v
        v = v[tuple(slice(n) for n in self.shape)]
        out = jax.vmap(self.leave)(v.reshape(-1, v.shape[-1]))
        return out.T.reshape(-1, *self.shape)

    def value(
        self, values: Float[Array, "components *grid"], x: Float[Array, " d"]
    ) -> Float[Array, " components"]:
        """The output at a point of the domain, from that on the grid."""
        lower, upper = jnp.asarray(self.lower), jnp.asarray(self.upper)
        place = (x - lower) / (upper - lower) * (jnp.asarray(self.shape) - 1)
        coordinates = [jnp.reshape(c, (1,)) for c in place]
        at = jax.vmap(lambda v: map_coordinates(v, coordinates, order=1, mode="nearest")[0])
        return at(values)


def _lowest(spectrum: Any, modes: int, axes: tuple[int, ...]) -> Any:
    """The lowest modes: along the last axis the first ones, along others also the negative ones."""
    for axis in axes[:-1]:
        low = jax.lax.slice_in_dim(spectrum, 0, modes, axis=axis)
        high = jax.lax.slice_in_dim(
            spectrum, spectrum.shape[axis] - modes, spectrum.shape[axis], axis=axis
        )
        spectrum = jnp.concatenate([low, high], axis=axis)
    return jax.lax.slice_in_dim(spectrum, 0, modes, axis=axes[-1])


def _embedded(kept: Any, shape: tuple[int, ...], modes: int, axes: tuple[int, ...]) -> Any:
    """The modes in a spectrum that is zero elsewhere: the inverse of `_lowest`."""
    widths = [(0, 0)] * kept.ndim
    widths[axes[-1]] = (0, shape[axes[-1]] - modes)
    kept = jnp.pad(kept, widths)
    for axis in axes[:-1]:
        low = jax.lax.slice_in_dim(kept, 0, modes, axis=axis)
        high = jax.lax.slice_in_dim(kept, modes, 2 * modes, axis=axis)
        gap = list(kept.shape)
        gap[axis] = shape[axis] - 2 * modes
        kept = jnp.concatenate([low, jnp.zeros(gap, kept.dtype), high], axis=axis)
    return kept

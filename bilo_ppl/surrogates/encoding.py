"""Theta as the numbers that a neural operator sees."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Theta

__all__ = ["ThetaEncoding"]


class ThetaEncoding(eqx.Module):
    """Scalars and arrays as they are, functions by their values at sensors; then centred and scaled.

    Centre and scale of every number are those of the training set, whatever its distribution was.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    sensors: Float[Array, "s d"]
    """Points at which functions are seen."""
    centre: Float[Array, " m"]
    scale: Float[Array, " m"]

    @classmethod
    def of(cls, names: tuple[str, ...], thetas: Any, sensors: Any) -> "ThetaEncoding":
        """The encoding for a batch of thetas, a leading axis on every array."""
        sensors = jnp.asarray(sensors, jnp.float32)
        raw = eqx.filter_vmap(lambda theta: _numbers(names, theta, sensors))(thetas)
        sd = jnp.std(raw, axis=0)
        # A number that never changed tells nothing: it must not be blown up.
        return cls(names, sensors, jnp.mean(raw, axis=0), jnp.where(sd > 0, sd, 1.0))

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.centre.size

    def __call__(self, theta: Theta) -> Float[Array, " m"]:
        """The numbers of one theta."""
        raw = _numbers(self.names, theta, self.sensors)
        return (raw - self.centre) / self.scale


def _numbers(names: tuple[str, ...], theta: Theta, sensors: Any) -> Float[Array, " m"]:
    parts = []
    for name in names:
        entry = theta[name]
        values: Any = jax.vmap(entry)(sensors) if callable(entry) else entry
        parts.append(jnp.ravel(jnp.asarray(values)).astype(jnp.float32))
    return jnp.concatenate(parts)

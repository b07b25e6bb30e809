"""Entries of a theta as first values of the sample sites of the same names."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from bilo_ppl.fields.weights import field_weights
from bilo_ppl.ppl.data_sites import innermost

__all__ = ["as_site_value", "site_values"]


def as_site_value(value: Any, fn: Any) -> Any:
    """An entry of theta as a value of a site with the distribution ``fn``; None if it is none.

    A field stands for its weights. A site that has more axes than the entry, such as one number for each
    of several experiments, has the entry as every one of its values.
    """
    value = field_weights(value) if callable(value) else jnp.asarray(value, jnp.result_type(float))
    shape = fn.shape()
    if value.shape == shape:
        return value
    missing = len(shape) - value.ndim
    # A simplex, say, is no repetition of numbers: only independent values are.
    if value.ndim < len(innermost(fn).event_shape) or missing < 1 or shape[missing:] != value.shape:
        return None
    return jnp.broadcast_to(value, shape)


def site_values(theta: Mapping[str, Any], latent: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of theta that are values of latent sites, messages by name: see `as_site_value`."""
    found = {n: as_site_value(v, latent[n]["fn"]) for n, v in theta.items() if n in latent}
    return {name: value for name, value in found.items() if value is not None}

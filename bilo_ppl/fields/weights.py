"""The trainable numbers of a field, as one vector: what a sampler or an optimiser moves."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl.network.trainable import trainable

__all__ = ["field_weights", "with_field_weights"]

F = TypeVar("F")


def _in_default_precision(field: F) -> F:
    """The field with its numbers in the precision of a sampler."""

    def cast(leaf):
        numeric = isinstance(leaf, (float, np.floating)) or eqx.is_inexact_array(leaf)
        return jnp.asarray(leaf, jnp.result_type(float)) if numeric else leaf

    return jax.tree.map(cast, field)


def field_weights(field: Any) -> Float[Array, " n"]:
    """The trainable numbers of a field, as one vector in default precision.

    For a site of `unknown_function` they are the value that stands for ``field``:
    ``init_to_value(values={"f": field_weights(field)})``. Raises a ``ValueError`` for a field
    without trainable arrays.

    Examples:
        >>> field = bilo.KarhunenLoeve(jnp.array([1.0, -0.5, 0.25]))
        >>> bilo.field_weights(field).tolist()
        [1.0, -0.5, 0.25]
    """
    field = _in_default_precision(field)
    flat, _ = ravel_pytree(eqx.filter(field, trainable(field)))
    if not flat.size:
        raise ValueError(
            f"{type(field).__name__} has no trainable arrays: a field to infer is an Equinox module "
            "that holds its numbers as arrays, such as NetworkField or KarhunenLoeve."
        )
    return flat


def with_field_weights(field: F, weights: Any) -> F:
    """The field with other trainable numbers ``(n,)``, in the order of `field_weights`.

    Raises a ``ValueError`` for another number of them.

    Examples:
        >>> from bilo_ppl.fields import with_field_weights
        >>> field = bilo.KarhunenLoeve(jnp.array([1.0, -0.5]))
        >>> doubled = with_field_weights(field, 2 * bilo.field_weights(field))
        >>> bilo.field_weights(doubled).tolist()
        [2.0, -1.0]
    """
    field = _in_default_precision(field)
    free, fixed = eqx.partition(field, trainable(field))
    flat, unravel = ravel_pytree(free)
    weights = jnp.asarray(weights, flat.dtype)
    if weights.shape != flat.shape:
        raise ValueError(
            f"{type(field).__name__} has {flat.size} trainable numbers; the weights given have "
            f"shape {weights.shape}, not ({flat.size},)."
        )
    return eqx.combine(unravel(weights), fixed)

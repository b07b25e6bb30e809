"""Prior densities of single unknowns, where these have one: the prior of some depends on others."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, MultivariateNormal, Normal

from bilo_ppl.ppl.data_sites import data_mask, innermost
from bilo_ppl.ppl.look import look_at

__all__ = ["prior_density"]

ENTRY = re.compile(r"(.+)\[(\d+(?:,\d+)*)\]")
"""The name of an entry of a site, as tables and figures have it."""


def prior_density(
    model: Callable, args: tuple, kwargs: Mapping[str, Any], name: str, x: Any
) -> np.ndarray | None:
    """Density ``(n,)`` of the prior of a number at values ``x`` ``(n,)``; nothing is solved.

    ``name`` is that of a scalar latent site, or of an entry of an array such as ``b[1,2]``. None where
    there is no such number, its marginal density is not known, or its prior depends on other unknowns, as
    in a hierarchy: it is looked at with two sets of values, and must be the same.
    """
    found = []
    for seed in (0, 1):
        latent = look_at(model, args, kwargs, key=jax.random.key(seed)).latent
        density = _density(latent, name, np.asarray(x, float))
        if density is None:
            return None
        found.append(density)
    one, other = (np.nan_to_num(values) for values in found)
    return one if np.allclose(one, other, rtol=1e-6, atol=1e-12) else None


def _density(latent: Mapping[str, Any], name: str, x: np.ndarray) -> np.ndarray | None:
    site, index = latent.get(name), ()
    if site is None and (entry := ENTRY.fullmatch(name)):
        site, index = latent.get(entry[1]), tuple(map(int, entry[2].split(",")))
    shape = () if site is None else np.shape(site["value"])
    if site is None or len(index) != len(shape):
        return None
    if any(i >= n for i, n in zip(index, shape, strict=True)):
        return None
    of_each = _of_entries(site["fn"])
    if of_each is None:
        return None
    of_all = jax.vmap(lambda value: jnp.broadcast_to(of_each.log_prob(value), shape)[index])
    with np.errstate(all="ignore"):
        return np.exp(np.asarray(of_all(x)))


def _of_entries(fn: Any) -> Distribution | None:
    """The marginal distributions of the entries of a value; None where these are not known."""
    if not np.all(data_mask(fn)):
        return None
    base = innermost(fn)
    if isinstance(base, MultivariateNormal):
        return Normal(base.mean, base.variance**0.5)
    return None if base.event_shape else base

"""Prior densities of single unknowns, where these have one: the prior of some depends on others."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from bilo_ppl.ppl.look import look_at

__all__ = ["prior_density"]


def prior_density(
    model: Callable, args: tuple, kwargs: Mapping[str, Any], name: str, x: Any
) -> np.ndarray | None:
    """Density ``(n,)`` of the prior of a scalar latent site at values ``x`` ``(n,)``; nothing is solved.

    None where the site is no scalar, or its prior depends on other unknowns, as in a hierarchy: it is
    looked at with two sets of values, and must be the same.
    """
    found = []
    for seed in (0, 1):
        site = look_at(model, args, kwargs, key=jax.random.key(seed)).latent.get(name)
        if site is None or np.ndim(site["value"]):
            return None
        with np.errstate(all="ignore"):
            found.append(np.exp(np.asarray(jax.vmap(site["fn"].log_prob)(np.asarray(x, float)))))
    one, other = (np.nan_to_num(values) for values in found)
    return one if np.allclose(one, other, rtol=1e-6, atol=1e-12) else None

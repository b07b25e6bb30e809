"""The prior of unconstrained values as a Gaussian, where it is one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import LogNormal, Normal

from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.look import look_at

__all__ = ["prior_moments"]


def prior_moments(
    model: Callable, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Means and variances of a model's latent sites, unconstrained, in the order of NumPyro's kernels.

    A log-normal value is the exponential of an unconstrained one that is normal. Raises a ``ValueError``
    for other priors.
    """
    look = look_at(model, args, kwargs)
    means, variances = {}, {}
    for name, site in look.latent.items():
        fn = innermost(site["fn"])
        if not isinstance(fn, (Normal, LogNormal)):
            raise ValueError(
                f"PCN: the prior of {name!r} is {type(fn).__name__}, no Gaussian in unconstrained space; "
                "give mean= and covariance=, such as Laplace's."
            )
        shape = site["fn"].shape()
        means[name] = jnp.broadcast_to(jnp.asarray(fn.loc, float), shape)
        variances[name] = jnp.broadcast_to(jnp.asarray(fn.scale, float) ** 2, shape)
    return ravel_pytree(means)[0], ravel_pytree(variances)[0]

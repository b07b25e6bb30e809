"""B-PINN: the weights of the network are sampled, and the equation is a second kind of data.

    p(W, theta | y)  ~  p(y | u(.; W)) p(theta) prod_j N(W_j; 0, s_w^2) prod_i N(r(x_i); 0, s_r^2)

with the residual r of u(.; W) at theta and the collocation points x_i (Yang, Meng, Karniadakis,
*J. Comput. Phys.* 425, 2021). s_r is no noise that was measured: the smaller, the nearer u is to a
solution, and the harder the posterior of thousands of weights is to sample. The posterior of theta
depends on s_r, on the priors of the weights and on the number of collocation points.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers

from bilo_ppl._types import Points, Weights
from bilo_ppl.baselines.free_network import FreeNetwork, free_networks
from bilo_ppl.ppl.experiments import values_at

__all__ = ["NETWORK", "bpinn", "solutions_at_draws"]

NETWORK = "{}_network"
"""Name of the site with the weights of the network at a solution site."""


def bpinn(model: Callable, *, residual_sd: float | int, weight_sd: float | int = 1.0) -> Callable:
    """The B-PINN of a model: an ordinary NumPyro model with the same arguments.

    The operator among them must be a `FreeNetwork`. All weights of the network at a solution site "u" are
    one site "u_network" with priors ``Normal(0, weight_sd)``, and the residual at every collocation point
    is a datum of zero with standard deviation ``residual_sd``, as is each of the problem's conditions.
    Raises a ``ValueError`` unless both are positive.

    >>> from bilo_ppl.baselines import bpinn
    >>> joint = bpinn(model, residual_sd=0.01)
    >>> seeded = numpyro.handlers.seed(joint, key)
    >>> sorted(numpyro.handlers.trace(seeded).get_trace(free, x, y))
    ['r', 'u', 'u_equation', 'u_network', 'y']
    """
    for name, value in (("residual_sd", residual_sd), ("weight_sd", weight_sd)):
        if not value > 0:
            raise ValueError(f"bpinn: {name} is {value}; it must be positive.")

    def joint(*args, **kwargs):
        networks = free_networks(
            model,
            weights_of=partial(_drawn, weight_sd),
            measure=FreeNetwork.sum_of_squares,
        )
        value = networks(*args, **kwargs)
        for name, squares in networks.losses.items():
            numpyro.factor(f"{name}_equation", -squares / (2 * residual_sd**2))
        return value

    return joint


def _drawn(weight_sd: float | int, name: str, operator: FreeNetwork, batch: int | None) -> Weights:
    """The weights at a solution site, drawn from their prior."""
    flat, unravel = ravel_pytree(operator.init_state())
    shape = flat.shape if batch is None else (batch, *flat.shape)
    prior = dist.Normal(0.0, weight_sd).expand(shape).to_event(len(shape))
    drawn: Any = numpyro.sample(NETWORK.format(name), prior)
    drawn = drawn.astype(flat.dtype)
    return unravel(drawn) if batch is None else jax.vmap(unravel)(drawn)


def solutions_at_draws(
    model: Callable, draws: Mapping[str, Any], points: Points, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Values ``(k, n, ...)`` of u at points ``(n, d)`` for k draws of a B-PINN, by solution site.

    ``model`` is that of the PDE, not of `bpinn`; ``draws`` are values by site, ``(k, ...)``.

    >>> from bilo_ppl.baselines import solutions_at_draws
    >>> drawn = {"r": jnp.full(3, 9.0), "u_network": jnp.tile(z["u_network"], (3, 1))}
    >>> solutions_at_draws(model, drawn, x, free, x, y)["u"].shape == (3, len(x))
    True
    """
    points = jnp.asarray(points)

    def one(values):
        networks = free_networks(
            model, weights_of=partial(_drawn, 1.0), measure=FreeNetwork.sum_of_squares
        )
        handlers.seed(handlers.substitute(networks, data=values), 0)(*args, **kwargs)
        return {name: values_at(field, points) for name, field in networks.fields.items()}

    return jax.jit(lambda draws: jax.lax.map(one, draws))(dict(draws))

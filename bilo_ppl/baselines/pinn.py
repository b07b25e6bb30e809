"""PINN: network and theta trained together on the data and the residual (Raissi et al., 2019).

    minimise over W and theta   mean r(x_i; W, theta)^2 + w mean (u(x_j; W) - y_j)^2

with a data weight w that has to be guessed: where it is small theta does not move, where it is large the
network fits the noise, and u is no solution of the equation at the theta that comes out.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer.util import potential_energy

from bilo_ppl._descent import descend
from bilo_ppl._types import Key, Points
from bilo_ppl.baselines.free_network import FreeNetwork, free_networks
from bilo_ppl.estimate.first_guess import find_start
from bilo_ppl.mcmc._numpyro import constrain_fn
from bilo_ppl.ppl.data_sites import data_mask, innermost, is_data
from bilo_ppl.ppl.experiments import initial_states, values_at
from bilo_ppl.ppl.look import look_at

__all__ = ["PINN", "fit_pinn", "mean_square_units"]


@dataclasses.dataclass(frozen=True)
class PINN:
    """A network and the theta found with it.

    >>> bool(pinn.history[-1] < pinn.history[0])  # of the example before
    True
    >>> pinn.solution(x, "u").shape, pinn.misfit > 0, pinn.pde_loss > 0
    ((10,), True, True)
    """

    values: Mapping[str, Any]
    """Latent sites, in the space of the model."""
    solutions: Mapping[str, Any]
    """u by solution site: a function of a point."""
    pde_loss: float
    """Mean squared residual of u at the theta found, summed over solution sites."""
    misfit: float
    """What stands beside it, without the data weight: of Gaussian data the mean squared misfit, and what
    priors and penalties add."""
    history: np.ndarray
    """The objective at every step."""

    def solution(self, points: Points, site: str) -> Any:
        """Values of u at points ``(n, d)``: ``(n,)`` or ``(n, components)``.

        ``site`` is the name of the solution; a ``KeyError`` for another.
        """
        return np.asarray(values_at(self.solutions[site], jnp.asarray(points)))


def fit_pinn(
    model: Callable,
    key: Key,
    *model_args: Any,
    data_weight: float | int,
    steps: int,
    optimizer: optax.GradientTransformation | None = None,
    init: Mapping[str, Any] | None = None,
    progress: bool = True,
    **model_kwargs: Any,
) -> PINN:
    """Train the network behind a model, and the latent sites, on data and equation.

    The operator among the model's arguments must be a `FreeNetwork`, from whose weights training
    starts. What is minimised is

        mean squared residual + data_weight * misfit,   misfit = U / N,

    with U = -log p(values, data) of the model, priors and penalties included, and N the sum of
    1 / (2 sigma_j^2) over Gaussian data: U / N is then the mean squared misfit, weighted by 1 / sigma^2,
    up to a constant. Of other data N is their number, of factors 1.

    **Arguments**

    - ``data_weight``: w; the papers take 1, 10, 100 and 1000.
    - ``optimizer``: of weights and unconstrained values together; by default Adam, whose step of 1e-3
      falls to 1e-5 along a cosine.
    - ``init``: first values of latent sites; the others start as in `find_map`.

    Raises a ``ValueError`` as `find_map` does for a model or a start that cannot be used.

    >>> from bilo_ppl.baselines import fit_pinn
    >>> pinn = fit_pinn(model, key, free, x, y, data_weight=10, steps=20, progress=False)
    >>> sorted(pinn.values), sorted(pinn.solutions)
    (['r'], ['u'])
    """
    if not data_weight > 0:
        raise ValueError(f"fit_pinn: data_weight is {data_weight}; it must be positive.")
    if steps < 1:
        raise ValueError(f"fit_pinn: steps is {steps}; the least is 1.")
    start = find_start(model, key, model_args, model_kwargs, init or {})
    units = mean_square_units(model, model_args, model_kwargs)

    def parts(unknowns):
        networks = _network(model, unknowns["weights"])
        energy = potential_energy(networks, model_args, model_kwargs, unknowns["z"])
        return sum(networks.losses.values()), jnp.asarray(energy) / units

    def objective(unknowns, step):
        pde_loss, misfit = parts(unknowns)
        return pde_loss + data_weight * misfit

    weights = initial_states(start.operators, start.batches)
    unknowns, history = descend(
        objective, {"z": start.z, "weights": weights}, steps, optimizer, "PINN", progress
    )
    return _result(model, model_args, model_kwargs, unknowns, parts, history)


def _network(model: Callable, weights: Mapping[str, Any]) -> free_networks:
    def weights_of(name, operator, batch):
        return weights[name]

    return free_networks(model, weights_of=weights_of, measure=FreeNetwork.mean_squares)


def mean_square_units(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> float:
    """What a mean squared misfit of one is in nats, or how many data there are."""
    look = look_at(model, args, kwargs)
    total = sum(_nats(site) for site in look.observed.values() if is_data(site))
    return total or 1.0


def _nats(site: Any) -> float:
    fn, value = innermost(site["fn"]), np.asarray(site["value"])
    counted = np.broadcast_to(np.asarray(data_mask(site["fn"])), value.shape)
    scale = getattr(fn, "scale", None)
    if scale is None:
        return float(counted.sum())
    return float(np.sum(counted / (2 * np.broadcast_to(np.asarray(scale), value.shape) ** 2)))


def _result(model, args, kwargs, unknowns, parts, history) -> PINN:
    @jax.jit
    def found(unknowns):
        networks = _network(model, unknowns["weights"])
        values = constrain_fn(networks, args, kwargs, unknowns["z"])
        return values, parts(unknowns)

    values, (pde_loss, misfit) = jax.device_get(found(unknowns))
    networks = _network(model, unknowns["weights"])
    potential_energy(networks, args, dict(kwargs), unknowns["z"])
    return PINN(values, dict(networks.fields), float(pde_loss), float(misfit), history)

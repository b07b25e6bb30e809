"""Good starts for a sampler of thousands of weights: the mode, and what a mean field says about it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from numpyro.infer import SVI, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import potential_energy

from bilo_ppl._descent import descend
from bilo_ppl._types import Key
from bilo_ppl.baselines.bpinn import NETWORK
from bilo_ppl.estimate.first_guess import find_start
from bilo_ppl.mcmc._numpyro import constrain_fn
from bilo_ppl.ppl.experiments import initial_states

__all__ = ["mean_field", "mode", "values_of"]

FIRST_SD = 1e-2
"""First standard deviations of the mean field, in unconstrained space."""


def mode(
    model: Callable,
    joint: Callable,
    key: Key,
    *args: Any,
    steps: int,
    optimizer: optax.GradientTransformation | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> dict[str, Any]:
    """Unconstrained values by site near the mode of a B-PINN, by Adam from the network's own weights.

    ``model`` is that of the PDE and ``joint`` what `bpinn` made of it. At random weights, from which a
    sampler would start, the residual is so far from its pseudo-data that warm-up is spent on getting
    there. The density is that of the unconstrained position, in which samplers move.

    >>> from bilo_ppl.baselines import mode
    >>> z = mode(model, joint, key, free, x, y, steps=20, progress=False)
    >>> sorted(z)
    ['r', 'u_network']
    """
    start = find_start(model, key, args, kwargs, {})
    z = dict(start.z)
    for name, weights in initial_states(start.operators, start.batches).items():
        flat = _flat if start.batches[name] is None else jax.vmap(_flat)
        z[NETWORK.format(name)] = flat(weights).astype(jnp.result_type(float))

    def energy(z, step):
        return jnp.asarray(potential_energy(joint, args, kwargs, z))

    return descend(energy, z, steps, optimizer, "mode of the B-PINN", progress)[0]


def _flat(weights: Any) -> Any:
    return ravel_pytree(weights)[0]


def mean_field(
    joint: Callable,
    key: Key,
    z: Mapping[str, Any],
    *args: Any,
    steps: int,
    rate: float = 1e-3,
    **kwargs: Any,
) -> tuple[dict[str, Any], Any]:
    """The best Gaussian without correlations about unconstrained values ``z``, such as those of `mode`.

    Its means by site, and its variances ``(unknowns,)`` in the order of NumPyro's kernels: a first
    ``inverse_mass_matrix``. Variational inference by `numpyro.infer.SVI`, with Adam of the given step.

    >>> from bilo_ppl.baselines import mean_field, mode
    >>> z = mode(model, joint, key, free, x, y, steps=20, progress=False)
    >>> means, variances = mean_field(joint, key, z, free, x, y, steps=20)
    >>> variances.shape == (1 + z["u_network"].size,)
    True
    """
    values = values_of(joint, z, *args, **kwargs)
    guide = AutoNormal(joint, init_loc_fn=init_to_value(values=values), init_scale=FIRST_SD)
    svi = SVI(joint, guide, optax.adam(rate), Trace_ELBO())
    found = svi.run(key, steps, *args, progress_bar=False, **kwargs).params
    means = {name: found[f"{name}_auto_loc"] for name in z}
    variances = {name: found[f"{name}_auto_scale"] ** 2 for name in z}
    return means, ravel_pytree(variances)[0]


def values_of(joint: Callable, z: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Values by site, in the space of the model, at unconstrained ones: a start of NumPyro's kernels.

    >>> from bilo_ppl.baselines import values_of
    >>> start_of_chains = values_of(joint, z, free, x, y)
    >>> bool(start_of_chains["r"] > 0)
    True
    """
    return constrain_fn(joint, args, kwargs, dict(z))

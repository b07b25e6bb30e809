"""Where a chain starts: a position found without solving, and the check of the first solve there."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from numpyro.distributions import biject_to

from bilo_ppl._pages import see
from bilo_ppl.mcmc._numpyro import constrain_fn, init_to_uniform, initialize_model
from bilo_ppl.ppl.handlers import without_solving
from bilo_ppl.ppl.site_values import as_site_value

__all__ = [
    "InitialPosition",
    "check_first_state",
    "find_initial_position",
    "finite_chains",
    "init_near",
    "priors_only",
]

JITTER = 0.01
"""Standard deviation, in unconstrained space, of the chains' starts about the values of `init_near`."""


class InitialPosition(NamedTuple):
    """An initial position, and how draws are mapped back to the model's sites."""

    z: Any
    """Unconstrained values by site; with a leading chain axis for a batch of keys."""
    postprocess_fn: Callable
    """``(*model_args, **model_kwargs) -> (z -> values at the sites)``."""


class priors_only(without_solving):  # noqa: N801
    """Leave out solves and likelihoods."""

    def process_message(self, msg: Any) -> None:
        """Put u = 0, and hide observed sites."""
        super().process_message(msg)
        if msg["type"] == "sample" and msg["is_observed"]:
            msg["fn"] = msg["fn"].mask(False)


def init_near(values: Mapping[str, Any], site: Any = None) -> Any:
    """A NumPyro ``init_strategy``: given values with a little jitter; other sites at random.

    ``values`` are by latent site, in the space of the model, such as the theta of pretraining; a field
    stands for its weights, and a value is repeated for a site with more axes, such as one number for each
    experiment. Where the operator was trained, the first solves are cheap; the jitter gives
    every chain a start of its own. Raises a ``ValueError`` for a value of another shape.

    Examples:
        >>> from numpyro.infer.util import initialize_model
        >>> near = bilo.init_near({"r": 9.0})
        >>> info = initialize_model(key, model, model_args=(exact, x, y), init_strategy=near)
        >>> abs(float(jnp.exp(info.param_info.z["r"])) - 9.0) < 2  # z is log r
        True
    """
    if site is None:
        return partial(init_near, values)
    if site["type"] != "sample" or site["is_observed"] or site["name"] not in values:
        return init_to_uniform(site)
    transform = biject_to(site["fn"].support)
    value = as_site_value(values[site["name"]], site["fn"])
    if value is None:
        raise ValueError(
            f"init_near: the value of {site['name']!r} has shape {np.shape(values[site['name']])}; the "
            f"site has shape {site['fn'].shape()}."
        )
    z = transform.inv(value)
    key = site["kwargs"].get("rng_key")
    return transform(z if key is None else z + JITTER * jax.random.normal(key, z.shape))


def find_initial_position(
    rng_key: Any,
    model: Callable,
    model_args: tuple,
    model_kwargs: Mapping[str, Any],
    init_strategy: Any,
) -> InitialPosition:
    """Draw an initial position by ``init_strategy`` so that the prior density is finite there.

    NumPyro would try up to a hundred positions, each with an inner solve that may run to its limit
    far from where the operator was trained. Here the search looks at the priors alone.
    """
    with priors_only():
        info = initialize_model(
            rng_key,
            model,
            init_strategy=init_strategy,
            dynamic_args=True,
            model_args=model_args,
            model_kwargs=dict(model_kwargs),
            validate_grad=False,
        )
    return InitialPosition(info.param_info.z, info.postprocess_fn)


def check_first_state(
    state: Any, model: Callable, model_args: tuple, model_kwargs: Mapping[str, Any]
) -> None:
    """Raise a ``ValueError`` if an initial state's potential energy or gradient is not finite.

    ``state`` may have a leading chain axis. Traced values, as under pmap, pass unchecked; a chain
    that starts there diverges at every iteration.
    """
    checked = (state.potential_energy, state.z_grad)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(checked)):
        return
    energy = np.atleast_1d(state.potential_energy)
    finite = finite_chains(energy, state.z_grad)
    if finite.all():
        return
    chain = int(np.argmin(finite))
    if np.ndim(state.potential_energy):
        state = jax.tree.map(lambda leaf: leaf[chain], state)
    with priors_only():
        sites = constrain_fn(model, model_args, dict(model_kwargs), state.z)
    where = ", ".join(f"{name} = {np.array2string(np.asarray(v))}" for name, v in sites.items())
    raise ValueError(
        f"the chain cannot start at {where} (chain {chain}): the potential energy is "
        f"{energy[chain]:g}"
        + (" and its gradient is not finite" if np.isfinite(energy[chain]) else "")
        + f". {_what_the_solver_did(state)} {see('A chain that cannot start')}"
    )


def finite_chains(energy: Any, gradient: Any) -> np.ndarray:
    """Of which chains, along the leading axis, the energy and the gradient are finite."""
    finite = np.isfinite(energy)
    for leaf in jax.tree.leaves(gradient):
        finite &= np.isfinite(np.asarray(leaf)).reshape(len(finite), -1).all(axis=1)
    return finite


def _what_the_solver_did(state: Any) -> str:
    report = f"(loss {float(state.inner_loss):.3g} after {int(state.inner_steps)} inner steps)"
    if bool(state.inner_converged):
        return f"The inner solver converged there {report}: look at prior, likelihood, sensitivity."
    return f"The inner solver did not reach its tolerance there {report}."

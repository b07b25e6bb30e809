"""The NumPyro kernel of a run."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from numpyro.infer import HMC, NUTS, init_to_sample

from bilo_ppl.mcmc import BiLOHMC, BiLONUTS, init_near, kinetic_energy
from bilo_ppl.ppl.handlers import warm_start
from bilo_ppl.run.sample.settings import SampleSettings

__all__ = ["make_kernel"]

FIRST_STEP = 0.1
"""First step size, before adaptation: its second guess is ten times the first. NumPyro's 1.0 leaps, in
unconstrained space, to thetas that cost an inner solver all its steps."""

TRAJECTORY = 1.5
"""Length of an HMC trajectory where the mass matrix is the posterior's: near pi / 2, at which a
draw from a Gaussian is independent of the one before (2 pi would lead back to it)."""

LEARNT_UP_TO = 50
"""Unknowns up to which warm-up learns a dense mass matrix anew. Of more, the Gaussian about the mode says
more than the few draws of a warm-up, whose covariance has eigenvalues that are several times off."""

TREE_DEPTH = (6, 10)
"""Largest NUTS tree in warm-up, where the first step sizes are far too small, and in sampling."""


def make_kernel(
    settings: SampleSettings,
    model: Callable,
    start: Mapping[str, Any] | None,
    inverse_mass_matrix: Any = None,
) -> Any:
    """The NumPyro kernel of a run, in the units that adaptation has found, if it has.

    ``start`` are first values by latent site, None for draws from the prior; ``inverse_mass_matrix``
    variances, or a covariance.
    """
    init = init_to_sample if start is None else init_near(start)
    common: dict[str, Any] = {"step_size": FIRST_STEP, "init_strategy": init}
    common["target_accept_prob"] = settings.target_accept
    if inverse_mass_matrix is not None:
        matrix = jnp.asarray(inverse_mass_matrix)
        common |= {"inverse_mass_matrix": matrix, "dense_mass": matrix.ndim == 2}
        common["adapt_mass_matrix"] = matrix.ndim == 1 or len(matrix) <= LEARNT_UP_TO
    accept = settings.accept_unconverged
    if settings.sampler == "bilo-nuts":
        return BiLONUTS(model, max_tree_depth=TREE_DEPTH, accept_unconverged=accept, **common)
    if settings.sampler == "bilo-hmc":
        return BiLOHMC(model, trajectory_length=TRAJECTORY, accept_unconverged=accept, **common)
    model = accepting(model) if accept else model
    if settings.sampler == "nuts":
        depth: Any = TREE_DEPTH  # annotated as an int in NumPyro, documented as possibly a pair
        return NUTS(model, max_tree_depth=depth, kinetic_fn=kinetic_energy, **common)
    return HMC(model, trajectory_length=TRAJECTORY, kinetic_fn=kinetic_energy, **common)


def accepting(model: Callable) -> Callable:
    """The model with unconverged solves left to stand."""

    def accepted(*args, **kwargs):
        with warm_start(accept_unconverged=True):
            return model(*args, **kwargs)

    return accepted

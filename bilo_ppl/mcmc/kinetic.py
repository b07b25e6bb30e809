"""Kinetic energies by which no leap to nowhere is accepted.

Next to a singularity, such as the neck of a hierarchy's funnel, momenta overflow. The products of
r'M^-1 r with a dense matrix may then sum to minus infinity, and a leap is accepted whatever its U.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from bilo_ppl._types import Scalar
from bilo_ppl.mcmc._numpyro import euclidean_kinetic_energy

__all__ = ["bounded_below", "kinetic_energy"]


def bounded_below(kinetic_fn: Callable) -> Callable:
    """A kinetic energy that is infinite where arithmetic leaves no number."""

    def bounded(inverse_mass_matrix: Any, r: Any) -> Scalar:
        energy = kinetic_fn(inverse_mass_matrix, r)
        return jnp.where(jnp.isfinite(energy), energy, jnp.inf)

    return bounded


def kinetic_energy(inverse_mass_matrix: Any, r: Any) -> Scalar:
    """r'M^-1 r / 2, and infinity where momenta overflow or rounding leaves less than nothing.

    For NumPyro's own kernels with a dense mass matrix: ``NUTS(model, dense_mass=True,
    kinetic_fn=kinetic_energy)``. `BiLOHMC` and `BiLONUTS` have it by default. The momenta ``r`` are by
    site, ``inverse_mass_matrix`` has a matrix, or variances, for tuples of sites.

    Examples:
        >>> from bilo_ppl.mcmc import kinetic_energy
        >>> mass = {("z",): jnp.array([[1.0, 0.5], [0.5, 2.0]])}
        >>> [float(kinetic_energy(mass, {"z": scale * jnp.array([1.0, -1.0])})) for scale in (1, 1e200)]
        [1.0, inf]
    """
    energy = euclidean_kinetic_energy(inverse_mass_matrix, r)
    return jnp.where(energy >= 0, energy, jnp.inf)


# NumPyro looks for the gradient here before it differentiates.
kinetic_energy._kinetic_grad = euclidean_kinetic_energy._kinetic_grad  # pyright: ignore

"""Laplace's approximation: a Gaussian about the mode, in the samplers' unconstrained space."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.infer.util import constrain_fn

from bilo_ppl._types import Key
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.result import Estimate
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.ppl.handlers import without_solving

__all__ = ["Laplace", "laplace"]

FIRST_WIDTH = 1e-2
"""Step of the first differences, in z; the second ones take a tenth of the standard deviation."""

RELATIVE_WIDTH = 0.1
NEWTON_STEPS = 5
ENOUGH = 1e-2
"""Newton's decrement, in standard deviations, below which the mode counts as found."""


@dataclasses.dataclass(frozen=True)
class Laplace:
    """``N(mean, covariance)`` for the flattened unconstrained position (sites in sorted order)."""

    mean: Float[np.ndarray, " n"]
    covariance: Float[np.ndarray, "n n"]
    energy: float
    """U at the mode, with the Jacobian."""
    decrement: float
    """Newton's decrement at ``mean``: how far the mode may still be, in standard deviations."""
    estimate: Estimate

    @property
    def log_evidence(self) -> float:
        """``log p(data)`` in this approximation; meaningless under improper priors."""
        _, log_determinant = np.linalg.slogdet(self.covariance)
        return float(-self.energy + 0.5 * (len(self.mean) * np.log(2 * np.pi) + log_determinant))

    def sample(self, key: Key, draws: int, chains: int = 1) -> Draws:
        """Independent draws; ``bilo_ppl.to_arviz(found.sample(key, 1000))`` gives the ArviZ object."""
        if draws < 1 or chains < 1:
            raise ValueError(f"Laplace.sample: draws={draws} and chains={chains}; the least is 1.")
        objective = self.estimate.objective
        _, unravel = ravel_pytree(self.estimate.z)
        factor = np.linalg.cholesky(self.covariance)
        noise = jax.random.normal(key, (chains, draws, len(self.mean)), self.mean.dtype)

        def values(flat):
            with without_solving():
                return constrain_fn(
                    objective.model, objective.args, objective.kwargs, unravel(flat)
                )

        positions = self.mean[None, None] + noise @ factor.T
        samples = jax.jit(jax.vmap(jax.vmap(values)))(positions)
        return Draws(
            objective.model,
            objective.args,
            objective.kwargs,
            jax.device_get(samples),
            statistics={},
        )


def laplace(estimate: Estimate, *, max_dimension: int = 500) -> Laplace:
    """The Gaussian approximation of the posterior of an estimate, in unconstrained space.

    The mode is that of the density of z, Jacobian included, found from the estimate by Newton's
    method. The Hessian of U is taken by central differences of its gradient, since the gradient of a
    fine-tuned solution (`ImplicitDifferentiation`) is a first derivative and cannot be differentiated
    again: 2 n gradients for n unknowns, each with solves from the weights of the estimate. Their
    width is a tenth of the standard deviation along each axis, where the error of the differences is
    near 0.2 % and that of the solves is damped most.

    Raises a ``ValueError`` if the Hessian is not positive definite (no strict minimum: a direction that
    neither prior nor data determine, or an estimate that has not converged), if a value is not finite,
    or if there are more than ``max_dimension`` unknowns.
    """
    objective = eqx.tree_at(lambda o: o.jacobian, estimate.objective, True)
    flat, unravel = ravel_pytree(estimate.z)
    if flat.size > max_dimension:
        raise ValueError(
            f"laplace: {flat.size} unknowns need {2 * flat.size} gradients and a dense covariance; "
            f"raise max_dimension ({max_dimension}) if that is meant."
        )
    states = estimate.operator_states
    names = _names(estimate.z)
    width = jnp.full(flat.shape, FIRST_WIDTH, flat.dtype)
    _, gradient, hessian = _curvature(objective, unravel, states, flat, width)
    for _ in range(NEWTON_STEPS):
        width = RELATIVE_WIDTH / jnp.sqrt(jnp.asarray(_positive(np.diag(hessian), names)))
        energy, gradient, hessian = _curvature(objective, unravel, states, flat, width)
        covariance = _inverse(np.asarray(hessian), names)
        step = -covariance @ np.asarray(gradient)
        decrement = float(np.sqrt(-step @ np.asarray(gradient)))
        if decrement <= ENOUGH:
            break
        flat = flat + jnp.asarray(step)
    return Laplace(np.asarray(flat), covariance, float(energy), decrement, estimate)


@eqx.filter_jit
def _curvature(objective: Objective, unravel: Any, states: Any, flat: Any, width: Any) -> Any:
    """U, its gradient, and its symmetrised Hessian by central differences of the gradient."""

    def energy(position):
        return objective(unravel(position), states)[0]

    def gradient(position):
        return jax.value_and_grad(energy)(position)

    here, steps = flat[None], jnp.diag(width)
    positions = jnp.concatenate([here, here + steps, here - steps])
    energies, gradients = jax.lax.map(gradient, positions)
    n = flat.size
    rows = (gradients[1 : n + 1] - gradients[n + 1 :]) / (2 * width[:, None])
    return energies[0], gradients[0], (rows + rows.T) / 2


def _names(z: Mapping[str, Any]) -> list[str]:
    """Names of the entries of the flattened position."""
    return [
        f"{name}[{','.join(map(str, index))}]" if index else name
        for name in sorted(z)
        for index in np.ndindex(np.shape(z[name]))
    ]


def _positive(diagonal: np.ndarray, names: list[str]) -> np.ndarray:
    bad = [name for name, entry in zip(names, diagonal, strict=True) if not entry > 0]
    if bad:
        raise ValueError(
            f"laplace: U is not convex at the estimate along {bad[:5]}: not a minimum, or nothing "
            "determines them. Let find_map converge, or give them a proper prior."
        )
    return diagonal


def _inverse(hessian: np.ndarray, names: list[str]) -> np.ndarray:
    if not np.isfinite(hessian).all():
        raise ValueError(
            "laplace: the gradient of U is not finite near the estimate; look at the inner solves."
        )
    eigenvalues, vectors = np.linalg.eigh(hessian)
    if eigenvalues[0] <= 0:
        worst = names[int(np.argmax(np.abs(vectors[:, 0])))]
        raise ValueError(
            f"laplace: the Hessian of U has the eigenvalue {eigenvalues[0]:.3g}, mostly along "
            f"{worst}: the estimate is no strict minimum. Let find_map converge, tighten the inner "
            "tolerance, or give a proper prior to what the data do not determine."
        )
    return (vectors / eigenvalues) @ vectors.T

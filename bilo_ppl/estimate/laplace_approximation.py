"""Laplace's approximation: a Gaussian about the mode, in the samplers' unconstrained space."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.infer.util import constrain_fn

from bilo_ppl._pages import see
from bilo_ppl._types import Key
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.result import Estimate, evaluate
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.ppl.handlers import without_solving

__all__ = ["Laplace", "entries_of", "laplace"]

FIRST_WIDTH = 1e-2
"""Step of the first differences, in z; the second ones take a tenth of the standard deviation."""

RELATIVE_WIDTH = 0.1
NEWTON_STEPS = 15
HALVINGS = 8
"""Most halvings of a Newton step that raises U."""

ENOUGH, FAR = 1e-2, 0.1
"""Newton's decrement, in standard deviations: below the first no further step is taken, above the
second the mode does not count as found. The noise of the solves may forbid to reach the first."""


@dataclasses.dataclass(frozen=True)
class Laplace:
    """``N(mean, covariance)`` for the flattened unconstrained position (sites in sorted order).

    Examples:
        >>> gaussian.sample(key, 1000, chains=2).samples["r"].shape
        (2, 1000)
        >>> gaussian.decrement < 0.01, round(gaussian.log_evidence)
        (True, 27)
    """

    mean: Float[np.ndarray, " n"]
    covariance: Float[np.ndarray, "n n"]
    energy: float
    """U at ``mean``, with the Jacobian."""
    decrement: float
    """Newton's decrement at ``mean``, at most 0.1: how far the mode may be, in standard deviations."""
    estimate: Estimate

    @property
    def log_evidence(self) -> float:
        """``log p(data)`` in this approximation; meaningless under improper priors."""
        _, log_determinant = np.linalg.slogdet(self.covariance)
        return float(-self.energy + 0.5 * (len(self.mean) * np.log(2 * np.pi) + log_determinant))

    def sample(self, key: Key, draws: int, chains: int = 1) -> Draws:
        """Independent draws; ``bilo_ppl.to_arviz(found.sample(key, 1000))`` gives the ArviZ object.

        Raises a ``ValueError`` for numbers of draws and chains below 1.
        """
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

    The mode is that of the density of z, Jacobian included, found from the estimate by Newton's method,
    whose steps are halved where U would rise. Mean, covariance and decrement belong to one point, the
    last at which there is a Hessian. The Hessian of U is taken by central differences of its gradient,
    since the gradient of a fine-tuned solution (`ImplicitDifferentiation`) is a first derivative and
    cannot be differentiated again: 2 n gradients for n unknowns, each with solves from the weights of
    the estimate. Their width is a tenth of the standard deviation along each axis, where the error of
    the differences is near 0.2 % and that of the solves is damped most.

    Raises a ``ValueError`` if the Hessian is not positive definite (no strict minimum: a direction that
    neither prior nor data determine, or an estimate that has not converged), if a value is not finite,
    if a solve that the differences need missed its tolerance, if the mode is not found within 0.1
    standard deviations, or if there are more than ``max_dimension`` unknowns.

    Examples:
        >>> gaussian = bilo.laplace(estimate)
        >>> mean, sd = gaussian.mean[0], gaussian.covariance[0, 0] ** 0.5  # of log r
        >>> round(float(mean), 1), round(float(sd), 2)
        (2.2, 0.05)
    """
    objective = eqx.tree_at(lambda o: o.jacobian, estimate.objective, True)
    flat, unravel = ravel_pytree(estimate.z)
    if flat.size > max_dimension:
        raise ValueError(
            f"laplace: {flat.size} unknowns are more than max_dimension ({max_dimension}); raise it for "
            f"{2 * flat.size} gradients."
        )
    states, names = estimate.operator_states, entries_of(estimate.z)
    width = jnp.full(flat.shape, FIRST_WIDTH, flat.dtype)
    found = _curvature(objective, unravel, states, flat, width)
    if not (np.diag(found.hessian) > 0).all():
        # Wide steps may fail where the narrower ones that count do not.
        _check_solved(found.unsolved, flat.size)
    for _ in range(NEWTON_STEPS):
        here = flat
        width = RELATIVE_WIDTH / jnp.sqrt(jnp.asarray(_positive(np.diag(found.hessian), names)))
        found = _curvature(objective, unravel, states, flat, width)
        _check_solved(found.unsolved, flat.size)
        covariance = _inverse(np.asarray(found.hessian), names)
        step = -covariance @ np.asarray(found.gradient)
        decrement = float(np.sqrt(-step @ np.asarray(found.gradient)))
        if decrement <= ENOUGH:
            break
        new = _lower(objective, unravel, states, flat, jnp.asarray(step), found.energy)
        if new is None:
            break
        flat = new
    if not decrement <= FAR:
        raise ValueError(
            f"laplace: the mode was not found: after Newton steps it is still {decrement:.2g} standard "
            f"deviations away (limit {FAR:g}). {see('No Gaussian about the estimate')}"
        )
    return Laplace(np.asarray(here), covariance, float(found.energy), decrement, estimate)


class _Curvature(NamedTuple):
    """U, its gradient and its symmetrised Hessian at a point, and how many solves failed for them."""

    energy: Any
    gradient: Any
    hessian: Any
    unsolved: Any


@eqx.filter_jit
def _curvature(
    objective: Objective, unravel: Any, states: Any, flat: Any, width: Any
) -> _Curvature:
    """The Hessian is by central differences of the gradient."""

    def gradient(position):
        def energy(position):
            value, (_, found) = objective(unravel(position), states)
            return value, found.info.converged

        return jax.value_and_grad(energy, has_aux=True)(position)

    here, steps = flat[None], jnp.diag(width)
    positions = jnp.concatenate([here, here + steps, here - steps])
    (energies, converged), gradients = jax.lax.map(gradient, positions)
    n = flat.size
    rows = (gradients[1 : n + 1] - gradients[n + 1 :]) / (2 * width[:, None])
    return _Curvature(energies[0], gradients[0], (rows + rows.T) / 2, jnp.sum(~converged))


def _lower(
    objective: Objective, unravel: Any, states: Any, flat: Any, step: Any, energy: Any
) -> Any:
    """The first of the halved steps that lowers U at a solved point; None if none does."""
    for k in range(HALVINGS):
        position = flat + step / 2**k
        new, (_, found) = evaluate(objective, unravel(position), states)
        if found.info.converged and new < energy:
            return position
    return None


def _check_solved(unsolved: Any, unknowns: int) -> None:
    if unsolved:
        raise ValueError(
            f"laplace: the PDE is not solved at {int(unsolved)} of the {2 * unknowns + 1} points of the "
            f"Hessian. {see('No Gaussian about the estimate')}"
        )


def entries_of(z: Mapping[str, Any]) -> list[str]:
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
            f"laplace: U is not convex at the estimate along {bad[:5]}. "
            + see("No Gaussian about the estimate")
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
            f"laplace: the estimate is no strict minimum: the Hessian has the eigenvalue "
            f"{eigenvalues[0]:.3g}, mostly along {worst}. {see('No Gaussian about the estimate')}"
        )
    return (vectors / eigenvalues) @ vectors.T

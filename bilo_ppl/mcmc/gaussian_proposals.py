"""Samplers without gradients, as NumPyro kernels: random-walk Metropolis, preconditioned Crank-Nicolson.

What they cost beside HMC says what the gradient of a PDE solution is worth.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl.mcmc._numpyro import init_to_uniform
from bilo_ppl.mcmc.gaussian_reference import prior_moments
from bilo_ppl.mcmc.metropolis import Metropolis, MetropolisState

__all__ = ["PCN", "RandomWalk"]


class RandomWalk(Metropolis):
    """Random-walk Metropolis: z' = z + s L xi with standard normal xi (Metropolis et al., 1953).

    The step s adapts to an acceptance of 0.234, the best one in many dimensions (Roberts, Gelman, Gilks,
    1997), and L L^T to the covariance of the draws of windows in the first half of warm-up, each twice as
    long as the one before. ``covariance`` ``(d, d)`` or ``(d,)``, in the order of NumPyro's mass
    matrices, is where L starts; by default the identity.

    >>> from bilo_ppl.mcmc import RandomWalk
    >>> sampler = MCMC(RandomWalk(model), num_warmup=20, num_samples=30, progress_bar=False)
    >>> sampler.run(key, exact, x, y)
    >>> sampler.get_samples()["r"].shape
    (30,)
    """

    def __init__(
        self,
        model: Callable,
        step_size: float = 0.1,
        covariance: Any = None,
        adapt_step_size: bool = True,
        adapt_covariance: bool = True,
        target_accept_prob: float = 0.234,
        init_strategy: Any = init_to_uniform,
    ):
        super().__init__(model, step_size, adapt_step_size, target_accept_prob, init_strategy)
        self._covariance, self._learns = covariance, adapt_covariance

    def _gaussian(self, z, args, kwargs):
        z, _ = ravel_pytree(z)
        covariance = jnp.ones(z.shape) if self._covariance is None else self._covariance
        return jnp.zeros_like(z), _factor(self, covariance, z.size)

    def _proposed(self, z, noise, state):
        return z + jnp.exp(state.log_step) * (state.factor @ noise), jnp.zeros(())

    def _learned(self, state: MetropolisState, z: Array) -> MetropolisState:
        ends = _window_ends(self._warmup(), z.size)
        if not self._learns or not ends:
            return state
        since = jnp.asarray([0, *ends])
        begun = jnp.max(jnp.where(since < state.i, since, 0))
        count = state.i - begun
        away = z - state.centre
        centre = state.centre + away / count
        scatter = state.scatter + jnp.outer(away, z - centre)
        # What Stan does to few draws: shrink a little towards a small multiple of the identity.
        covariance = (count * scatter / jnp.maximum(count - 1, 1) + 5e-3 * jnp.eye(z.size)) / (
            count + 5.0
        )
        now = jnp.isin(state.i, since[1:])
        return state._replace(
            centre=jnp.where(now, 0.0, centre),
            scatter=jnp.where(now, 0.0, scatter),
            factor=jnp.where(now, jnp.linalg.cholesky(covariance), state.factor),
            # In the units of the covariance, the best step for a Gaussian.
            log_step=jnp.where(now, jnp.log(2.38 / z.size**0.5), state.log_step),
        )


def _window_ends(num_warmup: int, unknowns: int) -> list[int]:
    """Where windows of warm-up end, each twice as long as the one before it; the last in the middle."""
    ends = [num_warmup // 2]
    while ends[0] // 2 > 10 * unknowns:
        ends = [ends[0] // 2, *ends]
    return ends if ends[0] > 2 * unknowns else []


class PCN(Metropolis):
    """Preconditioned Crank-Nicolson: z' = m + sqrt(1 - b^2) (z - m) + b L xi (Cotter et al., 2013).

    The proposal leaves N(m, L L^T) as it is, so that the acceptance does not fall with the number of
    coefficients of an unknown function. By default that is the prior of unconstrained z, for sites with
    normal and log-normal priors; any other Gaussian may be given, as ``mean`` and ``covariance``, the
    Laplace approximation, say: the rule corrects for it (Rudolf, Sprungk, 2018). The step b, at most 1,
    adapts to the target acceptance.

    >>> from bilo_ppl.mcmc import PCN
    >>> sampler = MCMC(PCN(model), num_warmup=20, num_samples=30, progress_bar=False)
    >>> sampler.run(key, exact, x, y)
    >>> sampler.get_samples()["r"].shape
    (30,)
    """

    def __init__(
        self,
        model: Callable,
        step_size: float = 0.2,
        mean: Any = None,
        covariance: Any = None,
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.3,
        init_strategy: Any = init_to_uniform,
    ):
        super().__init__(model, step_size, adapt_step_size, target_accept_prob, init_strategy)
        if step_size > 1:
            raise ValueError(f"PCN: step_size is {step_size}; it must be at most 1.")
        if (mean is None) != (covariance is None):
            raise ValueError("PCN: give both mean and covariance, or none of them.")
        self._mean, self._covariance = mean, covariance

    def _gaussian(self, z, args, kwargs):
        z, _ = ravel_pytree(z)
        mean, covariance = self._mean, self._covariance
        if mean is None:
            mean, covariance = prior_moments(self._model, args, kwargs)
        mean = jnp.asarray(mean, z.dtype)
        if mean.shape != z.shape:
            raise ValueError(f"PCN: the mean has shape {mean.shape}; there are {z.size} unknowns.")
        return mean, _factor(self, covariance, z.size)

    def _proposed(self, z, noise, state):
        b = jnp.exp(state.log_step)
        kept = jnp.sqrt(1 - b**2) * (z - state.centre)
        proposed = state.centre + kept + b * (state.factor @ noise)

        def reference(z):
            scaled = jax.scipy.linalg.solve_triangular(state.factor, z - state.centre, lower=True)
            return jnp.sum(scaled**2) / 2

        return proposed, reference(proposed) - reference(z)

    @property
    def _largest_log_step(self) -> float:
        return 0.0


def _factor(kernel: Any, covariance: Any, size: int) -> Float[Array, "d d"]:
    """The Cholesky factor of a covariance, or of variances."""
    covariance = jnp.asarray(covariance, jnp.result_type(float))
    if covariance.shape not in {(size,), (size, size)}:
        raise ValueError(
            f"{type(kernel).__name__}: the covariance has shape {covariance.shape}; for {size} unknowns "
            f"it must be ({size}, {size}), or ({size},) for variances."
        )
    matrix = jnp.diag(covariance) if covariance.ndim == 1 else covariance
    factor = jnp.linalg.cholesky(matrix)
    if not jnp.isfinite(factor).all():
        raise ValueError(f"{type(kernel).__name__}: the covariance is not positive definite.")
    return factor

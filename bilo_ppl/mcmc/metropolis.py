"""Samplers without gradients, as NumPyro kernels: random-walk Metropolis, preconditioned Crank-Nicolson.

What they cost beside HMC says what the gradient of a PDE solution is worth. Both adapt their step size
in warm-up by stochastic approximation (Robbins, Monro, 1951) to a target acceptance, and never after it.
"""

import abc
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.infer.util import potential_energy

from bilo_ppl._types import Key, Scalar
from bilo_ppl.mcmc._numpyro import MCMCKernel, init_to_uniform, is_prng_key
from bilo_ppl.mcmc.gaussian_reference import prior_moments
from bilo_ppl.mcmc.initial_position import InitialPosition, find_initial_position

__all__ = ["PCN", "MetropolisState", "RandomWalk"]

DECAY = 0.6
"""Exponent of the gains of the adaptation: i^-0.6 for transition i."""


class MetropolisState(NamedTuple):
    """State of a chain; names as in NumPyro's ``HMCState`` where they mean the same."""

    i: Any
    z: Any
    potential_energy: Any
    num_steps: Any
    """Evaluations of the potential in the last transition: 1."""
    accept_prob: Any
    mean_accept_prob: Any
    diverging: Any
    """Whether the proposal's potential was not finite."""
    log_step: Any
    centre: Any
    """Mean of the positions since the last reset, and mean of the reference of `PCN`."""
    factor: Any
    """Lower Cholesky factor of the covariance of the proposal or of the reference."""
    scatter: Any
    """Sum of outer products of deviations from the running mean."""
    rng_key: Any


class _Metropolis(MCMCKernel):
    """One proposal, one evaluation of the potential, and Metropolis' rule."""

    def __init__(
        self,
        model: Callable,
        step_size: float,
        adapt_step_size: bool,
        target_accept_prob: float,
        init_strategy: Any,
    ):
        if not 0 < target_accept_prob < 1:
            raise ValueError(
                f"{type(self).__name__}: target_accept_prob is {target_accept_prob}; it must lie between "
                "0 and 1."
            )
        if not step_size > 0:
            raise ValueError(
                f"{type(self).__name__}: step_size is {step_size}; it must be positive."
            )
        self._model, self._step_size, self._adapts = model, step_size, adapt_step_size
        self._target, self._init_strategy = target_accept_prob, init_strategy
        self._num_warmup: int | None = None
        self._start: InitialPosition | None = None

    @abc.abstractmethod
    def _proposed(self, z: Array, noise: Array, state: MetropolisState) -> tuple[Array, Scalar]:
        """The proposal, and what is added to the log of the acceptance ratio."""

    @abc.abstractmethod
    def _gaussian(
        self, z: Any, args: tuple, kwargs: Mapping[str, Any]
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """Mean and Cholesky factor of the Gaussian that proposals are made of."""

    def _learned(self, state: MetropolisState, z: Array) -> MetropolisState:
        """What warm-up makes of a new position besides the step size."""
        return state

    @property
    def model(self) -> Callable:
        """The NumPyro model."""
        return self._model

    @property
    def sample_field(self) -> str:
        """Where `MCMC` finds the draw."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields collected unasked."""
        return ("z", "diverging", "accept_prob")

    @property
    def _sample_fn(self) -> Callable | None:
        """NumPyro's `MCMC` calls `init` anew, even for a chain that it resumes, if this is None."""
        return None if self._num_warmup is None else self.sample

    def get_diagnostics_str(self, state: MetropolisState) -> str:
        """The text next to the progress bar."""
        step = float(jnp.exp(state.log_step))
        return f"step {step:.2e}. acc. prob={float(state.mean_accept_prob):.2f}"

    def postprocess_fn(self, model_args: tuple, model_kwargs: Mapping[str, Any]) -> Callable:
        """Map unconstrained values to the model's sites."""
        if self._start is None:
            return lambda z: z
        return self._start.postprocess_fn(*model_args, **model_kwargs)

    def init(
        self,
        rng_key: Any,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> MetropolisState:
        """First state of a chain, or of one chain for each key in a batch ``(chains, ...)``.

        Raises a ``ValueError`` where the potential energy is not finite at the start.
        """
        single, model_kwargs = is_prng_key(rng_key), dict(model_kwargs or {})
        split = jax.random.split if single else jax.vmap(jax.random.split, out_axes=1)
        key_chain, key_model = split(rng_key)
        self._start = find_initial_position(
            key_model, self._model, model_args, model_kwargs, self._init_strategy
        )
        self._num_warmup = num_warmup
        z = self._start.z if init_params is None else init_params
        one = z if single else jax.tree.map(lambda leaf: leaf[0], z)
        gaussian = self._gaussian(one, model_args, model_kwargs)
        first = partial(self._first, gaussian, model_args, model_kwargs)
        state = jax.jit(first if single else jax.vmap(first))(z, key_chain)
        if not jnp.isfinite(state.potential_energy).all():
            raise ValueError(
                f"{type(self).__name__}: the potential energy is {state.potential_energy} at the start; "
                "give init_strategy=bilo_ppl.init_near(values) with values at which the PDE is solved."
            )
        return state

    def _first(self, gaussian, args, kwargs, z: Any, key: Key) -> MetropolisState:
        centre, factor = gaussian
        floating, zero = jnp.result_type(float), jnp.zeros((), jnp.result_type(int))
        return MetropolisState(
            i=zero,
            z=z,
            potential_energy=jnp.asarray(potential_energy(self._model, args, kwargs, z), floating),
            num_steps=zero,
            accept_prob=jnp.zeros((), floating),
            mean_accept_prob=jnp.zeros((), floating),
            diverging=jnp.array(False),
            log_step=jnp.log(jnp.asarray(self._step_size, floating)),
            centre=centre,
            factor=factor,
            scatter=jnp.zeros_like(factor),
            rng_key=key,
        )

    def sample(
        self,
        state: MetropolisState,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> MetropolisState:
        """One transition, of one chain or of a batch of chains."""
        move = partial(self._next, model_args, dict(model_kwargs or {}))
        return move(state) if is_prng_key(state.rng_key) else jax.vmap(move)(state)

    def _next(self, args: tuple, kwargs: dict[str, Any], state: MetropolisState) -> MetropolisState:
        if self._num_warmup is None:
            raise RuntimeError(f"{type(self).__name__}: call init before sample.")
        key, key_noise, key_accept = jax.random.split(state.rng_key, 3)
        z, unravel = ravel_pytree(state.z)
        proposed, correction = self._proposed(z, jax.random.normal(key_noise, z.shape), state)
        energy = jnp.asarray(potential_energy(self._model, args, kwargs, unravel(proposed)))
        log_ratio = state.potential_energy - energy + correction
        accept_prob = jnp.where(
            jnp.isfinite(energy), jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0
        ).astype(state.accept_prob.dtype)
        accepted = jax.random.uniform(key_accept) < accept_prob
        kept = jnp.where(accepted, proposed, z)
        i = state.i + 1
        warming_up = state.i < self._num_warmup
        count = jnp.where(warming_up, i, i - self._num_warmup)
        state = state._replace(
            i=i,
            z=unravel(kept),
            potential_energy=jnp.where(accepted, energy, state.potential_energy),
            num_steps=jnp.ones_like(state.num_steps),
            accept_prob=accept_prob,
            mean_accept_prob=state.mean_accept_prob
            + (accept_prob - state.mean_accept_prob) / count,
            diverging=~jnp.isfinite(energy),
            rng_key=key,
        )
        return jax.lax.cond(warming_up, lambda: self._adapted(state, kept), lambda: state)

    def _adapted(self, state: MetropolisState, z: Array) -> MetropolisState:
        state = self._learned(state, z)
        if not self._adapts:
            return state
        gain = state.i.astype(state.log_step.dtype) ** -DECAY
        log_step = state.log_step + gain * (state.accept_prob - self._target)
        return state._replace(log_step=jnp.minimum(log_step, self._largest_log_step))

    @property
    def _largest_log_step(self) -> float:
        return jnp.inf


class RandomWalk(_Metropolis):
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
        assert self._num_warmup is not None
        ends = _window_ends(self._num_warmup, z.size)
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


class PCN(_Metropolis):
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

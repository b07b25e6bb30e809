"""Metropolis' rule without gradients, as a NumPyro kernel: what proposals by a Gaussian have in common.

The step size adapts in warm-up by stochastic approximation (Robbins, Monro, 1951) to a target
acceptance, and never after it.
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

from bilo_ppl._pages import see
from bilo_ppl._types import Key, Scalar
from bilo_ppl.mcmc._numpyro import is_prng_key
from bilo_ppl.mcmc.model_kernel import StartingKernel, split_keys

__all__ = ["Metropolis", "MetropolisState"]

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


class Metropolis(StartingKernel):
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
        super().__init__(model, init_strategy)
        self._step_size, self._adapts, self._target = step_size, adapt_step_size, target_accept_prob

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
    def default_fields(self) -> tuple[str, ...]:
        """Fields collected unasked."""
        return ("z", "diverging", "accept_prob")

    def get_diagnostics_str(self, state: MetropolisState) -> str:
        """The text next to the progress bar."""
        step = float(jnp.exp(state.log_step))
        return f"step {step:.2e}. acc. prob={float(state.mean_accept_prob):.2f}"

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
        key_chain, key_model = split_keys(rng_key)
        z = self._begin(key_model, num_warmup, init_params, model_args, model_kwargs)
        one = z if single else jax.tree.map(lambda leaf: leaf[0], z)
        gaussian = self._gaussian(one, model_args, model_kwargs)
        first = partial(self._first, gaussian, model_args, model_kwargs)
        state = jax.jit(first if single else jax.vmap(first))(z, key_chain)
        if not jnp.isfinite(state.potential_energy).all():
            raise ValueError(
                f"{type(self).__name__}: the potential energy is {state.potential_energy} at the start. "
                + see("A chain that cannot start")
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
        num_warmup = self._warmup()
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
        warming_up = state.i < num_warmup
        count = jnp.where(warming_up, i, i - num_warmup)
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

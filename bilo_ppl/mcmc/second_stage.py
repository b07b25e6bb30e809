"""Two stages: proposals from a chain on a cheap energy V, accepted against a dearer one, U.

With z' the end of some transitions that are reversible with respect to exp(-V), accepting it with
probability min(1, exp(-(U - V)(z') + (U - V)(z))) leaves exp(-U) as it is, whatever V (surrogate
transition: Liu, Monte Carlo Strategies in Scientific Computing, 2001, section 9.4.3; delayed acceptance:
Christen and Fox, J. Comput. Graph. Stat. 14, 2005). U is evaluated once a draw, and never differentiated.

Where V is infinite such a chain never goes. So now and then a transition is a step of random-walk
Metropolis on U alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.util import potential_energy

from bilo_ppl.mcmc._numpyro import is_prng_key, momentum_generator

__all__ = ["STATISTICS", "Stages", "TwoStageState", "energy_of", "walks_at"]

WALK_SCALE = 2.38
"""A random walk's step in standard deviations, times the square root of the number of unknowns: the best
for a Gaussian (Roberts, Gelman, Gilks, 1997)."""

STATISTICS = ("first_energy", "second_accept_prob", "walked", "second_solves")
"""Fields of the state that other kernels do not have, and that are worth keeping of every draw."""


class TwoStageState(NamedTuple):
    """State of a chain, named as NumPyro's ``HMCState`` where there is the same."""

    i: Any
    z: Any
    potential_energy: Any
    """U at ``z``: the energy whose law the draws have. Infinite in warm-up, which does not ask for it."""
    first_energy: Any
    """V at ``z``."""
    num_steps: Any
    """Leapfrog steps on V, over all transitions of the first stage."""
    accept_prob: Any
    """Mean acceptance of these transitions; 1 for a random walk, which has no first stage."""
    second_accept_prob: Any
    """Acceptance against U; 1 where the first stage did not move, and in warm-up."""
    mean_second_accept_prob: Any
    diverging: Any
    """Whether a transition of the first stage diverged."""
    walked: Any
    """Whether it was a step of the random walk."""
    second_solves: Any
    """Evaluations of U: one, or none where the first stage did not move."""
    inner: Any
    """``HMCState`` of the chain on V, at ``z``."""
    rng_key: Any

    @property
    def adapt_state(self) -> Any:
        """Step size and mass matrix of the first stage."""
        return self.inner.adapt_state


class _Proposal(NamedTuple):
    inner: Any
    num_steps: Any
    accept_prob: Any
    diverging: Any


@dataclasses.dataclass(frozen=True)
class Stages:
    """The law of two stages, for one chain or a batch of chains: first state and next state."""

    first: Callable
    """``HMCState -> HMCState``: a transition of one chain, or of the batch, on V."""
    cheap: Callable
    """``z -> (V, its gradient)`` of one chain."""
    dear: Callable
    """``z -> U`` of one chain; not finite where it has no value."""
    num_warmup: int
    transitions: int
    walk_share: float

    def begin(self, inner: Any, rng_key: Any) -> TwoStageState:
        """The first state, at that of the chain on V."""
        cheap = inner.potential_energy
        inner = inner._replace(potential_energy=jnp.where(jnp.isfinite(cheap), cheap, jnp.inf))
        energy = self._energy(inner.z, is_prng_key(rng_key))
        counts = jnp.zeros(energy.shape, jnp.result_type(int))
        zeros, no = jnp.zeros(energy.shape), jnp.zeros(energy.shape, bool)
        return TwoStageState(
            i=counts,
            z=inner.z,
            potential_energy=energy,
            first_energy=inner.potential_energy,
            num_steps=counts,
            accept_prob=zeros,
            second_accept_prob=zeros,
            mean_second_accept_prob=zeros,
            diverging=no,
            walked=no,
            second_solves=counts,
            inner=inner,
            rng_key=rng_key,
        )

    def next(self, state: TwoStageState) -> TwoStageState:
        """One draw. In warm-up: a transition on V, which adapts; the last one asks for U at its end."""
        single = is_prng_key(state.rng_key)
        # Chains of a batch take the same turns, so that what is not due is not computed.
        i = state.i if single else state.i[0]
        sampling = i >= self.num_warmup
        walks = sampling & walks_at(i - self.num_warmup, self.walk_share)
        split = jax.random.split if single else jax.vmap(jax.random.split, (0, None), 1)
        rng_key, key_walk, key_accept = split(state.rng_key, 3)
        proposed: _Proposal = jax.lax.cond(
            walks,
            lambda: self._walk(state, key_walk, single),
            lambda: self._move(state, jnp.where(sampling, self.transitions, 1)),
        )
        same = _same(state.z, proposed.inner.z, single)
        old, new = state.first_energy, proposed.inner.potential_energy
        possible = walks | (jnp.isfinite(old) & jnp.isfinite(new))
        asked = jnp.any(possible & ~same & sampling) | (i == self.num_warmup - 1)
        energy = jax.lax.cond(
            asked,
            lambda: self._energy(proposed.inner.z, single),
            lambda: jnp.full_like(state.potential_energy, jnp.inf),
        )
        log_ratio = state.potential_energy - energy + jnp.where(walks, 0.0, new - old)
        prob = jnp.where(possible, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
        prob = jnp.where(jnp.isnan(prob), 0.0, prob)
        prob = jnp.where(same | ~sampling, 1.0, prob)
        bernoulli = jax.random.bernoulli if single else jax.vmap(jax.random.bernoulli)
        accepted = bernoulli(key_accept, prob)
        stays = same & sampling
        count = jnp.maximum(i + 1 - self.num_warmup, 1)
        mean = state.mean_second_accept_prob
        inner = _kept(accepted, proposed.inner, state.inner, single)
        return TwoStageState(
            i=state.i + 1,
            z=inner.z,
            potential_energy=jnp.where(accepted & ~stays, energy, state.potential_energy),
            first_energy=inner.potential_energy,
            num_steps=proposed.num_steps,
            accept_prob=proposed.accept_prob,
            second_accept_prob=prob,
            mean_second_accept_prob=mean + (prob - mean) / count,
            diverging=proposed.diverging,
            walked=jnp.broadcast_to(walks, prob.shape),
            second_solves=jnp.broadcast_to(asked, prob.shape).astype(state.second_solves.dtype),
            inner=inner,
            rng_key=rng_key,
        )

    def _energy(self, z: Any, single: bool) -> Any:
        """U, infinite where it has no value."""
        energy = jnp.asarray(self.dear(z) if single else jax.vmap(self.dear)(z))
        energy = energy.astype(jnp.result_type(float))
        return jnp.where(jnp.isfinite(energy), energy, jnp.inf)

    def _move(self, state: TwoStageState, count: Any) -> _Proposal:
        """``count`` transitions of the first stage."""

        def one_more(_, so_far: _Proposal) -> _Proposal:
            inner = self.first(so_far.inner)
            return _Proposal(
                inner,
                so_far.num_steps + inner.num_steps,
                so_far.accept_prob + inner.accept_prob / count,
                so_far.diverging | inner.diverging,
            )

        return jax.lax.fori_loop(0, count, one_more, _nothing_done(state))

    def _walk(self, state: TwoStageState, rng_key: Any, single: bool) -> _Proposal:
        """A Gaussian step, in the units of the mass matrix, and V there for the next transition."""

        def step(inner, key):
            root = _root(inner.adapt_state.inverse_mass_matrix)
            size = WALK_SCALE / jnp.sqrt(sum(leaf.size for leaf in jax.tree.leaves(inner.z)))
            away = momentum_generator(inner.z, root, key)
            z = {name: inner.z[name] + size * away[name] for name in inner.z}
            energy, gradient = self.cheap(z)
            energy = jnp.where(jnp.isfinite(energy), energy, jnp.inf)
            return inner._replace(z=z, potential_energy=energy, z_grad=gradient)

        inner = (step if single else jax.vmap(step))(state.inner, rng_key)
        nothing = _nothing_done(state)
        return nothing._replace(inner=inner, accept_prob=jnp.ones_like(nothing.accept_prob))


def walks_at(i: Any, share: float) -> Any:
    """Whether the i-th draw is a step of the random walk: evenly spread, ``share`` of all."""
    return jnp.floor((i + 1) * share) > jnp.floor(i * share)


def _nothing_done(state: TwoStageState) -> _Proposal:
    zero = jnp.zeros_like
    return _Proposal(
        state.inner, zero(state.num_steps), zero(state.accept_prob), zero(state.walked)
    )


def _same(one: Any, other: Any, single: bool) -> Any:
    """Whether two positions are the same, by chain."""

    def equal(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return jnp.all(jnp.stack([jnp.all(x == y) for x, y in pairs]))

    return (equal if single else jax.vmap(equal))(one, other)


def _kept(accepted: Any, new: Any, old: Any, single: bool) -> Any:
    """The chain on V where it is now: of a rejected end only the position goes back."""

    def chosen(flag, a, b):
        return jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)

    place = [(s.z, s.z_grad, s.potential_energy) for s in (new, old)]
    z, gradient, energy = (chosen if single else jax.vmap(chosen))(accepted, *place)
    return new._replace(z=z, z_grad=gradient, potential_energy=energy)


def _root(inverse_mass_matrix: Any) -> Any:
    """A square root of the inverse mass matrix, which is the covariance, block by block."""
    if isinstance(inverse_mass_matrix, dict):
        return {names: _root(block) for names, block in inverse_mass_matrix.items()}
    if inverse_mass_matrix.ndim == 1:
        return jnp.sqrt(inverse_mass_matrix)
    return jnp.linalg.cholesky(inverse_mass_matrix)


def energy_of(model: Callable, args: tuple, kwargs: Any) -> Callable:
    """``z -> -log p(z, data)`` of a NumPyro model, in unconstrained space."""
    return lambda z: jnp.asarray(potential_energy(model, args, dict(kwargs), z))

"""From one point of the chain to the next: a trajectory of fixed length, or a no-U-turn tree."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bilo_ppl._types import Count, Flag, Key, Scalar
from bilo_ppl.mcmc._numpyro import HMCAdaptState, IntegratorState, build_tree

__all__ = ["AbstractTransition", "FixedLength", "NoUTurn", "Transition"]

MAX_DELTA_ENERGY = 1000.0
"""Energy error beyond which a trajectory counts as diverging (as in NumPyro and Stan)."""

MAX_LEAPFROGS = 1023
"""Most leapfrog steps of a trajectory of given length, as many as in a NUTS tree of depth 10. Where
solves fail, adaptation shrinks the step size in vain: without a limit a transition never ends."""


class Transition(NamedTuple):
    """The point kept, and statistics of the trajectory."""

    point: IntegratorState
    """Its ``z`` is the pair (position, `Carry`)."""
    energy: Scalar
    num_steps: Count
    accept_prob: Scalar
    diverging: Flag
    inner_steps: Count
    """Inner steps of all leapfrog steps, those of rejected branches included."""
    inner_converged: Flag
    """Whether every solve of the trajectory reached its tolerance."""


class AbstractTransition(abc.ABC):
    """A strategy: which trajectory is built from a point, and which of its points is kept."""

    @abc.abstractmethod
    def __call__(
        self,
        step: Callable,
        kinetic_fn: Callable,
        start: IntegratorState,
        adapt_state: HMCAdaptState,
        trajectory_length: Any,
        warming_up: Flag,
        rng_key: Key,
    ) -> Transition:
        """Move on from ``start`` by ``step(step_size, inverse_mass_matrix, state)``."""


@dataclasses.dataclass(frozen=True)
class FixedLength(AbstractTransition):
    """Hamiltonian Monte Carlo: the end point of a trajectory, accepted or rejected (Neal, 2011).

    A trajectory ends early, and is rejected, where the potential is not finite: the gradient there
    means nothing, and a path that came back to finite values would not be reversible.

    With ``learning`` the solver state goes on from the trajectory's end in warm-up, also where the end
    is rejected: what was learnt on the way is not forgotten.
    """

    num_steps: int | None
    learning: bool = False

    def __call__(
        self, step, kinetic_fn, start, adapt_state, trajectory_length, warming_up, rng_key
    ) -> Transition:
        """See `AbstractTransition`."""
        mass, step_size = adapt_state.inverse_mass_matrix, adapt_state.step_size
        planned = self.num_steps
        if planned is None:
            wanted = jnp.minimum(jnp.ceil(trajectory_length / step_size), MAX_LEAPFROGS)
            planned = wanted.astype(jnp.result_type(int))
        if trajectory_length is not None:
            step_size = trajectory_length / planned

        def unfinished(loop):
            count, state = loop
            return (count < planned) & jnp.isfinite(state.potential_energy)

        def one_more(loop):
            count, state = loop
            return count + 1, step(step_size, mass, state)

        zero = jnp.zeros((), jnp.result_type(int))
        taken, end = jax.lax.while_loop(unfinished, one_more, (zero, start))
        old = start.potential_energy + kinetic_fn(mass, start.r)
        new = end.potential_energy + kinetic_fn(mass, end.r)
        delta = jnp.where(jnp.isnan(new - old), jnp.inf, new - old)
        accept_prob = jnp.clip(jnp.exp(-delta), None, 1.0)
        accepted = jax.random.bernoulli(rng_key, accept_prob)
        point, energy = jax.tree.map(
            lambda a, b: jnp.where(accepted, a, b), (end, new), (start, old)
        )
        carry = end.z[1]
        if self.learning:
            keeps = warming_up & jnp.isfinite(end.potential_energy) & carry.converged
            position, kept = point.z
            learnt = jax.tree.map(
                lambda a, b: jnp.where(keeps, a, b), carry.solver_state, kept.solver_state
            )
            point = point._replace(z=(position, kept._replace(solver_state=learnt)))
        return Transition(
            point=point,
            energy=energy,
            num_steps=taken,
            accept_prob=accept_prob,
            diverging=delta > MAX_DELTA_ENERGY,
            inner_steps=carry.steps,
            inner_converged=carry.converged,
        )


@dataclasses.dataclass(frozen=True)
class NoUTurn(AbstractTransition):
    """The no-U-turn sampler with multinomial sampling (Hoffman, Gelman 2014; Betancourt 2017).

    Each edge of NumPyro's tree, and its proposal, has a solver state of its own. The counters of
    the two edges count the two directions of time from the root: their sum is the whole tree's.
    """

    max_depth_warmup: int
    max_depth: int

    def __call__(
        self, step, kinetic_fn, start, adapt_state, trajectory_length, warming_up, rng_key
    ) -> Transition:
        """See `AbstractTransition`."""
        depth = jnp.where(warming_up, self.max_depth_warmup, self.max_depth)
        tree = build_tree(
            step,
            kinetic_fn,
            start,
            adapt_state.inverse_mass_matrix,
            adapt_state.step_size,
            rng_key,
            max_delta_energy=MAX_DELTA_ENERGY,
            max_tree_depth=(depth, max(self.max_depth_warmup, self.max_depth)),
        )
        left, right = tree.z_left[1], tree.z_right[1]
        return Transition(
            point=IntegratorState(
                tree.z_proposal, start.r, tree.z_proposal_pe, tree.z_proposal_grad
            ),
            energy=tree.z_proposal_energy,
            num_steps=tree.num_proposals,
            accept_prob=tree.sum_accept_probs / tree.num_proposals,
            diverging=tree.diverging,
            inner_steps=left.steps + right.steps,
            inner_converged=left.converged & right.converged,
        )

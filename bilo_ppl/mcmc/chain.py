"""A chain that carries the inner solver's state: first state and next state, pure functions."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bilo_ppl._types import Key
from bilo_ppl.mcmc import _numpyro
from bilo_ppl.mcmc._numpyro import HMCAdaptState, IntegratorState
from bilo_ppl.mcmc.integrator import (
    ChainPoint,
    leapfrog,
    potential_value,
    reasonable_step_size,
    root,
)
from bilo_ppl.mcmc.kinetic import bounded_below, kinetic_energy
from bilo_ppl.mcmc.transitions import AbstractTransition, Transition

__all__ = ["Adaptation", "BiLOState", "Chain", "Settings"]


class BiLOState(NamedTuple):
    """State of a chain: NumPyro's ``HMCState``, and what concerns the inner solver.

    Examples:
        >>> from bilo_ppl.mcmc import BiLOState
        >>> state = mcmc.last_state  # of a run of BiLONUTS
        >>> isinstance(state, BiLOState), int(state.i), list(state.z)
        (True, 30, ['r'])
        >>> int(state.inner_steps), bool(state.inner_converged)  # the operator has a formula
        (0, True)
    """

    i: Any
    z: Any
    z_grad: Any
    potential_energy: Any
    energy: Any
    r: Any
    trajectory_length: Any
    num_steps: Any
    accept_prob: Any
    mean_accept_prob: Any
    diverging: Any
    adapt_state: HMCAdaptState
    rng_key: Any
    inner_steps: Any
    """Inner steps of the last transition, over all its leapfrog steps, rejected ones included."""
    inner_loss: Any
    """Lower-level loss at ``z``."""
    inner_converged: Any
    """Whether all solves of the last transition reached their tolerance."""
    solver_state: Any
    """States of the operators by solution site, after the solve at ``z``."""


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What warm-up adapts, and how; named as in NumPyro."""

    adapt_step_size: bool = True
    adapt_mass_matrix: bool = True
    dense_mass: bool | list = False
    target_accept_prob: float = 0.8
    find_heuristic_step_size: bool = False
    regularize_mass_matrix: bool = True

    def blocks(self, sites: Any) -> list[tuple[str, ...]]:
        """Dense blocks of the mass matrix, as tuples of site names."""
        if isinstance(self.dense_mass, bool):
            return [tuple(sorted(sites))] if self.dense_mass else []
        return list(self.dense_mass)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a chain needs to know besides its potential and its transitions; named as in NumPyro."""

    adaptation: Adaptation = Adaptation()
    kinetic_fn: Callable = kinetic_energy
    step_size: float = 1.0
    """The first one, or the only one if it does not adapt."""
    inverse_mass_matrix: Any = None
    trajectory_length: float | None = None
    forward_mode_differentiation: bool = False


@dataclasses.dataclass(frozen=True)
class Chain:
    """The law of one chain. It may be mapped over a batch of states.

    Random keys are split as in NumPyro's HMC, so that with an operator without memory the draws are
    NumPyro's own.
    """

    potential: Callable
    """``(z, solver_state) -> (U, (solver_state, info))``, such as a `StatefulPotential`."""
    move: AbstractTransition
    settings: Settings
    num_warmup: int

    @property
    def _value(self) -> Callable:
        """``(z, solver_state) -> PotentialValue``."""
        return partial(potential_value, self.potential, self.settings.forward_mode_differentiation)

    @property
    def _step(self) -> Callable:
        """``(step_size, inverse_mass_matrix, state) -> state``."""
        return partial(leapfrog, self._value, self.settings.kinetic_fn)

    @property
    def _kinetic_energy(self) -> Callable:
        """``(inverse_mass_matrix, r) -> K``, never minus infinity."""
        return bounded_below(self.settings.kinetic_fn)

    def _adapter(self, z: Any, search: bool) -> tuple[Callable, Callable]:
        """NumPyro's warm-up: dual averaging and windowed mass matrix, with our step-size search."""
        adaptation = self.settings.adaptation
        finder = partial(reasonable_step_size, self._step, self._kinetic_energy) if search else None
        return _numpyro.warmup_adapter(
            self.num_warmup,
            find_reasonable_step_size=finder,
            adapt_step_size=adaptation.adapt_step_size,
            adapt_mass_matrix=adaptation.adapt_mass_matrix,
            dense_mass=adaptation.blocks(z),
            target_accept_prob=adaptation.target_accept_prob,
            regularize_mass_matrix=adaptation.regularize_mass_matrix,
        )

    def first(self, z: Any, rng_key: Key, solver_state: Any) -> BiLOState:
        """The state at position ``z`` after one solve from ``solver_state``."""
        settings, floating = self.settings, jnp.result_type(float)
        energy, z_grad, solver_state, info = self._value(z, solver_state)
        key_chain, key_adapt, key_momentum = jax.random.split(rng_key, 3)
        mass, length = settings.inverse_mass_matrix, settings.trajectory_length
        adapt_init, _ = self._adapter(z, settings.adaptation.find_heuristic_step_size)
        adapt_state = adapt_init(
            ChainPoint(z, root(solver_state, info.loss), energy, z_grad),
            key_adapt,
            jnp.asarray(settings.step_size, floating),
            # NumPyro fills in a mapping in place: a copy, since the user's must not hold tracers.
            inverse_mass_matrix=dict(mass) if isinstance(mass, dict) else mass,
        )
        r = _numpyro.momentum_generator(z, adapt_state.mass_matrix_sqrt, key_momentum)
        nought = jnp.zeros((), jnp.result_type(int))
        return BiLOState(
            i=nought,
            z=z,
            z_grad=z_grad,
            potential_energy=energy,
            energy=energy + self._kinetic_energy(adapt_state.inverse_mass_matrix, r),
            r=None,
            trajectory_length=None if length is None else jnp.asarray(length, floating),
            num_steps=nought,
            accept_prob=jnp.zeros(()),
            mean_accept_prob=jnp.zeros(()),
            diverging=jnp.array(False),
            adapt_state=adapt_state,
            rng_key=key_chain,
            inner_steps=info.steps,
            inner_loss=info.loss,
            inner_converged=info.converged,
            solver_state=solver_state,
        )

    def next(self, search: bool, state: BiLOState) -> BiLOState:
        """One transition; ``search`` for a step size at the ends of warm-up windows."""
        key_chain, key_momentum, key_move = jax.random.split(state.rng_key, 3)
        r = state.r
        if r is None:
            mass_sqrt = state.adapt_state.mass_matrix_sqrt
            r = _numpyro.momentum_generator(state.z, mass_sqrt, key_momentum)
        carry = root(state.solver_state, state.inner_loss)
        start = IntegratorState((state.z, carry), r, state.potential_energy, state.z_grad)
        warming_up = state.i < self.num_warmup
        moved = self.move(
            self._step,
            self._kinetic_energy,
            start,
            state.adapt_state,
            state.trajectory_length,
            warming_up,
            key_move,
        )
        after = self._after(state, moved, warming_up)
        adapt_state = self._adapted(state, moved, warming_up, search)
        return after._replace(adapt_state=adapt_state, rng_key=key_chain)

    def _adapted(self, state: BiLOState, moved: Transition, warming_up: Any, search: bool) -> Any:
        """Step size and mass matrix after the transition; in sampling they stay."""
        z, carry = moved.point.z
        _, update = self._adapter(z, search)
        point = ChainPoint(z, carry, moved.point.potential_energy, moved.point.z_grad)
        return jax.lax.cond(
            warming_up,
            lambda: update(state.i, moved.accept_prob, point, state.adapt_state),
            lambda: state.adapt_state,
        )

    def _after(self, state: BiLOState, moved: Transition, warming_up: Any) -> BiLOState:
        """The kept point and the statistics, with the running mean of the acceptance."""
        z, carry = moved.point.z
        i = state.i + 1
        count = jnp.where(warming_up, i, i - self.num_warmup)
        mean = state.mean_accept_prob + (moved.accept_prob - state.mean_accept_prob) / count
        return state._replace(
            i=i,
            z=z,
            z_grad=moved.point.z_grad,
            potential_energy=moved.point.potential_energy,
            energy=moved.energy,
            r=None if state.r is None else moved.point.r,
            num_steps=moved.num_steps,
            accept_prob=moved.accept_prob,
            mean_accept_prob=mean,
            diverging=moved.diverging,
            inner_steps=moved.inner_steps,
            inner_loss=carry.loss,
            inner_converged=moved.inner_converged,
            solver_state=carry.solver_state,
        )

"""Velocity Verlet along which the inner solver's state travels with the position.

The ``z`` of an `IntegratorState` is here the pair (position, `Carry`); momentum, kinetic energy and
gradient belong to the position alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bilo_ppl._types import Count, Flag, Key, Scalar
from bilo_ppl.mcmc._numpyro import IntegratorState, kinetic_gradient, momentum_generator
from bilo_ppl.ppl.potential import PotentialInfo

__all__ = [
    "Carry",
    "ChainPoint",
    "PotentialValue",
    "leapfrog",
    "potential_value",
    "reasonable_step_size",
    "root",
]

MAX_TRIALS = 50
"""Doublings or halvings of the step size that the heuristic may try: factors up to 1e15."""


class Carry(NamedTuple):
    """What travels along a trajectory besides the position."""

    solver_state: Any
    """States of the operators after the solve at this point: the next one starts from them."""
    loss: Scalar
    """Lower-level loss at this point."""
    steps: Count
    """Inner steps since the trajectory's first point, in this direction of time."""
    converged: Flag
    """Whether every solve since then reached its tolerance."""


class ChainPoint(NamedTuple):
    """A point of the chain as `warmup_adapter` takes it: the position first."""

    z: Any
    carry: Carry
    potential_energy: Scalar
    z_grad: Any


class PotentialValue(NamedTuple):
    """Potential energy and gradient at a position, and what the inner solves did there."""

    potential_energy: Scalar
    z_grad: Any
    solver_state: Any
    info: PotentialInfo


def potential_value(
    potential: Callable, forward_mode: bool, z: Any, solver_state: Any
) -> PotentialValue:
    """U, dU/dz and the new solver state at ``z``, by reverse or forward mode.

    ``potential`` is ``(z, state) -> (U, (state', info))``. Dtypes of the state do not change. A U of
    minus infinity, which no density has but a few numbers may give, is infinite: a chain would never
    leave.
    """
    if forward_mode:
        gradient, (energy, (state, info)) = jax.jacfwd(_twice(potential), has_aux=True)(
            z, solver_state
        )
    else:
        (energy, (state, info)), gradient = jax.value_and_grad(potential, has_aux=True)(
            z, solver_state
        )
    info = PotentialInfo(
        steps=jnp.asarray(info.steps, jnp.result_type(int)),
        loss=jnp.asarray(info.loss, jnp.result_type(float)),
        converged=jnp.asarray(info.converged, bool),
    )
    energy = jnp.where(energy == -jnp.inf, jnp.inf, energy)
    return PotentialValue(energy, gradient, jax.tree.map(_like, state, solver_state), info)


def _twice(potential: Callable) -> Callable:
    """The potential with its value repeated in the auxiliary output: jacfwd drops the value."""

    def with_value(z, solver_state):
        energy, aux = potential(z, solver_state)
        return energy, (energy, aux)

    return with_value


def _like(new: Any, old: Any) -> Any:
    """Loops need a carry of constant type, whatever a solver's arithmetic made of it."""
    new, dtype = jnp.asarray(new), jnp.asarray(old).dtype
    return new if new.dtype == dtype else new.astype(dtype)


def root(solver_state: Any, loss: Scalar) -> Carry:
    """The carry at the first point of a trajectory: nothing counted yet."""
    return Carry(solver_state, loss, jnp.zeros((), jnp.result_type(int)), jnp.array(True))


def leapfrog(
    value: Callable[[Any, Any], PotentialValue],
    kinetic_fn: Callable,
    step_size: Scalar,
    inverse_mass_matrix: Any,
    state: tuple,
) -> IntegratorState:
    """Half a kick, a drift, a solve at the new position from the carried state, half a kick.

    ``state`` is an `IntegratorState` or a 4-tuple in its order; a negative step goes back in time.
    """
    start = IntegratorState(*state)
    z, carry = start.z

    def kick(r, z_grad):
        return jax.tree.map(lambda r, g: r - 0.5 * step_size * g, r, z_grad)

    r = kick(start.r, start.z_grad)
    velocity = kinetic_gradient(kinetic_fn, inverse_mass_matrix, r)
    z = jax.tree.map(lambda z, v: z + step_size * v, z, velocity)
    energy, z_grad, solver_state, info = value(z, carry.solver_state)
    r = kick(r, z_grad)
    steps, converged = carry.steps + info.steps, carry.converged & info.converged
    return IntegratorState((z, Carry(solver_state, info.loss, steps, converged)), r, energy, z_grad)


class _Search(NamedTuple):
    step_size: Scalar
    last_direction: Count
    direction: Count
    trials: Count
    rng_key: Key


def reasonable_step_size(
    step: Callable,
    kinetic_fn: Callable,
    step_size: Scalar,
    inverse_mass_matrix: Any,
    point: ChainPoint,
    rng_key: Key,
) -> Scalar:
    """Double or halve the step size until the acceptance of one step crosses 0.8.

    Algorithm 4 of Hoffman and Gelman (2014), with a fresh momentum for each trial. ``step`` is
    `leapfrog` with its first two arguments given. A trial whose solve fails has acceptance 0, so
    the step shrinks; all trials start from the point's own solver state.
    """
    mass_sqrt = _mass_sqrt(inverse_mass_matrix)
    z = (point.z, point.carry)

    def crossed(search: _Search):
        same = (search.last_direction == 0) | (search.direction == search.last_direction)
        return same & (search.trials < MAX_TRIALS)

    def trial(search: _Search) -> _Search:
        key, key_momentum = jax.random.split(search.rng_key)
        size = 2.0**search.direction * search.step_size
        r = momentum_generator(point.z, mass_sqrt, key_momentum)
        start = IntegratorState(z, r, point.potential_energy, point.z_grad)
        end = step(size, inverse_mass_matrix, start)
        gain = (
            start.potential_energy
            + kinetic_fn(inverse_mass_matrix, start.r)
            - end.potential_energy
            - kinetic_fn(inverse_mass_matrix, end.r)
        )
        direction = jnp.where(gain > jnp.log(0.8), 1, -1)  # a NaN shrinks the step
        return _Search(size, search.direction, direction, search.trials + 1, key)

    zero = jnp.array(0)
    return jax.lax.while_loop(
        crossed, trial, _Search(step_size, zero, zero, zero, rng_key)
    ).step_size


def _mass_sqrt(inverse_mass_matrix: Any) -> Any:
    """A square root of the mass matrix: S with S S' inverse to the given matrix, block by block."""
    if isinstance(inverse_mass_matrix, dict):
        return {names: _mass_sqrt(block) for names, block in inverse_mass_matrix.items()}
    if inverse_mass_matrix.ndim == 1:
        return 1 / jnp.sqrt(inverse_mass_matrix)
    lower = jnp.linalg.cholesky(inverse_mass_matrix)
    identity = jnp.eye(len(lower), dtype=lower.dtype)
    return jax.scipy.linalg.solve_triangular(lower.T, identity, lower=False)

"""The outer iteration: one compiled function that advances by a block of steps."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bilo_ppl._types import Count, Scalar
from bilo_ppl.estimate.derivatives import differentiated
from bilo_ppl.estimate.objective import Evaluation, Objective
from bilo_ppl.estimate.stopping import SETTLING, Best, Status, Stopping, find_trouble, verdict

__all__ = ["Kept", "MapState", "begin", "descend", "resumed"]

RECORDED_SIZE = 64
"""Latent sites with more entries than this are left out of the history."""


class MapState(NamedTuple):
    """All that an iteration goes on from; arrays only."""

    z: dict[str, Any]
    """Unconstrained position, not yet evaluated."""
    operator_states: dict[str, Any]
    optimiser: Any
    best: Best
    """Where U was least among the points whose solves reached their tolerance; U = inf: nowhere."""
    last: Best
    """The last point whose U and gradient were finite."""
    reference: Scalar
    """U that the next improvement is measured from."""
    since: Count
    """Steps since that improvement."""
    misses: Count
    """Evaluations in a row that missed the inner tolerance."""
    first_energy: Scalar
    early_loss: Scalar
    """Largest lower-level loss of the first steps, while the inner optimiser settled."""
    steps: Count
    status: Count


class Kept(NamedTuple):
    """What is kept of every step."""

    energy: Any
    data_loss: Any
    inner_loss: Any
    inner_steps: Any
    inner_converged: Any
    gradient: Any
    """Largest entry of the gradient of U in z, in absolute value."""
    values: dict[str, Any]
    """Latent sites of at most 64 entries."""


def begin(
    z: dict[str, Any], operator_states: dict[str, Any], optimizer: optax.GradientTransformation
) -> MapState:
    """The state before the first step."""
    infinite, zero = jnp.array(jnp.inf), jnp.array(0)
    nowhere = Best(z, operator_states, infinite)
    state = MapState(
        z=z,
        operator_states=operator_states,
        optimiser=optimizer.init(z),
        best=nowhere,
        last=nowhere,
        reference=infinite,
        since=zero,
        misses=zero,
        first_energy=jnp.array(jnp.nan),
        early_loss=jnp.array(0.0),
        steps=zero,
        status=jnp.array(int(Status.RUNNING)),
    )
    # Weakly typed arrays would compile the first block apart from the others.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


def resumed(state: MapState) -> MapState:
    """A state that has stopped, ready to go on."""
    zero = jnp.zeros_like(state.steps)
    return state._replace(since=zero, misses=zero, status=jnp.zeros_like(state.status))


@eqx.filter_jit
def descend(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    stopping: Stopping,
    block: int,
    state: MapState,
    length: Any,
) -> tuple[MapState, Kept]:
    """At most ``length`` steps, and what is kept of them in arrays of size ``block``."""
    optimiser = optax.with_extra_args_support(optimizer)

    def step(state):
        return _step(objective, optimiser, stopping, state)

    def go_on(carry):
        state, _ = carry
        return (state.steps < end) & (state.status == Status.RUNNING)

    def body(carry):
        state, kept = carry
        i = state.steps - start
        state, new = step(state)
        return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), kept, new)

    start, end = state.steps, state.steps + length
    shapes = jax.eval_shape(lambda s: step(s)[1], state)
    kept = jax.tree.map(lambda leaf: jnp.zeros((block, *leaf.shape), leaf.dtype), shapes)
    return jax.lax.while_loop(go_on, body, (state, kept))


def _step(
    objective: Objective, optimiser: Any, stopping: Stopping, state: MapState
) -> tuple[MapState, Kept]:
    """Evaluate at the position, then move it."""
    energy, gradient, jacobian, (operator_states, found) = differentiated(
        objective, state.z, state.operator_states, rows=stopping.least_squares
    )
    slope = _largest(gradient)

    here = Best(state.z, operator_states, energy)
    state, trouble = _noted(state, here, found, slope, stopping)
    good = trouble == Status.RUNNING
    counts = good if stopping.max_misses is None else good & found.info.converged
    # Optax's line searches refuse arguments that they do not know.
    extra = {"jacobian": jacobian} if stopping.least_squares else {}
    updates, moments = optimiser.update(
        gradient,
        state.optimiser,
        state.z,
        # A line search must not be drawn to where the PDE could not be solved.
        value=jnp.where(counts, energy, jnp.inf) if stopping.trials else energy,
        grad=gradient,
        value_fn=lambda z: _solved_only(objective, z, operator_states, stopping),
        **extra,
    )
    status = verdict(state, found, trouble, slope, _largest(updates), stopping)
    moves = status == Status.RUNNING
    state = state._replace(
        z=_choose(moves, optax.apply_updates(state.z, updates), state.z),
        operator_states=_carried(state, operator_states, good, stopping),
        optimiser=_choose(moves, moments, state.optimiser),
        steps=state.steps + 1,
        status=status.astype(state.status.dtype),
    )
    return state, _kept(energy, found, slope)


def _carried(state: MapState, new: Any, good: Any, stopping: Stopping) -> Any:
    """The operator states for the next evaluation.

    Trials start from the last accepted point: so U is a function of the position, that tends to its
    value there as steps are shortened, although it is known to the inner tolerance only.
    """
    if not stopping.trials:
        return _choose(good, new, state.operator_states)
    return _choose(jnp.isinf(state.best.energy), new, state.best.operator_states)


def _solved_only(objective: Objective, z: Any, operator_states: Any, stopping: Stopping) -> Scalar:
    value, (_, found) = objective(z, operator_states)
    return value if stopping.max_misses is None else jnp.where(found.info.converged, value, jnp.inf)


def _noted(
    state: MapState, here: Best, found: Evaluation, slope: Scalar, stopping: Stopping
) -> tuple[MapState, Any]:
    """The state with the counters, the best and the last point brought up to date; trouble."""
    first = state.steps == 0
    state = state._replace(first_energy=jnp.where(first, here.energy, state.first_energy))
    trouble = find_trouble(state, here, found, slope, stopping.inner_tolerance)
    good = trouble == Status.RUNNING
    # Plain descent of weights and theta has no tolerance to keep: every good point counts.
    counts = good if stopping.max_misses is None else good & found.info.converged
    improved = counts & (here.energy < state.reference - stopping.improvement)
    state = state._replace(
        early_loss=jnp.where(
            good & (state.steps < SETTLING),
            jnp.maximum(state.early_loss, found.info.loss),
            state.early_loss,
        ),
        best=_choose(counts & (here.energy < state.best.energy), here, state.best),
        last=_choose(good, here, state.last),
        reference=jnp.where(improved, here.energy, state.reference),
        since=jnp.where(improved, 0, state.since + 1),
        misses=jnp.where(good & found.info.converged, 0, state.misses + 1),
    )
    return state, trouble


def _kept(energy: Scalar, found: Evaluation, slope: Scalar) -> Kept:
    values = {name: v for name, v in found.values.items() if v.size <= RECORDED_SIZE}
    info = found.info
    return Kept(
        energy,
        found.data_loss,
        jnp.asarray(info.loss),
        jnp.asarray(info.steps),
        info.converged,
        slope,
        values,
    )


def _largest(tree: Any) -> Float[Array, ""]:
    """Largest absolute value; NaN if there is one."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def _choose(condition: Any, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)

"""L-BFGS with backtracking that costs one evaluation a step, and so compiles one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bilo_ppl._types import Scalar

__all__ = ["backtracking_lbfgs"]

SUFFICIENT = 1e-4
"""Armijo's constant: the part of the predicted decrease that a step must give."""

SHRINK = (0.1, 0.5)
"""Bounds of the factor by which a refused step is shortened."""


class _State(NamedTuple):
    anchor: Any
    """The last point that was accepted."""
    value: Scalar
    slope: Any
    """Gradient at the anchor."""
    memory: Any
    """State of `optax.scale_by_lbfgs`."""


def backtracking_lbfgs(
    memory: int = 10, max_step: float = 0.5, first_step: float = 0.1
) -> optax.GradientTransformationExtraArgs:
    """Limited-memory BFGS; the step proposed is tried at the next call, and shortened if refused.

    An ordinary line search evaluates the objective inside the update, where each evaluation is
    another PDE solve to compile. Here a call either accepts the point that it is given (Armijo's
    condition) and proposes a quasi-Newton step from it, or goes back towards the last accepted point
    (quadratic interpolation). A value that is not finite is refused. No entry moves by more than
    ``max_step`` at once, or by ``first_step`` along steepest descent, whose length means nothing: a
    leap is dear where a network has to follow. Nocedal and Wright, *Numerical Optimization*, 2006,
    algorithms 3.1 and 7.4.
    """
    preconditioner = optax.scale_by_lbfgs(memory_size=memory)

    def init(params):
        zero = jax.tree.map(jnp.zeros_like, params)
        return _State(params, jnp.array(jnp.inf), zero, preconditioner.init(params))

    def update(updates, state, params=None, *, value=None, **extra):
        del extra
        if params is None or value is None:
            raise ValueError("backtracking_lbfgs: update needs the parameters and the value.")
        moved = jax.tree.map(jnp.subtract, params, state.anchor)
        predicted = jnp.asarray(optax.tree.vdot(state.slope, moved))
        accepted = jnp.isinf(state.value) | (value <= state.value + SUFFICIENT * predicted)
        accepted &= jnp.isfinite(value)
        forward, remembered, steepest = _direction(preconditioner, updates, state.memory, params)
        blind = steepest | jnp.isinf(state.value)
        forward = _capped(forward, jnp.where(blind, first_step, max_step))
        shrink = _interpolated(state.value, value, predicted)
        back = jax.tree.map(lambda m: (shrink - 1) * m, moved)
        here = _State(params, value, updates, remembered)
        return _choose(accepted, forward, back), _choose(accepted, here, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _direction(
    preconditioner: Any, gradient: Any, memory: Any, params: Any
) -> tuple[Any, Any, Any]:
    """The quasi-Newton direction; steepest descent, and a new memory, where it would ascend.

    The last value says whether it is steepest descent.
    """
    scaled, remembered = preconditioner.update(gradient, memory, params)
    direction = jax.tree.map(jnp.negative, scaled)
    descends = jnp.asarray(optax.tree.vdot(direction, gradient)) < 0
    scaled, fresh = preconditioner.update(gradient, preconditioner.init(params), params)
    steepest = jax.tree.map(jnp.negative, scaled)
    memory = _choose(descends, remembered, fresh)
    return _choose(descends, direction, steepest), memory, ~descends


def _capped(step: Any, limit: Any) -> Any:
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(step)]))
    factor = jnp.minimum(1, limit / jnp.maximum(largest, limit * 1e-9))
    return jax.tree.map(lambda leaf: factor * leaf, step)


def _interpolated(start: Scalar, end: Scalar, slope: Scalar) -> Scalar:
    """Where the parabola through both values with the slope at the start is least, in (0, 1)."""
    best = -slope / (2 * (end - start - slope))
    low, high = SHRINK
    return jnp.where(jnp.isfinite(best), jnp.clip(best, low, high), high)


def _choose(condition: Any, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)

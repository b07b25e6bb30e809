"""Descent with backtracking that costs one evaluation a step, and so compiles one.

An ordinary line search evaluates the objective inside the update, where each evaluation is another
PDE solve to compile. Here a call either accepts the point that it is given (Armijo's condition) and
proposes a step from it, or goes back towards the last accepted point (quadratic interpolation). A value
that is not finite is refused. Nocedal and Wright, *Numerical Optimization*, 2006, algorithms 3.1, 7.4.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl._types import Flag, Scalar

__all__ = ["LeastSquaresTrials", "Trials", "backtracking_lbfgs", "gauss_newton"]

SUFFICIENT = 1e-4
"""Armijo's constant: the part of the predicted decrease that a step must give."""

SHRINK = (0.1, 0.5)
"""Bounds of the factor by which a refused step is shortened."""

LEAST_DAMPING, MOST_DAMPING = 1e-10, 1e2
"""In double precision; in single precision ten times the machine precision is the least."""


class Trials(optax.GradientTransformationExtraArgs):
    """An optimiser whose proposals may be refused at the next call."""


class LeastSquaresTrials(Trials):
    """One whose ``update`` needs the ``jacobian`` of the least-squares rows."""


class _State(NamedTuple):
    anchor: Any
    """The last point that was accepted."""
    value: Scalar
    slope: Any
    """Gradient at the anchor."""
    memory: Any
    """What the direction is made from."""


class _Damping(NamedTuple):
    damping: Scalar
    promised: Scalar
    """Decrease that the model of the last step promised; NaN: none to compare with."""


def backtracking_lbfgs(
    memory: int = 10, max_step: float = 0.5, first_step: float = 0.1
) -> optax.GradientTransformationExtraArgs:
    """Limited-memory BFGS; the step proposed is tried at the next call, and shortened if refused.

    No entry moves by more than ``max_step`` at once, or by ``first_step`` along steepest descent,
    whose length means nothing: a leap is dear where a network has to follow.

    Examples:
        >>> from bilo_ppl.estimate import backtracking_lbfgs
        >>> lbfgs = backtracking_lbfgs(memory=5)
        >>> found = bilo.find_map(model, key, exact, x, y, optimizer=lbfgs, progress=False)
        >>> round(float(found.values["r"]), 2), found.converged
        (8.96, True)
    """
    preconditioner = optax.scale_by_lbfgs(memory_size=memory)

    def direction(gradient, remembered, params, decrease, _):
        forward, remembered, steepest = _quasi_newton(preconditioner, gradient, remembered, params)
        blind = steepest | jnp.isinf(decrease)
        return _capped(forward, jnp.where(blind, first_step, max_step)), remembered

    return _backtracking(preconditioner.init, direction, lambda memory: memory, Trials)


def gauss_newton(
    damping: float = 1e-3, max_step: float = 0.5, tolerance: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    """Damped Gauss-Newton (Levenberg-Marquardt) steps; for `find_map` with method "nested".

    The curvature is that of the Gaussian likelihoods, Gaussian priors and squared penalties of the
    model, as functions of the position; other terms enter by their gradients. ``damping`` is in
    units of the largest eigenvalue of the curvature, and falls with accepted steps. No entry moves by
    more than ``max_step`` at once. The descent ends where a step promises less than ``tolerance``
    nats. It needs few evaluations, each with a linear solve for every datum.

    Examples:
        >>> from bilo_ppl.estimate import gauss_newton
        >>> careful = gauss_newton(damping=0.1, max_step=0.2)
        >>> found = bilo.find_map(model, key, exact, x, y, optimizer=careful, progress=False)
        >>> round(float(found.values["r"]), 2), found.converged
        (8.96, True)
    """

    def init(params):
        del params
        return _Damping(jnp.asarray(damping, jnp.result_type(float)), jnp.array(jnp.nan))

    def direction(gradient, memory, params, decrease, jacobian):
        del params
        # Nielsen's rule; nothing is known of the first step, and little of one that was cut short.
        gain = decrease / memory.promised
        change = jnp.where(jnp.isfinite(gain), jnp.clip(1 - (2 * gain - 1) ** 3, 0.2, 2.0), 1.0)
        flat, unravel = ravel_pytree(gradient)
        least = jnp.maximum(LEAST_DAMPING, 10 * jnp.finfo(flat.dtype).eps)
        raised = jnp.clip(memory.damping * change, least, MOST_DAMPING)
        values, right = _right_singular(jacobian)
        step, promised = _damped_step(values, right, flat, raised)
        # The end is where even a step with next to no damping promises nothing.
        _, most = _damped_step(values, right, flat, least)
        done = jnp.maximum(promised, jnp.where(jnp.isfinite(most), most, 0)) < tolerance
        step = _capped(unravel(jnp.where(done, 0.0, step)), max_step)
        return step, _Damping(raised, promised)

    def refused(memory):
        return _Damping(jnp.minimum(4 * memory.damping, MOST_DAMPING), jnp.array(jnp.nan))

    return _backtracking(init, direction, refused, LeastSquaresTrials)


def _backtracking(init_memory: Callable, direction: Callable, refused: Callable, kind: type) -> Any:
    """The trial scheme around ``direction(gradient, memory, params, decrease, jacobian)``."""

    def init(params):
        zero = jax.tree.map(jnp.zeros_like, params)
        return _State(params, jnp.array(jnp.inf), zero, init_memory(params))

    def update(updates, state, params=None, *, value=None, jacobian=None, **extra):
        del extra
        if params is None or value is None or (kind is LeastSquaresTrials and jacobian is None):
            raise ValueError(
                "backtracking needs the parameters and the value, and gauss_newton the jacobian: use "
                "them in find_map."
            )
        moved = jax.tree.map(jnp.subtract, params, state.anchor)
        predicted = jnp.asarray(optax.tree.vdot(state.slope, moved))
        accepted = jnp.isinf(state.value) | (value <= state.value + SUFFICIENT * predicted)
        accepted &= jnp.isfinite(value)
        forward, memory = direction(updates, state.memory, params, state.value - value, jacobian)
        shrink = _interpolated(state.value, value, predicted)
        back = jax.tree.map(lambda m: (shrink - 1) * m, moved)
        here = _State(params, value, updates, memory)
        there = state._replace(memory=refused(state.memory))
        return _choose(accepted, forward, back), _choose(accepted, here, there)

    return kind(init, update)


def _right_singular(J: Float[Array, "n p"]) -> tuple[Float[Array, " k"], Float[Array, "k p"]]:
    """Singular values and right singular vectors; of a wide J by its triangular factor first."""
    if J.shape[0] >= J.shape[1]:
        _, values, right = jnp.linalg.svd(J, full_matrices=False)
        return values, right
    Q, R = jnp.linalg.qr(J.T)
    _, values, right = jnp.linalg.svd(R.T, full_matrices=False)
    return values, right @ Q.T


def _damped_step(
    values: Float[Array, " k"],
    right: Float[Array, "k p"],
    gradient: Float[Array, " p"],
    damping: Scalar,
) -> tuple[Float[Array, " p"], Scalar]:
    """``-(J^T J + damping |J|^2)^-1 gradient`` in the row space of J, and the decrease it promises.

    J is given by its singular values and right singular vectors.

    Where the rows know no curvature, the step is along steepest descent, of the length that the
    damping allows.
    """
    unit = jnp.maximum(values[0] ** 2, jnp.finfo(values.dtype).tiny)
    inside = right @ gradient
    outside = gradient - right.T @ inside
    shift = damping * unit
    known = -inside / (values**2 + shift)
    step = right.T @ known - outside / shift
    curved = 0.5 * jnp.sum((values * known) ** 2)
    return step, -(jnp.vdot(gradient, step) + curved)


def _quasi_newton(
    preconditioner: Any, gradient: Any, memory: Any, params: Any
) -> tuple[Any, Any, Flag]:
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

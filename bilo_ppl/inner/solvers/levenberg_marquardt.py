"""Levenberg-Marquardt: damped Gauss-Newton steps on the lower level's rows.

One linearisation a step (`bilo_ppl.inner.linearised`: QR, or conjugate gradients for large systems); the
damping is then searched with forward passes and solves only. Nielsen's rule (Madsen, Nielsen,
Tingleff, *Methods for Non-Linear Least Squares Problems*, 2004) sets it from the gain ratio.

A step is followed by a second one with the same factor, against what the rows are off their linear model
by: to second order that is half of the geodesic acceleration (Transtrum and Sethna, *Improvements to the
Levenberg-Marquardt algorithm*, 2012). Along curved valleys it allows for a tenth of the damping.

Where every step sees other rows, the one before is taken again in part, and only what it leaves of the
new rows is solved for (SPRING: Goldshlager, Abrahamsen, Lin, *A Kaczmarz-inspired approach to accelerate
the optimization of neural network wavefunctions*, 2024). What other rows have asked for is then kept.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl._types import Count, Flag, Rows, Scalar, Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.linearised import AbstractLinearised, linearise
from bilo_ppl.inner.solvers.base import AbstractInnerSolver, check_limits

__all__ = ["LevenbergMarquardt"]


class _State(NamedTuple):
    weights: Weights
    loss: Scalar
    steps: Count
    rows: Rows
    damping: Scalar
    stuck: Flag
    last: Float[Array, " p"]
    """The step that led here; of no entries without momentum."""


class _Trial(NamedTuple):
    weights: Weights
    rows: Rows
    loss: Scalar
    gain: Scalar
    damping: Scalar
    growth: Scalar
    count: Count
    step: Float[Array, " p"]


MOMENTUM = 0.95
"""Part of the last step that is taken again where every step sees other rows."""

SUFFICIENT = 1e-4
"""Least gain ratio of an accepted step."""


def _untried(state: _State) -> _Trial:
    """Where the search for a damping starts: nothing gained, the damping not yet raised."""
    gain, growth = -jnp.ones_like(state.loss), jnp.ones_like(state.damping)
    count, none = jnp.array(0), jnp.zeros_like(state.last)
    return _Trial(state.weights, state.rows, state.loss, gain, state.damping, growth, count, none)


class LevenbergMarquardt(AbstractInnerSolver):
    """Second-order inner solver for the rows of the lower level.

    ``damping`` is the first damping, in units of the mean eigenvalue of the normal matrix;
    ``max_trials`` bounds the dampings tried in one step. A step for which none of them lowers the
    loss ends the solve (not converged, unless the tolerance was reached before). ``momentum`` is the
    part of the last step that is taken again, for steps of which each sees other rows (`for_parts`).
    ``sketched`` takes steps on 600 rows or more, of as many weights, by conjugate gradients with a sketch
    of the normal matrix (`bilo_ppl.inner.sketched`): cheaper, but not exact. ``tolerance`` is in
    the units of the loss, a mean of squared residuals. Raises a ``ValueError`` if it is not
    positive, ``max_steps`` is negative, or ``momentum`` is not in [0, 1).

    Examples:
        >>> solver = bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=20)
        >>> operator = bilo.FineTuned(network, solver, bilo.PartialDerivative())
        >>> _, _, info = eqx.filter_jit(operator.solve)({"r": 6.0}, operator.init_state())
        >>> bool(info.loss <= 1e-7), bool(info.steps < 20)
        (True, True)
    """

    tolerance: float
    max_steps: int
    damping: float = 1e-4
    max_trials: int = 8
    momentum: float = 0.0
    sketched: bool = False

    def __check_init__(self):
        check_limits(self)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"LevenbergMarquardt: momentum={self.momentum}, not in [0, 1).")

    def init(self, problem: LeastSquares, weights: Weights) -> _State:
        """Rows and loss at the start."""
        rows = problem.rows(weights)
        damping = jnp.asarray(self.damping, rows.dtype)
        count, stuck = jnp.array(0), jnp.array(False)
        last = jnp.zeros_like(ravel_pytree(weights)[0]) if self.momentum else jnp.zeros(0)
        return _State(weights, jnp.sum(rows**2), count, rows, damping, stuck, last)

    def step(self, problem: LeastSquares, state: _State) -> _State:
        """Factor the Jacobian, then raise the damping until the loss falls."""
        system = linearise(problem, state.weights, damped=True, exact=not self.sketched)

        def rejected(trial):
            return ~(trial.gain > SUFFICIENT) & (trial.count < self.max_trials)

        trial = jax.lax.while_loop(
            rejected, lambda trial: self._try(problem, state, system, trial), _untried(state)
        )
        accepted = trial.gain > SUFFICIENT
        shrink = jnp.clip(1 - (2 * trial.gain - 1) ** 3, 0.05, 1.0)
        floor = jnp.asarray(10 * jnp.finfo(state.rows.dtype).eps ** 2, state.rows.dtype)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)

        return _State(
            keep(trial.weights, state.weights),
            keep(trial.loss, state.loss),
            state.steps + 1,
            keep(trial.rows, state.rows),
            jnp.where(accepted, jnp.maximum(trial.damping * shrink, floor), self._again(state)),
            ~accepted,
            keep(trial.step, jnp.zeros_like(state.last)),
        )

    def _again(self, state: _State) -> Scalar:
        """The damping after a step that failed: finite, and no smaller than the first one.

        Those that were tried served nothing, and grow without bound from one `follow` to the next.
        """
        return jnp.maximum(state.damping, jnp.asarray(self.damping, state.damping.dtype))

    def _try(
        self, problem: LeastSquares, state: _State, system: AbstractLinearised, last: _Trial
    ) -> _Trial:
        """One damping: a step, its loss, and the ratio of actual to predicted decrease."""
        flat, unravel = ravel_pytree(state.weights)
        damping = last.damping * last.growth
        solve = system.damped(damping)
        step = self._step(system, solve, state, last.growth)
        model = state.rows + system.apply(step)
        weights, rows, loss = tried = _at(problem, unravel, flat + step)
        if system.has_factor:
            # What the rows are off their linear model by is nearly the same a little further on.
            bent = _at(problem, unravel, flat + step - solve(rows - model))
            weights, rows, loss = _choose(bent[2] < loss, bent, tried)
        predicted = state.loss - jnp.sum(model**2)
        gain = (state.loss - loss) / jnp.maximum(predicted, jnp.finfo(loss.dtype).tiny)
        growth = jnp.where(last.count == 0, 2, 2 * last.growth)
        taken = step if self.momentum else last.step
        return _Trial(weights, rows, loss, gain, damping, growth, last.count + 1, taken)

    def _step(
        self, system: AbstractLinearised, solve: Callable, state: _State, growth: Any
    ) -> Float[Array, " p"]:
        """The damped step, from where a part of the last one leads: less of it, the more is damped."""
        if not self.momentum:
            return -solve(state.rows)
        again = self.momentum / growth * state.last
        return again - solve(state.rows + system.apply(again))

    def follow(self, problem: LeastSquares, state: _State) -> _State:
        """One step on another problem, with the damping that served the former one."""
        start = self.init(problem, state.weights)
        return self.step(problem, start._replace(damping=state.damping, last=state.last))

    def for_parts(self) -> "LevenbergMarquardt":
        """With momentum: its own, if it has any."""
        return dataclasses.replace(self, momentum=self.momentum or MOMENTUM)

    def stuck(self, state: _State) -> Flag:
        """No damping lowered the loss in the last step."""
        return state.stuck


def _at(problem: LeastSquares, unravel: Callable, flat: Any) -> tuple[Weights, Rows, Scalar]:
    """Weights, with their rows and loss."""
    weights = unravel(flat)
    rows = problem.rows(weights)
    return weights, rows, jnp.sum(rows**2)


def _choose(condition: Any, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)

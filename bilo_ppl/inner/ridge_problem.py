"""Least squares of the rows of an output layer, with a ridge, and the derivative of the minimiser.

The parameters p of a level minimise F(p; theta) = |rows(p; theta)|^2 + ridge |p - origin|^2, with a ridge
so small that it only decides what the rows leave open in working precision. One Gauss-Newton step solves
it where the rows are affine in p. The derivative in theta is that of the minimiser, dp/dtheta =
-H^-1 d(grad_p F)/dtheta / 2 with the full Hessian: with the rows' own second derivatives, and the term
in dJ/dtheta, which counts where the rows cannot vanish.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.lax.linalg import cholesky
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from bilo_ppl._types import Rows, Scalar, Theta
from bilo_ppl.inner.output_rows import AbstractOutputRows

__all__ = ["Minimum", "RidgeProblem", "smallest_ridge"]

RIDGE = 4.0
"""In units of what rounding makes of the smallest eigenvalue of the normal matrix."""

ENOUGH = 1e-6
"""Part of the objective below which a predicted decrease is nothing."""

FEW = 16
"""Numbers in theta up to which derivatives along each of them are cheap."""

SHORTEST = 1 / 64
"""Part of a step that does not lower the objective, halved again and again, that is tried last."""

WINDOWS = 16
"""Ends of the time that counts, where steps are stuck."""

LATER = 1e-6
"""What a point counts for beyond that end."""

ALMOST = 1e-9
"""Gradient of a minimum, in units of the trace of the normal matrix times the largest parameter."""

STUCK = 1e-3
"""Part of what is left with all parameters zero, from which on steps are stuck without a ``limit``."""


def smallest_ridge(trace: Any, dtype: Any) -> Scalar:
    """What decides where a normal matrix of this trace is singular in working precision."""
    return jnp.asarray(RIDGE * jnp.finfo(dtype).eps * trace, dtype)


class Minimum(NamedTuple):
    """Where the objective is least, at one theta."""

    flat: Float[Array, " p"]
    factor: Float[Array, "p p"]
    """Lower Cholesky factor of half the Hessian there."""
    steps: Any


class _Iterate(NamedTuple):
    flat: Float[Array, " p"]
    rows: Rows
    value: Scalar
    count: Any
    done: Any


class _Stage(NamedTuple):
    number: Any
    start: Float[Array, " p"]
    best: _Iterate
    """By the objective of all points."""


class _Trial(NamedTuple):
    length: Scalar
    """Of the next trial, in units of the full step."""
    flat: Float[Array, " p"]
    rows: Rows
    value: Scalar


class RidgeProblem(eqx.Module):
    """The problem of a level, at any theta."""

    level: AbstractOutputRows
    origin: Float[Array, " p"]
    ridge: Scalar
    linear: bool = eqx.field(static=True)
    """Whether one step is the solution."""
    max_steps: int = eqx.field(static=True)
    limit: Any = None
    """Value of the objective above which it is sought along the time, for a solution in time alone."""
    factor: Any = None
    """Of the normal matrix, where that is the same at every theta (`factor_at`)."""

    def factor_at(self, theta: Theta) -> Float[Array, "p p"]:
        """Lower Cholesky factor of the normal matrix at the origin."""
        return self._factor(_lower_gram(self.level.jacobian(theta, self.origin)))

    def is_minimum(self, theta: Theta, found: Minimum) -> Any:
        """Whether the gradient vanishes but for rounding: not so if a known factor is not theta's."""
        if self.factor is None:
            return jnp.array(True)
        size = jnp.sum(found.factor**2) * jnp.max(jnp.abs(found.flat))
        return jnp.max(jnp.abs(self._gradient(theta, found.flat))) <= ALMOST * size

    def minimum(self, theta: Theta, start: Float[Array, " p"]) -> Minimum:
        """From the parameters ``start``; not differentiated."""
        arrays, static = eqx.partition((theta, start), eqx.is_array)
        theta, flat = eqx.combine(jax.lax.stop_gradient(arrays), static)
        found = self._in_one_step(theta, flat) if self.linear else self._iterated(theta, flat)
        return jax.lax.stop_gradient(found)

    def attached(self, theta: Theta, found: Minimum) -> Float[Array, " p"]:
        """The minimiser as a function of theta: a Newton step that hardly moves, for its derivative."""
        return found.flat - cho_solve((found.factor, True), self._gradient(theta, found.flat))

    def attached_rarely(self, theta: Theta, found: Minimum) -> Float[Array, " p"]:
        """The same by the matrix of derivatives, where theta is a few numbers.

        Of a branch that is not taken, what its derivative needs is filled with zeros all the same: of a
        matrix of few columns that is nothing, of the rows far more than the other branch costs.
        """
        arrays, static = eqx.partition(theta, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(arrays)
        if flat.size > FEW:
            return self.attached(theta, found)

        def gradient(moved: Any) -> Any:
            return self._gradient(eqx.combine(unravel(moved), static), found.flat)

        fixed = jax.lax.stop_gradient(flat)
        slopes = jax.lax.stop_gradient(jax.jacfwd(gradient)(fixed))
        return found.flat - cho_solve((found.factor, True), slopes) @ (flat - fixed)

    def _in_one_step(self, theta: Theta, flat: Any) -> Minimum:
        if self.factor is not None:
            step = cho_solve((self.factor, True), self._gradient(theta, flat))
            return Minimum(flat - step, self.factor, jnp.array(1))
        rows, J = self.level.rows(theta, flat), self.level.jacobian(theta, flat)
        factor = self._factor(_lower_gram(J))
        gradient = J.T @ rows + self.ridge * (flat - self.origin)
        return Minimum(flat - cho_solve((factor, True), gradient), factor, jnp.array(1))

    def _iterated(self, theta: Theta, flat: Any) -> Minimum:
        """By steps on all points; where they are stuck, on those of a growing window of time.

        Where a solution grows, hardly any residual is left by one that never begins to: a minimum that
        steps find, and none of the points up to a time has (Wang, Sankaran, Perdikaris, *Respecting
        causality is all you need for training physics-informed neural networks*, 2022).
        """
        if self.limit is None or self.level.operator.problem.domain.space:
            found = self._descended(theta, flat)
        else:
            found = self._marched(theta, flat)
        at = self.level.jacobian(theta, found.flat)
        gram = _lower_gram(at)
        return Minimum(found.flat, self._curved(gram, theta, found.flat), found.count)

    def _marched(self, theta: Theta, flat: Any) -> _Iterate:
        nothing = jnp.zeros_like(flat)
        left = self._value(self.level.rows(theta, nothing), nothing)
        limit = jnp.where(jnp.isinf(self.limit), STUCK * left, self.limit)
        times, shares = self.level.points[:, 0], self.level.shares
        domain = self.level.operator.problem.domain
        first, last = domain.lower[0], domain.upper[0]

        def go_on(carry: _Stage) -> Any:
            stuck = ~(carry.best.value <= limit)
            return (carry.number == 0) | (stuck & (carry.number <= WINDOWS))

        def stage(carry: _Stage) -> _Stage:
            number = carry.number
            end = first + (last - first) * number / WINDOWS
            whole = (number == 0) | (number == WINDOWS)
            counts = jnp.where(whole | (times <= end), 1.0, LATER)
            within = eqx.tree_at(lambda p: p.level.shares, self, counts * shares)
            found = within._descended(theta, carry.start)
            better = whole & ((number == 0) | (found.value < carry.best.value))
            best = jax.tree.map(lambda a, b: jnp.where(better, a, b), found, carry.best)
            start = jnp.where(number == 0, flat, found.flat)
            return _Stage(number + 1, start, best._replace(count=found.count + carry.best.count))

        rows = self.level.rows(theta, flat)
        none = _Iterate(
            flat, rows, jnp.inf * self._value(rows, flat), jnp.array(0), jnp.array(True)
        )
        return jax.lax.while_loop(go_on, stage, _Stage(jnp.array(0), flat, none)).best

    def _descended(self, theta: Theta, flat: Any) -> _Iterate:
        """Gauss-Newton steps, halved where they are too long."""
        rows_at = partial(self.level.rows, theta)

        def step(carry: _Iterate) -> _Iterate:
            J = self.level.jacobian(theta, carry.flat)
            gradient = J.T @ carry.rows + self.ridge * (carry.flat - self.origin)
            full = cho_solve((self._factor(_lower_gram(J)), True), gradient)

            def shorter(trial: _Trial) -> _Trial:
                moved = carry.flat - trial.length * full
                rows = rows_at(moved)
                return _Trial(trial.length / 2, moved, rows, self._value(rows, moved))

            def too_long(trial: _Trial) -> Any:
                return ~(trial.value < carry.value) & (trial.length >= SHORTEST)

            none = jnp.asarray(jnp.inf, carry.value.dtype)
            start = _Trial(jnp.ones_like(none), carry.flat, carry.rows, none)
            found = jax.lax.while_loop(too_long, shorter, start)
            better = found.value < carry.value
            done = ~better | (gradient @ full <= ENOUGH * carry.value)
            flat, rows, value = (
                jnp.where(better, new, old)
                for new, old in zip(found[1:], (carry.flat, carry.rows, carry.value), strict=True)
            )
            return _Iterate(flat, rows, value, carry.count + 1, done)

        def go_on(carry: _Iterate) -> Any:
            return ~carry.done & (carry.count < self.max_steps)

        rows = rows_at(flat)
        value = self._value(rows, flat)
        start = _Iterate(flat, rows, value, jnp.array(0), jnp.array(False))
        return jax.lax.while_loop(go_on, step, start)

    def _value(self, rows: Any, flat: Any) -> Scalar:
        """The objective."""
        return jnp.sum(rows**2) + self.ridge * jnp.sum((flat - self.origin) ** 2)

    def _gradient(self, theta: Theta, flat: Any) -> Any:
        """Half of that of the objective."""
        return self.level.gradient(theta, flat) + self.ridge * (flat - self.origin)

    def _factor(self, normal: Any) -> Any:
        """Of a normal matrix without the ridge, of which the lower triangle counts.

        Where that is too little, for a matrix far larger than at the theta that the ridge is from, it
        takes a larger one: the minimiser and its derivative are not quite those of the objective there.
        """
        factor = self._with_ridge(normal, self.ridge)
        larger = jnp.maximum(self.ridge, smallest_ridge(jnp.trace(normal), normal.dtype))
        return jax.lax.cond(
            jnp.isfinite(factor).all(), lambda: factor, lambda: self._with_ridge(normal, larger)
        )

    def _with_ridge(self, normal: Any, ridge: Any) -> Any:
        return cholesky(normal + ridge * jnp.eye(len(normal)), symmetrize_input=False)

    def _curved(self, gram: Any, theta: Theta, flat: Any) -> Any:
        """The factor of half the Hessian; where that has no factor, of the normal matrix."""
        factor = self._with_ridge(gram + self.level.bend(theta, flat), self.ridge)
        return jax.lax.cond(jnp.isfinite(factor).all(), lambda: factor, lambda: self._factor(gram))


def _lower_gram(J: Float[Array, "rows p"]) -> Float[Array, "p p"]:
    """``J.T @ J`` less its upper right quarter, which a factorisation does not look at."""
    half = J.shape[1] // 2
    first, second = J.T[:half], J.T[half:]
    top = jnp.pad(first @ first.T, ((0, 0), (0, len(second))))
    return jnp.concatenate([top, second @ J])

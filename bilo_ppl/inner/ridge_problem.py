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
from jax.lax.linalg import cholesky
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from bilo_ppl._types import Scalar, Theta
from bilo_ppl.inner.output_rows import AbstractOutputRows

__all__ = ["Minimum", "RidgeProblem", "smallest_ridge"]

RIDGE = 4.0
"""In units of what rounding makes of the smallest eigenvalue of the normal matrix."""

ENOUGH = 1e-6
"""Part of the objective below which a predicted decrease is nothing."""

HALVINGS = 4
"""How often a step that does not lower the objective is halved."""


def smallest_ridge(trace: Any, dtype: Any) -> Scalar:
    """What decides where a normal matrix of this trace is singular in working precision."""
    return jnp.asarray(RIDGE * jnp.finfo(dtype).eps * trace, dtype)


class Minimum(NamedTuple):
    """Where the objective is least, at one theta."""

    flat: Float[Array, " p"]
    factor: Float[Array, "p p"]
    """Lower Cholesky factor of half the Hessian there."""
    steps: Any


class RidgeProblem(eqx.Module):
    """The problem of a level, at any theta."""

    level: AbstractOutputRows
    origin: Float[Array, " p"]
    ridge: Scalar
    linear: bool = eqx.field(static=True)
    """Whether one step is the solution."""
    max_steps: int = eqx.field(static=True)

    def minimum(self, theta: Theta, start: Float[Array, " p"]) -> Minimum:
        """From the parameters ``start``; not differentiated."""
        arrays, static = eqx.partition((theta, start), eqx.is_array)
        theta, flat = eqx.combine(jax.lax.stop_gradient(arrays), static)
        found = self._in_one_step(theta, flat) if self.linear else self._iterated(theta, flat)
        return jax.lax.stop_gradient(found)

    def attached(self, theta: Theta, found: Minimum) -> Float[Array, " p"]:
        """The minimiser as a function of theta: a Newton step that hardly moves, for its derivative."""
        return found.flat - cho_solve((found.factor, True), self._gradient(theta, found.flat))

    def _in_one_step(self, theta: Theta, flat: Any) -> Minimum:
        rows, J = self.level.rows(theta, flat), self.level.jacobian(theta, flat)
        factor = self._factor(_lower_gram(J))
        gradient = J.T @ rows + self.ridge * (flat - self.origin)
        return Minimum(flat - cho_solve((factor, True), gradient), factor, jnp.array(1))

    def _iterated(self, theta: Theta, flat: Any) -> Minimum:
        """Gauss-Newton steps, halved where they are too long."""
        objective = partial(self._objective, theta)

        def step(carry):
            flat, value, count, _ = carry
            J, gradient = self.level.jacobian(theta, flat), self._gradient(theta, flat)
            full = cho_solve((self._factor(_lower_gram(J)), True), gradient)
            lengths = 0.5 ** jnp.arange(HALVINGS)
            tried = jax.vmap(lambda s: objective(flat - s * full))(lengths)
            best = jnp.nanargmin(jnp.where(jnp.isfinite(tried), tried, jnp.inf))
            better = tried[best] < value
            done = ~better | (gradient @ full <= ENOUGH * value)
            moved = jnp.where(better, flat - lengths[best] * full, flat)
            return moved, jnp.where(better, tried[best], value), count + 1, done

        def go_on(carry):
            return ~carry[3] & (carry[2] < self.max_steps)

        start = (flat, objective(flat), jnp.array(0), jnp.array(False))
        flat, _, steps, _ = jax.lax.while_loop(go_on, step, start)
        hessian = jax.jacfwd(partial(self._gradient, theta))(flat)
        return Minimum(flat, self._factor(hessian - self.ridge * jnp.eye(flat.size)), steps)

    def _objective(self, theta: Theta, flat: Any) -> Scalar:
        away = flat - self.origin
        return jnp.sum(self.level.rows(theta, flat) ** 2) + self.ridge * jnp.sum(away**2)

    def _gradient(self, theta: Theta, flat: Any) -> Any:
        """Half of that of the objective."""
        return self.level.gradient(theta, flat) + self.ridge * (flat - self.origin)

    def _factor(self, normal: Any) -> Any:
        """Of a normal matrix without the ridge, of which the lower triangle counts."""
        return cholesky(normal + self.ridge * jnp.eye(len(normal)), symmetrize_input=False)


def _lower_gram(J: Float[Array, "rows p"]) -> Float[Array, "p p"]:
    """``J.T @ J`` less its upper right quarter, which a factorisation does not look at."""
    half = J.shape[1] // 2
    first, second = J.T[:half], J.T[half:]
    top = jnp.pad(first @ first.T, ((0, 0), (0, len(second))))
    return jnp.concatenate([top, second @ J])

"""The lower level where the output layer has the only weights: rows that know the features beforehand.

As `LowerLevel`, but at every collocation point Taylor polynomials of the features take the place of the
network, and the weights are a matrix ``(components, features)``, the bias its last column.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Rows, Scalar, Theta
from bilo_ppl.network.features import Polynomials, features, output_weights
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.problem import Problem

__all__ = ["OutputLevel", "OutputSolution", "output_level"]

ORDERS = (2, 3, 4)
"""Orders of derivatives that a residual may have; the least that reproduces it is taken."""

TRIED = 8
"""Points at which polynomials are compared with the network."""

OutputWeights = Float[Array, "components features"]


class OutputSolution(eqx.Module):
    """The solution at one theta: a function of a point."""

    operator: LocalOperator
    weights: OutputWeights
    theta: Theta

    def __call__(self, x):
        """Value at a point ``(d,)`` (in one dimension also a scalar): a scalar or (components,)."""
        operator = self.operator
        x = jnp.atleast_1d(x).astype(operator.dtype)
        raw = self.weights @ features(operator, x)
        return _lifted(operator.problem, x, raw, self.theta)


class _NearPoint(eqx.Module):
    """The same near a collocation point, by Taylor polynomials."""

    problem: Problem
    point: Any
    derivatives: tuple[Any, ...]
    weights: OutputWeights
    theta: Theta

    def __call__(self, x):
        raw = Polynomials.value(self.derivatives, self.weights, x - self.point)
        return _lifted(self.problem, x, raw, self.theta)


def _lifted(problem: Problem, x: Any, raw: Any, theta: Theta) -> Any:
    return problem.lift(x, raw if problem.components > 1 else raw[0], theta)


class OutputLevel(eqx.Module):
    """Rows of the output layer's weights, at any theta; flat weights have one axis."""

    operator: LocalOperator
    """Blinded: its features do not follow theta."""
    table: Polynomials

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return output_weights(self.operator).shape

    def solution(self, theta: Theta, flat: Float[Array, " p"]) -> OutputSolution:
        """u for some weights."""
        return OutputSolution(self.operator, flat.reshape(self.shape), theta)

    def rows(self, theta: Theta, flat: Float[Array, " p"]) -> Rows:
        """Residuals, scaled so that their squares add up to the mean square, and conditions."""
        residuals = jax.vmap(lambda x, d: self._residual(x, d, theta, flat))(
            self.table.points, self.table.derivatives
        )
        return jnp.concatenate([self._scale * residuals.ravel(), self._conditions(theta, flat)])

    def jacobian(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "rows p"]:
        """Of `rows`: a residual knows the features at its point only."""

        def at_point(x, derivatives):
            return jax.jacrev(partial(self._residual, x, derivatives, theta))(flat)

        blocks = jax.vmap(at_point)(self.table.points, self.table.derivatives)
        conditions = jax.jacrev(partial(self._conditions, theta))(flat)
        return jnp.concatenate([self._scale * blocks.reshape(-1, flat.size), conditions])

    def gradient(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, " p"]:
        """Half of the gradient of the sum of squares."""
        rows, pull = jax.vjp(partial(self.rows, theta), flat)
        return pull(rows)[0]

    @property
    def _scale(self) -> float:
        return 1 / np.sqrt(len(self.table.points))

    def _residual(self, x: Any, derivatives: Any, theta: Theta, flat: Any) -> Rows:
        u = _NearPoint(self.operator.problem, x, derivatives, flat.reshape(self.shape), theta)
        return jnp.atleast_1d(self.operator.problem.residual(u, x, theta))

    def _conditions(self, theta: Theta, flat: Any) -> Rows:
        found = self.operator.problem.conditions(self.solution(theta, flat), theta)
        rows = [jnp.atleast_1d(found[name]).ravel() for name in sorted(found)]
        return jnp.concatenate([jnp.zeros(0, self.operator.dtype), *rows])

    def is_linear(self, theta: Theta) -> bool:
        """Whether the rows are affine in the weights, by their values at random ones."""
        return bool(_is_linear(self, theta))

    def trace(self, theta: Theta) -> Scalar:
        """Of the normal matrix at the stored weights."""
        return _squares(self, theta)


def output_level(operator: LocalOperator, theta: Theta) -> OutputLevel:
    """The level of a blinded operator, by polynomials of the least order that the residual asks for.

    Raises a ``ValueError`` where up to fourth derivatives are not enough.
    """
    points = operator.points
    tried = points[:: max(1, len(points) // TRIED)]
    for order in ORDERS:
        few = OutputLevel(operator, Polynomials.of(operator, tried, order))
        if _suffices(few, theta):
            return OutputLevel(operator, Polynomials.of(operator, points, order))
    raise ValueError(
        f"OutputLayer: derivatives up to order {ORDERS[-1]} do not give the residual of "
        f"{type(operator.problem).__name__}; it may only ask for derivatives of u at its point."
    )


def _random(level: OutputLevel, key: Key) -> Float[Array, " p"]:
    """Weights that no problem is special at."""
    stored = output_weights(level.operator)
    return (stored + jax.random.normal(key, stored.shape, stored.dtype)).ravel()


def _is_rounding(difference: Any, size: Any) -> Any:
    unit = float(jnp.finfo(size.dtype).eps) ** 0.5
    return jnp.max(jnp.abs(difference)) <= unit * jnp.max(jnp.abs(size))


@jit_once
def _suffices(level: OutputLevel, theta: Theta) -> Any:
    """Whether the residuals by polynomials are those by the network."""
    flat, problem = _random(level, jax.random.key(0)), level.operator.problem
    u, points = level.solution(theta, flat), level.table.points
    exact = jax.vmap(lambda x: jnp.atleast_1d(problem.residual(u, x, theta)))(points)
    near = level.rows(theta, flat)[: exact.size].reshape(exact.shape) / level._scale
    return _is_rounding(near - exact, exact)


@jit_once
def _is_linear(level: OutputLevel, theta: Theta) -> Any:
    first, second = (_random(level, jax.random.key(k)) for k in (1, 2))
    rows = partial(level.rows, theta)
    middle, mean = rows((first + second) / 2), (rows(first) + rows(second)) / 2
    return _is_rounding(middle - mean, rows(first) - rows(second))


@jit_once
def _squares(level: OutputLevel, theta: Theta) -> Scalar:
    return jnp.sum(level.jacobian(theta, output_weights(level.operator).ravel()) ** 2)

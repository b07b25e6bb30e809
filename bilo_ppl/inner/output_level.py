"""The lower level where the output layer has the only weights: rows that know the features beforehand.

As `LowerLevel`, but at every collocation point a Taylor polynomial takes the place of the network, and
the weights are a matrix ``(components, features)``, the bias its last column.

Of the derivatives at a point, a residual asks for few combinations, whatever theta is: A (u_xx + u_yy) +
A_x u_x + A_y u_y for three, though u has six derivatives and the lift mixes them. Only these are kept: an
orthonormal basis of them is found at each point from the residual's derivatives at random thetas.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Points, Rows, Scalar, Theta
from bilo_ppl.network.features import Jets, features, output_weights, taylor_value
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.problem import Problem

__all__ = ["OutputLevel", "OutputSolution", "output_level"]

ORDERS = (2, 3, 4)
"""Orders of derivatives that a residual may have; the least that reproduces it is taken."""

TRIED = 8
"""Points at which polynomials are compared with the network."""

VARIED = (1.0, 0.1)
"""Sizes of the changes of theta, in its own and in one, at which it is seen what a residual asks for."""

ROUNDING = 1e3
"""Units of rounding below which a combination of derivatives is none."""

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
    """The same near a collocation point, by derivatives ``(components, jets)`` of the raw output."""

    problem: Problem
    point: Any
    jet: Any
    axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    theta: Theta

    def __call__(self, x):
        return _lifted(
            self.problem, x, taylor_value(self.jet, self.axes, x - self.point), self.theta
        )


def _lifted(problem: Problem, x: Any, raw: Any, theta: Theta) -> Any:
    return problem.lift(x, raw if problem.components > 1 else raw[0], theta)


class OutputLevel(eqx.Module):
    """Rows of the output layer's weights, at any theta; flat weights have one axis."""

    operator: LocalOperator
    """Blinded: its features do not follow theta."""
    points: Points
    axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """What the derivatives at a point are taken along, see `Jets`."""
    basis: Float[Array, "n jets kept"]
    """Orthonormal combinations of them that the residual asks for, at each point."""
    table: Float[Array, "kept features n"]
    """These of the features."""

    @classmethod
    def whole(cls, operator: LocalOperator, jets: Jets) -> "OutputLevel":
        """With all derivatives."""
        each = jnp.eye(len(jets.axes), dtype=operator.dtype)
        basis = jnp.broadcast_to(each, (len(jets.points), *each.shape))
        return cls(operator, jets.points, jets.axes, basis, jets.table)

    def reduced(self, basis: Float[np.ndarray, "n jets kept"]) -> "OutputLevel":
        """With a basis in the place of all derivatives."""
        table = jnp.einsum("njk,jfn->kfn", basis, self.table)
        return OutputLevel(self.operator, self.points, self.axes, jnp.asarray(basis), table)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return output_weights(self.operator).shape

    def solution(self, theta: Theta, flat: Float[Array, " p"]) -> OutputSolution:
        """u for some weights."""
        return OutputSolution(self.operator, flat.reshape(self.shape), theta)

    def rows(self, theta: Theta, flat: Float[Array, " p"]) -> Rows:
        """Residuals, scaled so that their squares add up to the mean square, and conditions.

        Those of all points of a residual's first component come first.
        """
        residuals = jax.vmap(lambda x, jet: self._residual(x, theta, jet))(
            self.points, self._jets(flat)
        )
        return jnp.concatenate([self._scale * residuals.T.ravel(), self._conditions(theta, flat)])

    def jacobian(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "rows p"]:
        """Of `rows`: a residual knows the features at its point only."""
        asked = jnp.einsum("nqcj,njk->kcqn", self._asked(theta, flat), self.basis)
        # A sum over few terms, written out: products of so small matrices would take longer.
        parts = zip(asked, self.table, strict=True)
        blocks: Any = sum(one[:, None] * table[None, :, None] for one, table in parts)
        conditions = jax.jacrev(partial(self._conditions, theta))(flat)
        return jnp.concatenate([self._scale * blocks.reshape(flat.size, -1), conditions.T], 1).T

    def gradient(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, " p"]:
        """Half of the gradient of the sum of squares."""
        rows, pull = jax.vjp(partial(self.rows, theta), flat)
        return pull(rows)[0]

    def knows(self, theta: Theta, flat: Float[Array, " p"]) -> Any:
        """Whether the residual asks at ``theta`` for nothing but what is kept."""
        if self.basis.shape[1] == self.basis.shape[2]:
            return jnp.array(True)
        asked = self._asked(theta, flat)
        kept = jnp.einsum("nqcj,njk->nqck", asked, self.basis)
        return _is_rounding(asked - jnp.einsum("nqck,njk->nqcj", kept, self.basis), asked)

    def _jets(self, flat: Any) -> Float[Array, "n components jets"]:
        """Derivatives of the raw output at all points, as far as they are asked for."""
        weights = flat.reshape(self.shape)
        kept = jnp.stack([weights @ table for table in self.table])
        return jnp.einsum("kcn,njk->ncj", kept, self.basis)

    def _asked(self, theta: Theta, flat: Any) -> Float[Array, "n rows components jets"]:
        """Derivatives of the residuals with respect to those of the raw output."""
        at_point = jax.vmap(lambda x, jet: jax.jacrev(partial(self._residual, x, theta))(jet))
        return at_point(self.points, self._jets(flat))

    @property
    def _scale(self) -> float:
        return 1 / np.sqrt(len(self.points))

    def _residual(self, x: Any, theta: Theta, jet: Any) -> Rows:
        u = _NearPoint(self.operator.problem, x, jet, self.axes, theta)
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
    """The level of a blinded operator, with derivatives of the least order that the residual asks for.

    Raises a ``ValueError`` where up to fourth derivatives are not enough.
    """
    points = operator.points
    tried = points[:: max(1, len(points) // TRIED)]
    for order in ORDERS:
        few = OutputLevel.whole(operator, Jets.of(operator, tried, order))
        if _suffices(few, theta):
            level = OutputLevel.whole(operator, Jets.of(operator, points, order))
            basis = _basis(level, theta)
            return level if basis is None else level.reduced(basis)
    raise ValueError(
        f"OutputLayer: derivatives up to order {ORDERS[-1]} do not give the residual of "
        f"{type(operator.problem).__name__}; it may only ask for derivatives of u at its point."
    )


def _basis(level: OutputLevel, theta: Theta) -> Float[np.ndarray, "n jets kept"] | None:
    """At each point, the combinations that the residual asks for at random thetas; None for all."""
    jets = len(level.axes)
    arrays, static = eqx.partition(theta, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(arrays)
    rng, found = np.random.default_rng(0), []
    for draw in range(2 * jets):
        size = VARIED[draw % len(VARIED)]
        moved = [leaf + size * (1 + abs(leaf)) * rng.normal(size=leaf.shape) for leaf in leaves]
        changed = eqx.combine(jax.tree.unflatten(structure, moved), static)
        asked = np.asarray(_asked_at_random(level, changed, jax.random.key(draw)))
        if np.isfinite(asked).all():
            found.append(asked.reshape(len(asked), -1, jets))
    if len(found) < jets:
        # The residual is not defined at most of them.
        return None
    _, sizes, rows = np.linalg.svd(np.concatenate(found, axis=1), full_matrices=False)
    rounding = ROUNDING * float(jnp.finfo(level.operator.dtype).eps)
    kept = int((sizes > rounding * sizes[:, :1]).sum(axis=1).max())
    return None if kept == jets else np.moveaxis(rows[:, :kept], 1, 2)


@jit_once
def _asked_at_random(level: OutputLevel, theta: Theta, key: Key) -> Any:
    return level._asked(theta, _random(level, key))


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
    u, points = level.solution(theta, flat), level.points
    exact = jax.vmap(lambda x: jnp.atleast_1d(problem.residual(u, x, theta)))(points)
    near = level.rows(theta, flat)[: exact.size] / level._scale
    return _is_rounding(near - exact.T.ravel(), exact)


@jit_once
def _is_linear(level: OutputLevel, theta: Theta) -> Any:
    first, second = (_random(level, jax.random.key(k)) for k in (1, 2))
    rows = partial(level.rows, theta)
    middle, mean = rows((first + second) / 2), (rows(first) + rows(second)) / 2
    return _is_rounding(middle - mean, rows(first) - rows(second))


@jit_once
def _squares(level: OutputLevel, theta: Theta) -> Scalar:
    return jnp.sum(level.jacobian(theta, output_weights(level.operator).ravel()) ** 2)

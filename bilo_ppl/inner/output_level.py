"""The lower level where the output layer has the only weights: rows that know the features beforehand.

As `LowerLevel`, but at every collocation point a Taylor polynomial takes the place of the network, and
the weights are a matrix ``(components, features)``, the bias its last column.

Of the derivatives at a point, a residual asks for few combinations, whatever theta is: A (u_xx + u_yy) +
A_x u_x + A_y u_y for three, though u has six derivatives and the lift mixes them. Only these are kept: an
orthonormal basis of them is found at each point from the residual's derivatives at random thetas.
"""

import dataclasses
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Scalar, Theta
from bilo_ppl.inner.output_rows import AbstractOutputRows, KnownParts, OutputWeights, is_rounding
from bilo_ppl.network.features import Jets, output_weights
from bilo_ppl.network.local_operator import LocalOperator

__all__ = ["OutputLevel", "output_level"]

ORDERS = (2, 3, 4)
"""Orders of derivatives that a residual may have; the least that reproduces it is taken."""

TRIED = 8
"""Points at which polynomials are compared with the network."""

VARIED = (1.0, 0.1)
"""Sizes of the changes of theta, in its own and in one, at which it is seen what a residual asks for."""

MOST_KNOWN = 1 << 28
"""Bytes that may be kept of what the residual makes of the points."""

ROUNDING = 1e3
"""Units of rounding below which a combination of derivatives is none."""


class OutputLevel(AbstractOutputRows):
    """Rows of the output layer's weights themselves; flat weights have one axis."""

    table: Float[Array, "kept features n"]
    """The combinations of derivatives that are kept, of the features."""
    constant: bool = eqx.field(static=True, default=False)
    """Whether rows have the same derivatives at every theta and all weights, as far as was seen."""

    @classmethod
    def whole(
        cls, operator: LocalOperator, jets: Jets, known: KnownParts | None = None
    ) -> "OutputLevel":
        """With all derivatives."""
        each = jnp.eye(len(jets.axes), dtype=operator.dtype)
        basis = jnp.broadcast_to(each, (len(jets.points), *each.shape))
        shares = jnp.full(len(jets.points), 1 / len(jets.points), operator.dtype)
        return cls(operator, jets.points, jets.axes, basis, shares, known, jets.table)

    def knowing_points(self, theta: Theta) -> "OutputLevel":
        """With what the residual makes of the points alone, for theta of this structure."""
        traced = self.traced(theta)
        known = jax.eval_shape(traced.known, self.points[0])
        size = len(self.points) * sum(value.size * value.dtype.itemsize for value in known)
        if not (traced.is_pure and 0 < size <= MOST_KNOWN):
            return self
        parts = _known(self, theta)
        return eqx.tree_at(lambda level: level.known, self, parts, is_leaf=lambda v: v is None)

    def of_features(self, operator: LocalOperator) -> "OutputLevel":
        """The level of other features at the same points, of which the residual asks the same."""
        jets = Jets.of(operator, self.points, max(map(len, self.axes)))
        whole = OutputLevel.whole(operator, jets, self.known)
        return dataclasses.replace(whole, constant=self.constant).keeping(self.basis)

    def keeping(self, basis: Float[Any, "n jets kept"]) -> "OutputLevel":
        """With a basis in the place of all derivatives."""
        table = jnp.einsum("njk,jfn->kfn", basis, self.table)
        return dataclasses.replace(self, basis=jnp.asarray(basis), table=table)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return output_weights(self.operator).shape

    def weights(self, flat: Float[Array, " p"]) -> OutputWeights:
        """See `AbstractOutputRows.weights`."""
        return flat.reshape(self.shape)

    def _kept(self, flat: Float[Array, " p"]) -> Float[Array, "kept components n"]:
        weights = self.weights(flat)
        return jnp.stack([weights @ table for table in self.table])

    def _pulled_back(
        self, asked: Float[Array, "kept components rows n"]
    ) -> Float[Array, "p rows n"]:
        # A sum over few terms, written out: products of so small matrices would take longer.
        parts = zip(asked, self.table, strict=True)
        blocks: Any = sum(one[:, None] * table[None, :, None] for one, table in parts)
        return blocks.reshape(-1, *blocks.shape[2:])

    def _summed_back(self, asked: Float[Array, "kept components rows n"]) -> Float[Array, "p rows"]:
        found = jnp.einsum("kcqn,kfn->cfq", asked, self.table)
        return found.reshape(-1, found.shape[-1])

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
            level = level.knowing_points(theta)
            basis, constant = _asked_for(level, theta)
            level = dataclasses.replace(level, constant=constant)
            return level if basis is None else level.keeping(basis)
    raise ValueError(
        f"OutputLayer: the residual of {type(operator.problem).__name__} may only ask for derivatives of "
        f"u at its point, up to order {ORDERS[-1]}."
    )


def _asked_for(
    level: OutputLevel, theta: Theta
) -> tuple[Float[np.ndarray, "n jets kept"] | None, bool]:
    """At each point, the combinations that the residual asks for at random thetas, None for all; and
    whether it asks the same, and conditions do, at all of them.

    A function without numbers in it does not vary: what others would ask for is not seen.
    """
    jets = len(level.axes)
    arrays, static = eqx.partition(theta, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(arrays)
    rng, found, conditions = np.random.default_rng(0), [], []
    for draw in range(2 * jets):
        size = VARIED[draw % len(VARIED)]
        moved = [leaf + size * (1 + abs(leaf)) * rng.normal(size=leaf.shape) for leaf in leaves]
        changed = eqx.combine(jax.tree.unflatten(structure, moved), static)
        asked, asked_elsewhere = _asked_at_random(level, changed, jax.random.key(draw))
        conditions.append(np.asarray(asked_elsewhere))
        if np.isfinite(asked).all():
            found.append(np.asarray(asked).reshape(len(asked), -1, jets))
    if len(found) < jets:
        # The residual is not defined at most of them.
        return None, False
    rounding = ROUNDING * float(jnp.finfo(level.operator.dtype).eps)
    varied = all(jax.tree.leaves(arrays[name]) for name in arrays)
    constant = varied and _are_one(found, rounding) and _are_one(conditions, rounding)
    _, sizes, rows = np.linalg.svd(np.concatenate(found, axis=1), full_matrices=False)
    kept = int((sizes > rounding * sizes[:, :1]).sum(axis=1).max())
    return None if kept == jets else np.moveaxis(rows[:, :kept], 1, 2), constant


def _are_one(arrays: list[np.ndarray], rounding: float) -> bool:
    """Whether all are the first of them."""
    limit = rounding * np.abs(arrays[0]).max(initial=0.0)
    return all(np.abs(array - arrays[0]).max(initial=0.0) <= limit for array in arrays)


@jit_once
def _known(level: OutputLevel, theta: Theta) -> KnownParts:
    traced = level.traced(theta)
    return KnownParts(jax.vmap(traced.known)(level.points), traced.name)


@jit_once
def _asked_at_random(level: OutputLevel, theta: Theta, key: Key) -> Any:
    """By the residuals, and by conditions."""
    flat = _random(level, key)
    return level._asked(theta, flat), jax.jacrev(partial(level._conditions, theta))(flat)


def _random(level: OutputLevel, key: Key) -> Float[Array, " p"]:
    """Weights that no problem is special at."""
    stored = output_weights(level.operator)
    return (stored + jax.random.normal(key, stored.shape, stored.dtype)).ravel()


@jit_once
def _suffices(level: OutputLevel, theta: Theta) -> Any:
    """Whether the residuals by polynomials are those by the network."""
    flat, problem = _random(level, jax.random.key(0)), level.operator.problem
    u, points = level.solution(theta, flat), level.points
    exact = jax.vmap(lambda x: jnp.atleast_1d(problem.residual(u, x, theta)))(points)
    near = level.residuals(theta, flat) * len(points) ** 0.5
    return is_rounding(near - exact.T, exact)


@jit_once
def _is_linear(level: OutputLevel, theta: Theta) -> Any:
    first, second = (_random(level, jax.random.key(k)) for k in (1, 2))
    places = jnp.stack([first, second, (first + second) / 2])
    one, other, middle = jax.lax.map(partial(level.rows, theta), places)
    return is_rounding(middle - (one + other) / 2, one - other)


@jit_once
def _squares(level: OutputLevel, theta: Theta) -> Scalar:
    return jnp.sum(level.jacobian(theta, output_weights(level.operator).ravel()) ** 2)

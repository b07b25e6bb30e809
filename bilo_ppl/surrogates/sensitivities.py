"""Numerical solutions with their derivatives in theta, by forward mode through the numerical operator."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl._types import Key, Points
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.surrogates.training_set import Derivatives, TrainingSet, kept

__all__ = ["solve_with_derivatives"]

FEW = 16
"""Numbers in theta up to which all derivatives are taken; and for more, half as many directions."""


def solve_with_derivatives(
    operator: AbstractSolutionOperator,
    thetas: Any,
    points: Points,
    *,
    key: Key,
    directions: int | None = None,
) -> TrainingSet:
    """As `solve_all`, and the derivatives of u in theta, exact for the operator's own equations.

    By default they are all partial derivatives, each in units of the sd of its number over ``thetas``,
    if at most `FEW` numbers change. Otherwise, or for so many ``directions``, they are along differences
    of two thetas drawn from ``thetas`` by ``key``, over sqrt 2: they have the covariance of theta.

    Raises a ``ValueError`` where nothing changes in theta, or none is solved.

    >>> from bilo_ppl.surrogates import solve_with_derivatives
    >>> thetas = {"r": np.linspace(2.0, 15.0, 20)}
    >>> solved = solve_with_derivatives(exact, thetas, problem.domain.grid(21), key=key)
    >>> solved.derivatives.changes.shape  # solutions, directions, points, components
    (20, 1, 21, 1)
    """
    if directions is not None and directions < 1:
        raise ValueError(f"solve_with_derivatives: directions is {directions}; take at least one.")
    points = np.asarray(points, float)
    arrays, static = eqx.partition(thetas, eqx.is_array)
    arrays = jax.tree.map(jnp.asarray, arrays)
    numbers, others = eqx.partition(arrays, eqx.is_inexact_array)
    along = _directions(numbers, key, directions)

    def solved(numbers, others):
        theta = eqx.combine(numbers, others, static)
        field, _, info = operator.solve(theta, operator.init_state())
        return jax.vmap(field)(jnp.asarray(points)).reshape(len(points), -1), info.converged

    @jax.jit
    def every(items):
        def one(item):
            numbers, others, along = item

            def change(direction):
                return jax.jvp(lambda n: solved(n, others), (numbers,), (direction,), has_aux=True)

            # What does not depend on the direction is computed once.
            return jax.vmap(change, out_axes=(None, 0, None))(along)

        return jax.lax.map(one, items)

    values, changes, converged = jax.device_get(every((numbers, others, along)))
    data = TrainingSet(thetas, points, values, derivatives=Derivatives(along, changes))
    return kept("solve_with_derivatives", operator, data, converged)


def _directions(numbers: Any, key: Key, count: int | None) -> Any:
    """Directions for every theta: as ``numbers``, with an axis more after the first."""
    leaves, structure = jax.tree.flatten(numbers)
    total = len(leaves[0]) if leaves else 0
    flat = np.concatenate([np.zeros((total, 0)), *(np.reshape(v, (total, -1)) for v in leaves)], 1)
    sds = flat.std(axis=0) if total else np.zeros(0)
    changing = np.flatnonzero(sds > 0)
    if not changing.size:
        raise ValueError(
            "solve_with_derivatives: no floating-point number of theta changes between the "
            f"{total} thetas, so that there is nothing to differentiate in."
        )
    if count is None and changing.size <= FEW:
        units = np.diag(sds)[changing]
        chosen = np.broadcast_to(units, (total, *units.shape))
    else:
        chosen = _differences(flat, key, count or FEW // 2)
    parts = np.split(chosen, np.cumsum([v[0].size for v in leaves])[:-1], axis=2)
    shaped = [
        jnp.asarray(part.reshape(*part.shape[:2], *leaf.shape[1:]), leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)


def _differences(
    flat: Float[np.ndarray, "n p"], key: Key, count: int
) -> Float[np.ndarray, "n k p"]:
    """For every theta, ``count`` scaled differences of two others."""
    total = len(flat)
    first, apart = jax.random.split(key)
    one = np.asarray(jax.random.randint(first, (total, count), 0, total))
    step = np.asarray(jax.random.randint(apart, (total, count), 1, total))
    return (flat[(one + step) % total] - flat[one]) / 2**0.5

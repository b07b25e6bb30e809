"""Training of a `DINO` on numerical solutions and their derivatives in theta."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._descent import descend
from bilo_ppl._types import Key, Points
from bilo_ppl.pde.problem import Problem
from bilo_ppl.surrogates.dino import DINO
from bilo_ppl.surrogates.encoding import ThetaEncoding
from bilo_ppl.surrogates.reduced_basis import input_basis, output_basis
from bilo_ppl.surrogates.surrogate import Surrogate
from bilo_ppl.surrogates.training import BATCH, Trained, middle_of, relative_errors, sensors_of
from bilo_ppl.surrogates.training_set import Derivatives, TrainingSet

__all__ = ["derivative_errors", "train_dino"]

FLOOR = 1e-2
"""Smallest square of a norm that an error is relative to, in units of the mean square."""


def train_dino(
    problem: Problem,
    data: TrainingSet,
    *,
    key: Key,
    steps: int,
    inputs: int = 32,
    rank: int = 64,
    jacobian_weight: float = 1.0,
    test_part: float = 0.1,
    progress: bool = True,
    **sizes: int,
) -> Trained:
    """A `DINO` trained on solutions with derivatives, of which a part is kept for the test.

    Minimises, by Adam, the mean over solutions of the squared relative error of the coefficients of u in
    its principal components, plus ``jacobian_weight`` times that of the coefficients' derivatives along
    the directions of `solve_with_derivatives`. The points of ``data`` must be a tensor grid. There are at
    most ``rank`` modes and ``inputs`` combinations of theta; ``sizes`` are arguments of `DINO`: width,
    depth.

    Raises a ``ValueError`` for data without derivatives or not on a grid, and for a negative weight.

    >>> from bilo_ppl.surrogates import train_dino
    >>> derived = train_dino(problem, solved, key=key, steps=10, width=8, progress=False)
    >>> derived.errors.shape  # a tenth is kept for the test
    (2,)
    """
    slopes = _derivatives_of(data, "train_dino")
    if not jacobian_weight >= 0:
        raise ValueError(f"train_dino: jacobian_weight is {jacobian_weight}; it cannot be below 0.")
    if inputs < 1 or rank < 1:
        raise ValueError(f"train_dino: inputs is {inputs} and rank {rank}; each must be positive.")
    axes = _axes_of(data.points)
    encoding = ThetaEncoding.of(problem.parameters, data.thetas, sensors_of(problem.domain))
    key_split, key_network, key_batches = jax.random.split(key, 3)
    test, data = data.split(test_part, key_split)
    slopes = _derivatives_of(data, "train_dino")

    t, directions = _encoded(encoding, data.thetas, slopes.directions)
    values = np.asarray(data.values).reshape(data.count, -1)
    mean, modes, sds = output_basis(values, rank)
    changes = np.asarray(slopes.changes).reshape(*directions.shape[:2], -1)
    enter = input_basis(t, directions, changes @ modes.T, inputs)

    def on_grid(rows):
        """Points before components in the data; components before points in the network."""
        shape = (*rows.shape[:-1], *map(len, axes), problem.components)
        return np.moveaxis(rows.reshape(shape), -1, rows.ndim - 1)

    scaled = on_grid(sds[:, None] * modes)
    coefficients = (values - mean) @ modes.T
    network = DINO(axes, enter, on_grid(mean), scaled, key=key_network, **sizes)
    # The entries of z are uncorrelated with sd 1: this is the linear regression.
    linear = jnp.asarray((coefficients / sds).T @ (t @ enter.T) / len(t), jnp.float32)
    network = eqx.tree_at(lambda n: n.linear, network, linear)
    objective = _objective(
        sds,
        (t, coefficients, _sizes(values)),
        (directions, changes @ modes.T, _sizes(changes)),
        jacobian_weight,
        key_batches,
    )
    weights, static = eqx.partition((network.linear, network.nonlinear), eqx.is_inexact_array)

    def combined(weights):
        return eqx.tree_at(lambda n: (n.linear, n.nonlinear), network, eqx.combine(weights, static))

    weights, _ = descend(
        lambda weights, step: objective(combined(weights), step),
        weights,
        steps,
        None,
        "training a DINO",
        progress,
    )
    middle = middle_of(data.thetas)
    surrogate = Surrogate(problem, combined(weights), encoding, jnp.float32(1.0), middle)
    return Trained(surrogate, relative_errors(surrogate, test))


def _objective(sds: Any, values: Any, slopes: Any, weight: float, key: Key) -> Any:
    """Of a network and the number of a step: the loss on a batch.

    ``values`` are encoded thetas, coefficients and squared norms of u; ``slopes`` directions, changes of
    the coefficients and squared norms of the changes of u.
    """
    sds, values, slopes = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), (sds, values, slopes))
    count = len(values[0])

    def objective(network: DINO, step):
        # The norm of coefficients is that of u: the modes are orthonormal.
        def one(t, wanted, size, directions, changes, size_of_changes):
            found, push = jax.linearize(network.at, t)
            away = sds * found - wanted
            turned = jax.vmap(lambda d, change: sds * push(d) - change)(directions, changes)
            return jnp.sum(away**2) / size + weight * jnp.sum(turned**2) / size_of_changes

        own = jax.random.fold_in(key, step)
        which = jax.random.choice(own, count, (min(BATCH, count),), replace=False)
        batch = jax.tree.map(lambda v: v[which], (*values, *slopes))
        return jnp.mean(jax.vmap(one)(*batch)).astype(jnp.result_type(float))

    return objective


def derivative_errors(surrogate: Surrogate, data: TrainingSet) -> Float[np.ndarray, " n"]:
    """|J_net - J| / |J| of every solution, J being the changes of u along the directions of ``data``.

    >>> from bilo_ppl.surrogates import derivative_errors
    >>> derivative_errors(derived.surrogate, solved).shape
    (20,)
    """
    slopes = _derivatives_of(data, "derivative_errors")
    numbers, others = eqx.partition(data.thetas, eqx.is_inexact_array)
    arrays, static = eqx.partition(others, eqx.is_array)
    points = jnp.asarray(data.points)

    @jit_once
    def every(surrogate, items):
        def one(item):
            numbers, arrays, directions, changes = item

            def u(numbers):
                field = surrogate.field(eqx.combine(numbers, arrays, static))
                return jax.vmap(field)(points).reshape(len(points), -1)

            push = jax.linearize(u, numbers)[1]
            return jnp.linalg.norm(jax.vmap(push)(directions) - changes) / jnp.linalg.norm(changes)

        return jax.lax.map(one, items)

    items = (numbers, arrays, slopes.directions, slopes.changes)
    return np.asarray(every(surrogate, jax.tree.map(jnp.asarray, items)))


def _encoded(
    encoding: ThetaEncoding, thetas: Any, directions: Any
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n k m"]]:
    """Thetas and directions as the numbers that a network sees."""
    arrays, static = eqx.partition(jax.tree.map(jnp.asarray, thetas), eqx.is_array)
    numbers, others = eqx.partition(arrays, eqx.is_inexact_array)

    @jax.vmap
    def every(numbers, others, directions):
        def t(numbers):
            return encoding(eqx.combine(numbers, others, static))

        found, push = jax.linearize(t, numbers)
        return found, jax.vmap(push)(directions)

    return jax.device_get(jit_once(every)(numbers, others, directions))


def _derivatives_of(data: TrainingSet, name: str) -> Derivatives:
    if data.derivatives is None:
        raise ValueError(
            f"{name}: the training set has no derivatives in theta; make it by solve_with_derivatives "
            "in the place of solve_all."
        )
    return data.derivatives


def _axes_of(points: Points) -> list[np.ndarray]:
    """Coordinates of the tensor grid that points are; a ``ValueError`` if they are none."""
    axes = [np.unique(coordinates) for coordinates in np.asarray(points).T]
    grid = np.stack([c.ravel() for c in np.meshgrid(*axes, indexing="ij")], axis=-1)
    if grid.shape != points.shape or not np.array_equal(grid, points) or min(map(len, axes)) < 2:
        raise ValueError(
            f"train_dino: the {len(points)} points of the training set are no tensor grid in the order "
            "of problem.domain.grid(...), between whose points u could be interpolated."
        )
    return axes


def _sizes(numbers: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, " n"]:
    """What squared errors are relative to: own squared norms, where they are not close to 0."""
    squares = np.sum(numbers.reshape(len(numbers), -1) ** 2, axis=1)
    return np.maximum(squares, FLOOR * squares.mean())

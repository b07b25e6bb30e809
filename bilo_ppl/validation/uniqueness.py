"""Whether an equation and its conditions determine u: what may change while the loss stays small.

Where a boundary or an initial condition is missing, functions that solve the linearised equation can be
added to u, and no loss tells. Of an output layer, the rows J v and the values P v of u at the collocation
points are linear in a change v of the weights. Of all changes that raise the loss by at most L, the first
generalised eigenvector of P^T P and J^T J changes u most. Of a problem that is well posed even that is
small, by the stability of the equation: |u| <= C |residual|.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta, Weights
from bilo_ppl.network.features import with_output_weights
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.pde.theta import admit

__all__ = ["loosest_change"]

POINTS = 512
"""Collocation points at which u is looked at."""


def loosest_change(
    operator: OutputLayer, theta: Theta, state: Weights, *, held: bool = False
) -> Weights:
    """The change of the output weights ``state`` that raises the loss at ``theta`` by the operator's
    tolerance and changes u most, in the root mean square over collocation points; as far as the rows are
    linear. With ``held``, of those changes that leave u nearly as it is all around the domain.
    """
    theta = admit(operator.problem, theta, operator.operator.dtype)
    return _loosest(operator, theta, state, jnp.asarray(float(held)))


@jit_once
def _loosest(
    operator: OutputLayer, theta: Theta, state: Any, held: Any
) -> Float[Array, "components features"]:
    level, flat = operator.level, jnp.ravel(state)
    points = level.points[:: max(1, len(level.points) // POINTS)]

    def values(flat: Any, points: Any) -> Any:
        field = with_output_weights(operator.operator, level.weights(flat)).field(theta)
        seen = jax.vmap(lambda x: operator.problem.observable(x, field(x), theta))(points)
        return jnp.ravel(seen) / jnp.sqrt(len(points))

    J = level.jacobian(theta, flat)
    P, around = (jax.jacfwd(values)(flat, at) for at in (points, _around(points)))
    weight = held * jnp.linalg.norm(J) / jnp.maximum(jnp.linalg.norm(P), jnp.finfo(P.dtype).tiny)
    J = jnp.concatenate([J, weight * around])
    sizes, axes = jnp.linalg.eigh(J.T @ J)
    # What rounding makes of nothing is nothing: below it any change of the loss is the same.
    whitened = axes / jnp.sqrt(jnp.maximum(sizes, operator.ridge / operator.times_smallest))[None]
    _, _, directions = jnp.linalg.svd(P @ whitened, full_matrices=False)
    change = whitened @ directions[0]
    rise = jnp.maximum(jnp.sum((J @ change) ** 2), jnp.finfo(flat.dtype).eps)
    return jnp.sqrt(operator.tolerance / rise) * jnp.reshape(change, jnp.shape(state))


def _around(points: Any) -> Any:
    """The points, moved along each axis to the first and to the last of them."""
    ends = [jnp.min(points, axis=0), jnp.max(points, axis=0)]
    return jnp.concatenate(
        [points.at[:, axis].set(end[axis]) for axis in range(points.shape[1]) for end in ends]
    )

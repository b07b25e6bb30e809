"""First derivatives of what is minimised: the gradient, and the Jacobian of its least-squares rows."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl._types import Scalar
from bilo_ppl.estimate.objective import Objective

__all__ = ["differentiated"]


def differentiated(
    objective: Objective, z: dict[str, Any], operator_states: Any, *, rows: bool
) -> tuple[Scalar, dict[str, Any], Float[Array, "n p"] | None, Any]:
    """U, its gradient, with ``rows`` the Jacobian ``(n, p)`` of its rows, and its auxiliary output."""
    if not rows:
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (energy, aux), gradient = value_and_grad(z, operator_states)
        return energy, gradient, None, aux
    energy, gradient, jacobian, aux = _rows_differentiated(objective, z, operator_states)
    penalties = _penalty_jacobian(objective, z, operator_states)
    return energy, gradient, jnp.concatenate([jacobian, *penalties]), aux


def _rows_differentiated(objective: Objective, z: dict[str, Any], operator_states: Any) -> Any:
    """As `differentiated`, less the penalties: a pass for each unknown, or for each row, if fewer."""

    def values(z):
        return objective.with_rows(z, operator_states)

    flat, unravel = ravel_pytree(z)
    program, ((_, rows), _) = jax.make_jaxpr(values, return_shape=True)(z)
    n = rows.size
    if flat.size <= n and _goes_forward(program):
        (energy, _), push, aux = jax.linearize(
            lambda flat: values(unravel(flat)), flat, has_aux=True
        )
        slopes, columns = jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype))
        return energy, unravel(slopes), columns.T, aux
    (energy, _), pull, aux = jax.vjp(values, z, has_aux=True)
    # The gradient of U is one more row: a single pass pulls all of them back.
    pulled = jax.vmap(pull)((jnp.eye(n + 1, 1)[:, 0], jnp.eye(n + 1, n, -1)))[0]
    gradient = jax.tree.map(lambda leaf: leaf[0], pulled)
    jacobian = jax.vmap(lambda tree: ravel_pytree(tree)[0])(pulled)[1:]
    return energy, gradient, jacobian, aux


def _goes_forward(program: Any) -> bool:
    """Whether a program has a forward mode: a reverse rule of its own (`jax.custom_vjp`) takes it.

    JAX would only say so when it compiles.
    """
    return "custom_vjp_call" not in str(program)


def _penalty_jacobian(
    objective: Objective, z: dict[str, Any], operator_states: Any
) -> list[Float[Array, "n p"]]:
    """The Jacobian of the rows of every squared penalty, point by point: a row knows one point only.

    The PDE is solved only if u is in the penalty.
    """
    flat, unravel = ravel_pytree(z)

    def blocks(name, points):
        def row(position, x):
            rows, _ = objective.penalties(unravel(position), operator_states)[name]
            return rows(x)

        found = jax.vmap(jax.jacrev(row), in_axes=(None, 0))(flat, points)
        return found.reshape(-1, flat.size)

    penalties = objective.penalties(z, operator_states)
    return [blocks(name, points) for name, (_, points) in penalties.items()]

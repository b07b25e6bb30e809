"""The rows near some weights, to first order: the interface, and what its forms share."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from bilo_ppl._types import Rows, Scalar

__all__ = ["AbstractLinearised", "lower_half", "solve_factored"]

HALVINGS, LEAST_BLOCK = 2, 256
"""How often a normal matrix is halved so that its upper half is left out, and the least block."""


class AbstractLinearised(eqx.Module):
    """Rows near some weights: ``rows(weights + d)`` is about ``rows + J d``."""

    has_factor: ClassVar[bool] = True
    """Whether another solve with the same damping costs little."""

    @abc.abstractmethod
    def damped(self, damping: Scalar | float) -> Callable[[Rows], Float[Array, " p"]]:
        """From rows to their damped minimiser: what there is to factor is factored once.

        ``damping`` is in units of the mean eigenvalue of the smaller normal matrix. Near zero, the
        result is the minimum-norm least-squares solution.
        """

    def solve(self, damping: Scalar | float, rows: Rows) -> Float[Array, " p"]:
        """The damped minimiser; linear in ``rows`` and differentiable in them in both modes."""
        return self.damped(damping)(rows)

    @abc.abstractmethod
    def apply(self, step: Float[Array, " p"]) -> Rows:
        """J d."""


def lower_half(A: Float[Array, "k m"], halvings: int = HALVINGS) -> Float[Array, "k k"]:
    """The lower triangle of ``A A^T`` by blocks, for little more than half of the products."""
    half = A.shape[0] // 2
    if not halvings or half < LEAST_BLOCK:
        return A @ A.T
    first, second = A[:half], A[half:]
    upper = jnp.pad(lower_half(first, halvings - 1), ((0, 0), (0, len(second))))
    lower = [second @ first.T, lower_half(second, halvings - 1)]
    return jnp.concatenate([upper, jnp.concatenate(lower, axis=1)])


def solve_factored(
    J: Float[Array, "rows p"], factor: Float[Array, "k k"], rows: Rows
) -> Float[Array, " p"]:
    """The damped minimiser, from the lower factor of the smaller normal matrix of J."""
    dual = J.shape[0] <= J.shape[1]
    right_side = rows if dual else J.T @ rows
    found = cho_solve((factor, True), right_side.astype(factor.dtype)).astype(rows.dtype)
    return J.T @ found if dual else found

"""Nonlinear least squares over many small items, and the factored Gauss-Newton system.

The lower level drives named rows to zero. Rows come in families: one function of the weights and of
an item (a collocation point, or a point and a theta), evaluated at a batch of items. Rows of one item
depend on no other item, so the Jacobian is a batch of small reverse passes and nothing is wasted.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from bilo_ppl._types import Rows, Scalar, Weights

__all__ = ["GaussNewton", "LeastSquares", "RowFamily", "linearise"]


class RowFamily(eqx.Module):
    """``rows(weights, item)`` at a batch of items.

    ``rows`` returns a mapping from names to row vectors. ``row_weights`` gives the loss weights by
    name (1 where not given); every row is scaled by sqrt(weight / number of items), so that the squared
    norm of a block is its weighted mean square over the items.
    """

    rows: Callable[[Weights, Any], Mapping[str, Rows]]
    items: Any
    row_weights: Mapping[str, float]

    @property
    def count(self) -> int:
        """Number of items."""
        return jax.tree.leaves(self.items)[0].shape[0]

    def _scaled(self, weights: Weights, item: Any) -> dict[str, Rows]:
        return {
            name: math.sqrt(self.row_weights.get(name, 1.0) / self.count) * rows
            for name, rows in self.rows(weights, item).items()
        }

    def named(self, weights: Weights) -> dict[str, Float[Array, "items m"]]:
        """Scaled rows by name."""
        return jax.vmap(lambda item: self._scaled(weights, item))(self.items)

    def jacobian(self, weights: Weights) -> Float[Array, "rows p"]:
        """Jacobian of the scaled rows, item by item, with respect to the flattened weights."""
        flat, unravel = ravel_pytree(weights)
        one = jax.tree.map(lambda leaf: leaf[0], self.items)
        names = jax.eval_shape(lambda: self.rows(weights, one))

        # One reverse pass a block: a cheap block does not pay for the graph of an expensive one.
        def item_jacobian(w, item):
            blocks = [
                jax.jacrev(lambda v, name=name: self._scaled(unravel(v), item)[name])(w)
                for name in sorted(names)
            ]
            return jnp.concatenate(blocks)

        blocks = jax.vmap(item_jacobian, in_axes=(None, 0))(flat, self.items)
        return blocks.reshape(-1, flat.size)


class LeastSquares(eqx.Module):
    """minimise sum(rows(W)**2), the rows of all families stacked."""

    families: tuple[RowFamily, ...]

    def named(self, weights: Weights) -> dict[str, Float[Array, "items m"]]:
        """Scaled rows by name."""
        return {name: rows for f in self.families for name, rows in f.named(weights).items()}

    def rows(self, weights: Weights) -> Rows:
        """All scaled rows; the order is that of `jacobian`."""
        parts = []
        for family in self.families:
            named = family.named(weights)
            parts.append(jnp.concatenate([named[k] for k in sorted(named)], axis=1).ravel())
        return jnp.concatenate(parts)

    def loss(self, weights: Weights) -> Scalar:
        """Weighted mean squares, summed: the loss of the papers."""
        return jnp.sum(self.rows(weights) ** 2)

    def terms(self, weights: Weights) -> dict[str, Scalar]:
        """The loss, term by term."""
        return {name: jnp.sum(rows**2) for name, rows in self.named(weights).items()}

    def jacobian(self, weights: Weights) -> Float[Array, "rows p"]:
        """Derivative of `rows` with respect to the flattened weights."""
        return jnp.concatenate([family.jacobian(weights) for family in self.families])


class GaussNewton(eqx.Module):
    """A Jacobian J with the triangular factor R of its smaller normal matrix.

    R^T R = J J^T when there are fewer rows than weights (dual), else J^T J (primal). R comes from a QR
    decomposition of J, never from the normal matrix, whose condition number a single-precision
    Cholesky factorisation would not survive.
    """

    J: Float[Array, "rows p"]
    R: Float[Array, "k k"]

    @property
    def dual(self) -> bool:
        """Whether R factors the rows x rows matrix."""
        return self.J.shape[0] <= self.J.shape[1]

    @property
    def scale(self) -> Scalar:
        """Mean eigenvalue of the normal matrix: the unit of damping."""
        return jnp.sum(self.R**2) / self.R.shape[0]

    def solve(self, damping: Scalar | float, rows: Rows) -> Float[Array, " p"]:
        """The damped minimiser of ``|J d - rows|^2 + damping * scale * |d|^2``.

        With damping near zero, the minimum-norm least-squares solution. Linear in ``rows``, and
        differentiable with respect to them in both modes.
        """
        size = self.R.shape[0]
        shift = jnp.sqrt(damping * self.scale) * jnp.eye(size, dtype=self.R.dtype)
        factor = jnp.linalg.qr(jnp.concatenate([self.R, shift]), mode="r")
        if self.dual:
            return self.J.T @ _normal_solve(factor, rows)
        return _normal_solve(factor, self.J.T @ rows)


def _normal_solve(R, b):
    """Solve R^T R y = b."""
    return solve_triangular(R, solve_triangular(R, b, trans=1))


def linearise(jacobian: Float[Array, "rows p"]) -> GaussNewton:
    """Factor a Jacobian for Gauss-Newton steps; its derivative is not needed and is stopped."""
    J = jax.lax.stop_gradient(jacobian)
    tall = J.T if J.shape[0] <= J.shape[1] else J
    return GaussNewton(J, jnp.linalg.qr(tall, mode="r"))

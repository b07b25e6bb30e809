"""Block-tridiagonal Cholesky factorisation of a five-point scheme: a block for each grid line.

No iteration, so that the contrast of the coefficient does not matter; it costs n m^3 for n lines of m
unknowns. The inverses of the pivots are kept rather than their factors: solves are then products.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl.numerics.plane.five_point import FivePoint

__all__ = ["factor_lines", "solve_lines"]


def factor_lines(scheme: FivePoint) -> Float[Array, "n m m"]:
    """Inverses of the pivot blocks, ``S_i = T_i - K_i inv(S_(i-1)) K_i``."""
    diagonal, along, across = scheme.diagonal, scheme.second[:, 1:-1], scheme.first[:-1]
    identity = jnp.eye(diagonal.shape[1], dtype=diagonal.dtype)

    def pivot(before, line):
        on, off, link = line
        block = jnp.diag(on) - jnp.diag(off, 1) - jnp.diag(off, -1)
        block = block - link[:, None] * before * link[None, :]
        inverse = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(block), True), identity)
        return inverse, inverse

    zero = jnp.zeros_like(identity)
    return jax.lax.scan(pivot, zero, (diagonal, along, across))[1]


def solve_lines(
    scheme: FivePoint, inverses: Float[Array, "n m m"], right_side: Float[Array, "n m"]
) -> Float[Array, "n m"]:
    """Solve with the factors, and refine once."""

    def forward(before, line):
        inverse, link, b = line
        value = inverse @ (b + link * before)
        return value, value

    def backward(after, line):
        inverse, link, value = line
        value = value + inverse @ (link * after)
        return value, value

    def solve(b):
        zero = jnp.zeros_like(b[0])
        down = jax.lax.scan(forward, zero, (inverses, scheme.first[:-1], b))[1]
        return jax.lax.scan(backward, zero, (inverses, scheme.first[1:], down), reverse=True)[1]

    once = solve(right_side)
    return once + solve(right_side - scheme.apply(once))

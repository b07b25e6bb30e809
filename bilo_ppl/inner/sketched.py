"""Damped steps by conjugate gradients, with a random sketch of the normal matrix as the preconditioner.

The few large eigenvalues of the smaller normal matrix, J J^T or J^T J, are what makes conjugate gradients
slow. A randomised Nystroem approximation sees them in ``RANK`` products (Frangella, Tropp, Udell,
*Randomized Nystroem preconditioning*, 2023), and serves all dampings of a step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from bilo_ppl._types import Rows, Scalar
from bilo_ppl.inner.linear_model import AbstractLinearised

__all__ = ["Sketched"]

RANK = 100
"""Of the sketch: 400 gains nothing (`benchmarks/preconditioning.py`)."""

MOST = 200
"""Iterations after which a step is taken as it is."""


class Sketched(AbstractLinearised):
    """A Jacobian with the leading eigenvectors of its smaller normal matrix, approximately.

    For steps that a solver tries: they are right to the square root of single precision, and cannot be
    differentiated in reverse mode. The sketch is made in double precision, since in single precision
    rounding of the largest eigenvalues hides those that matter.
    """

    J: Float[Array, "rows p"]
    vectors: Float[Array, "k rank"]
    values: Float[Array, " rank"]
    scale: Scalar
    """Mean eigenvalue of the normal matrix: the unit of damping."""

    def __init__(self, jacobian: Float[Array, "rows p"]):
        """Sketch the normal matrix of a Jacobian; its derivative is not needed and is stopped."""
        self.J = jax.lax.stop_gradient(jacobian)
        self.scale = jnp.sum(self.J**2) / min(self.J.shape)
        self.vectors, self.values = _sketch(self.J, self.dual)

    @property
    def dual(self) -> bool:
        """Whether the smaller normal matrix is rows x rows."""
        return self.J.shape[0] <= self.J.shape[1]

    def damped(self, damping: Scalar | float) -> Callable[[Rows], Float[Array, " p"]]:
        """See `AbstractLinearised`."""
        J, shift = self.J, jnp.asarray(damping * self.scale, self.J.dtype)

        def product(y):
            found = J @ (y @ J) if self.dual else (J @ y) @ J
            return found + shift * y

        # Along what the sketch has not seen, as along the least that it has.
        part = (self.values[-1] + shift) / (self.values + shift) - 1

        def precondition(r):
            wide = r.astype(self.vectors.dtype)
            return (wide + self.vectors @ (part * (wide @ self.vectors))).astype(r.dtype)

        def solve(rows):
            found = _conjugate_gradients(product, rows if self.dual else rows @ J, precondition)
            return found @ J if self.dual else found

        return solve

    def apply(self, step: Float[Array, " p"]) -> Rows:
        """See `AbstractLinearised`."""
        return self.J @ step


def _sketch(J: Float[Array, "rows p"], dual: bool) -> tuple[Array, Array]:
    """Eigenvectors and eigenvalues, falling, of a Nystroem approximation of the smaller normal matrix."""
    double = jnp.result_type(float)
    wide, size = J.astype(double), min(J.shape)
    test = jax.random.normal(jax.random.key(0), (size, min(RANK, size)), double)
    test = jnp.linalg.qr(test)[0]
    image = wide @ (wide.T @ test) if dual else wide.T @ (wide @ test)
    # What rounding may make of a zero eigenvalue is added, and taken away again in the end.
    above = jnp.sqrt(size) * jnp.finfo(double).eps * jnp.linalg.norm(image)
    image = image + above * test
    core = test.T @ image
    factor = jnp.linalg.cholesky((core + core.T) / 2)
    root = solve_triangular(factor, image.T, lower=True).T
    vectors, values, _ = jnp.linalg.svd(root, full_matrices=False)
    return vectors, jnp.maximum(values**2 - above, 0)


def _conjugate_gradients(
    product: Callable, right_side: Float[Array, " k"], precondition: Callable
) -> Float[Array, " k"]:
    """To a relative residual of the square root of the machine precision."""
    enough = jnp.finfo(right_side.dtype).eps * jnp.vdot(right_side, right_side)

    def go_on(carry):
        _, r, _, _, count = carry
        return (jnp.vdot(r, r) > enough) & (count < MOST)

    def advance(carry):
        x, r, direction, size, count = carry
        image = product(direction)
        length = size / jnp.vdot(direction, image)
        x, r = x + length * direction, r - length * image
        z = precondition(r)
        new = jnp.vdot(r, z)
        return x, r, z + new / size * direction, new, count + 1

    z = precondition(right_side)
    start = (jnp.zeros_like(z), right_side, z, jnp.vdot(right_side, z), jnp.array(0))
    return jax.lax.while_loop(go_on, advance, start)[0]

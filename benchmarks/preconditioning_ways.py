"""Conjugate gradients on a damped normal matrix, and what preconditions them.

Vectors are in the space of the smaller normal matrix of J: rows x rows (dual), or weights x weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.linearised import AbstractLinearised, Dense, Gram, MatrixFree

__all__ = [
    "Formed",
    "by_gram",
    "by_iteration",
    "by_passes",
    "by_qr",
    "in_weights",
    "is_dual",
    "nystroem",
    "relative_residual",
    "sketching",
]

TOLERANCE = float(jnp.finfo(jnp.float32).eps) ** 0.5
"""Relative residual at which iterations end; that, and at most 200 of them, is as in `MatrixFree`."""


def is_dual(J: Any) -> bool:
    """Whether the smaller normal matrix is rows x rows."""
    return J.shape[0] <= J.shape[1]


def product(J: Any, y: Any) -> Any:
    """The smaller normal matrix times a vector."""
    return J @ (y @ J) if is_dual(J) else (J @ y) @ J


def iterate(
    apply: Callable, right_side: Any, precondition: Callable, most: int = 200
) -> tuple[Any, Any]:
    """Preconditioned conjugate gradients; the solution and the number of iterations."""
    enough = TOLERANCE**2 * jnp.vdot(right_side, right_side)

    def go_on(carry):
        _, r, _, _, count = carry
        return (jnp.vdot(r, r) > enough) & (count < most)

    def advance(carry):
        x, r, p, gamma, count = carry
        Ap = apply(p)
        alpha = gamma / jnp.vdot(p, Ap)
        x, r = x + alpha * p, r - alpha * Ap
        z = precondition(r).astype(r.dtype)
        new = jnp.vdot(r, z)
        return x, r, z + new / gamma * p, new, count + 1

    z = precondition(right_side).astype(right_side.dtype)
    first = (jnp.zeros_like(z), right_side, z, jnp.vdot(right_side, z), jnp.array(0))
    found = jax.lax.while_loop(go_on, advance, first)
    return found[0], found[-1]


def by_iteration(J: Any, rows: Any, shift: Any, prepared: Any = ()) -> tuple[Any, Any]:
    """The damped step by conjugate gradients with J formed; preconditioned by what is prepared."""
    apply = lambda y: product(J, y) + shift.astype(J.dtype) * y  # noqa: E731
    right_side = rows if is_dual(J) else rows @ J
    found, count = iterate(apply, right_side, partial(precondition, prepared, shift))
    return (found @ J if is_dual(J) else found), count


def in_weights(J: Any, rows: Any, shift: Any) -> tuple[Any, Any]:
    """The same in the space of the weights, whichever is smaller: an early end is then a damping too."""
    apply = lambda d: (J @ d) @ J + shift.astype(J.dtype) * d  # noqa: E731
    return iterate(apply, rows @ J, lambda r: r)


def by_passes(problem: LeastSquares, most: int, weights: Any, rows: Any, shift: Any) -> Any:
    """The same with passes through the network, not preconditioned."""
    system = MatrixFree(problem, weights)
    pull, push = system.pull, system.push
    first, then = (pull, push) if system.dual else (push, pull)
    apply = lambda y: then(first(y)) + shift.astype(y.dtype) * y  # noqa: E731
    found, count = iterate(apply, rows if system.dual else pull(rows), lambda r: r, most)
    return (pull(found) if system.dual else found), count


def by_form(form: Any, J: Any, damping: Any, rows: Any) -> Any:
    """The damped step by a factorisation."""
    return form(J).damped(damping)(rows)


by_qr, by_gram = partial(by_form, Dense), partial(by_form, Gram)


def precondition(prepared: Any, shift: Any, r: Any) -> Any:
    """By nothing, by a Cholesky factor, or by eigenvectors and eigenvalues of an approximation."""
    match prepared:
        case ():
            return r
        case (factor,):
            return cho_solve((factor, True), r.astype(factor.dtype))
        case (U, eigenvalues):
            part = (eigenvalues[-1] + shift) / (eigenvalues + shift) - 1
            return r + U @ (part * (r.astype(U.dtype) @ U))


def sketching(J: Any, rank: int, dtype: Any = float) -> Any:
    """Random orthonormal vectors (k, rank) for a sketch of the smaller normal matrix."""
    return jnp.linalg.qr(jax.random.normal(jax.random.key(2), (min(J.shape), rank), dtype))[0]


def nystroem(J: Any, test: Any) -> tuple[Any, Any]:
    """Eigenvectors (k, rank) and eigenvalues of a randomised approximation of the normal matrix.

    The products are in the precision of the test vectors, in double if one would see the eigenvalues
    that are below the rounding of the largest in single.
    """
    J = J.astype(test.dtype)
    image = J @ (J.T @ test) if is_dual(J) else J.T @ (J @ test)
    above = jnp.sqrt(len(test)) * jnp.finfo(test.dtype).eps * jnp.linalg.norm(image)
    test, image, above = (part.astype(float) for part in (test, image, above))
    image = image + above * test
    core = test.T @ image
    factor = jnp.linalg.cholesky((core + core.T) / 2)
    U, values, _ = jnp.linalg.svd(solve_triangular(factor, image.T, lower=True).T, False)
    return U, jnp.maximum(values**2 - above, 0)


def relative_residual(J: Any, rows: Any, shift: Any, step: Any) -> Any:
    """Relative residual of the damped normal equations in the weights, in double precision."""
    wide, step = J.astype(float), step.astype(float)
    right_side = rows.astype(float) @ wide
    off = right_side - (wide @ step) @ wide - shift * step
    return jnp.linalg.norm(off) / jnp.linalg.norm(right_side)


class Formed(AbstractLinearised):
    """A Jacobian with its scale, for conjugate gradients in the weights."""

    J: Any
    mean: Any
    """Mean eigenvalue of the smaller normal matrix: the unit of damping."""

    def __init__(self, jacobian: Any):
        """Take a Jacobian as it is."""
        self.J, self.mean = jacobian, jnp.sum(jacobian.astype(float) ** 2) / min(jacobian.shape)

    def damped(self, damping: Any) -> Callable[[Any], Any]:
        """See `AbstractLinearised`."""
        return lambda rows: in_weights(self.J, rows, damping * self.mean)[0]

    def apply(self, step: Any) -> Any:
        """See `AbstractLinearised`."""
        return self.J @ step

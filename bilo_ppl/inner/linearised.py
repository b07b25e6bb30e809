"""The linearised lower level and its damped least-squares solve: dense, or matrix-free.

Both minimise ``|J d - rows|^2 + damping * scale * |d|^2`` through the smaller normal matrix, rows x
rows (dual) or weights x weights (primal). `Dense` factors J by QR, never the normal matrix itself,
whose condition number a single-precision Cholesky factorisation would not survive. `MatrixFree` solves
by conjugate gradients and never forms J. Rows that are spread over devices have a form of their own,
`ShardedGram`.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_factor, solve_triangular
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from bilo_ppl._types import Rows, Scalar, Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.linear_model import AbstractLinearised, lower_half, solve_factored
from bilo_ppl.inner.sharded_gram import ShardedGram
from bilo_ppl.inner.sketched import Sketched

__all__ = [
    "LEAST_DAMPING",
    "AbstractLinearised",
    "Dense",
    "Gram",
    "MatrixFree",
    "is_large",
    "is_large_system",
    "linearise",
    "solve_factored",
]

DENSE_UP_TO = 5e10
"""Largest k^2 m at which a k x m Jacobian (k <= m) is factored; above it, conjugate gradients.

By whole solves the QR wins at all sizes measured (`benchmarks/large_systems.py`); this is where a step
takes seconds, and J up to a few hundred MiB."""

GRAM_FROM = 256
"""Size of a normal matrix from which single precision is left for damped steps, where there is double."""

LEAST_DAMPING = 1e-9
"""From which on a damped normal matrix in double precision is as good as a QR decomposition."""

SKETCHED_FROM = 600
"""Rows from which, where there are as many weights, a step that need not be exact is by a sketch.

With more rows than weights the normal matrix of the weights is cheap; its least eigenvalues matter."""

FORMED_UP_TO = 1e8
"""Entries of a Jacobian that is formed for a sketch: 1.2 GB, in both precisions."""

PROBES = 8
"""Random vectors for the mean eigenvalue of a normal matrix that is never formed."""


class _Formed(AbstractLinearised):
    """With the Jacobian as a matrix."""

    J: Float[Array, "rows p"]

    @property
    def dual(self) -> bool:
        """Whether the smaller normal matrix is rows x rows."""
        return self.J.shape[0] <= self.J.shape[1]

    def apply(self, step: Float[Array, " p"]) -> Rows:
        """See `AbstractLinearised`."""
        return self.J @ step


class Dense(_Formed):
    """A Jacobian J with the triangular factor R of its smaller normal matrix.

    R^T R = J J^T when there are no more rows than weights (dual), else J^T J (primal).
    """

    R: Float[Array, "k k"]

    def __init__(self, jacobian: Float[Array, "rows p"]):
        """Factor a Jacobian; its derivative is not needed and is stopped."""
        self.J = jax.lax.stop_gradient(jacobian)
        self.R = jnp.linalg.qr(self.J.T if self.dual else self.J, mode="r")

    @property
    def scale(self) -> Scalar:
        """Mean eigenvalue of the normal matrix: the unit of damping."""
        return jnp.sum(self.R**2) / self.R.shape[0]

    def damped(self, damping: Scalar | float) -> Callable[[Rows], Float[Array, " p"]]:
        """See `AbstractLinearised`."""
        size = self.R.shape[0]
        shift = jnp.sqrt(damping * self.scale) * jnp.eye(size, dtype=self.R.dtype)
        factor = jnp.linalg.qr(jnp.concatenate([self.R, shift]), mode="r")
        if self.dual:
            return lambda rows: self.J.T @ _normal_solve(factor, rows)
        return lambda rows: _normal_solve(factor, self.J.T @ rows)


class Gram(_Formed):
    """A Jacobian with its smaller normal matrix in double precision, for many dampings.

    Each costs a Cholesky factorisation, a tenth of a QR decomposition. Only for damped steps:
    without, the square of the condition number of J may be too large even for double precision.
    """

    normal: Float[Array, "k k"]
    """Its lower triangle; above it, some entries are left out."""

    def __init__(self, jacobian: Float[Array, "rows p"]):
        """The normal matrix of a Jacobian; its derivative is not needed and is stopped."""
        self.J = jax.lax.stop_gradient(jacobian)
        wide = self.J.astype(jnp.result_type(float))
        self.normal = lower_half(wide if self.dual else wide.T)

    def damped(self, damping: Scalar | float) -> Callable[[Rows], Float[Array, " p"]]:
        """See `AbstractLinearised`."""
        return partial(solve_factored, self.J, self.factor(damping))

    def factor(self, damping: Scalar | float) -> Float[Array, "k k"]:
        """Lower Cholesky factor of the damped normal matrix."""
        size = self.normal.shape[0]
        shift = damping * jnp.trace(self.normal) / size
        return cho_factor(self.normal + shift * jnp.eye(size), lower=True)[0]


def _normal_solve(R, b):
    """Solve R^T R y = b."""
    return solve_triangular(R, solve_triangular(R, b, trans=1))


class MatrixFree(AbstractLinearised):
    """Products with J and its transpose, and conjugate gradients on the smaller normal matrix.

    The iteration ends at a relative residual of the square root of the machine precision, or after
    ``max_iterations``: a step that is not exact is still one that Levenberg-Marquardt may try.
    """

    has_factor: ClassVar[bool] = False
    push: Callable
    """d -> J d."""
    pull: Callable
    """y -> J^T y."""
    scale: Scalar
    shape: tuple[int, int] = eqx.field(static=True)
    dual: bool = eqx.field(static=True)
    """Whether the iteration runs in the space of the rows."""
    max_iterations: int = eqx.field(static=True)

    def __init__(self, problem: LeastSquares, weights: Weights, max_iterations: int = 200):
        """Linearise ``problem.rows`` at ``weights``, which are taken as constants."""
        flat, unravel = ravel_pytree(jax.lax.stop_gradient(weights))
        rows, self.push = jax.linearize(lambda w: problem.rows(unravel(w)), flat)
        transpose = jax.linear_transpose(self.push, flat)
        self.pull = lambda y: transpose(y)[0]
        count = rows.size if problem.mesh is None else _count_rows(problem, weights)
        self.shape, self.max_iterations = (count, flat.size), max_iterations
        # Vectors of weights are the same on all devices: there only J^T y is summed over them.
        self.dual = problem.mesh is None and self.shape[0] <= self.shape[1]
        # E |J^T s|^2 over random signs s is the trace of J J^T.
        signs = jax.random.rademacher(jax.random.key(0), (PROBES, rows.size), rows.dtype)
        trace = jnp.mean(jnp.sum(jax.vmap(self.pull)(signs) ** 2, axis=1))
        self.scale = jax.lax.stop_gradient(trace / min(self.shape))

    def damped(self, damping: Scalar | float) -> Callable[[Rows], Float[Array, " p"]]:
        """See `AbstractLinearised`."""
        shift = damping * self.scale
        first, then = (self.pull, self.push) if self.dual else (self.push, self.pull)

        def solve(rows):
            right_side = rows if self.dual else self.pull(rows)
            found, _ = cg(
                lambda y: then(first(y)) + shift * y,
                right_side,
                tol=float(jnp.finfo(rows.dtype).eps) ** 0.5,
                maxiter=self.max_iterations,
            )
            return self.pull(found) if self.dual else found

        return solve

    def apply(self, step: Float[Array, " p"]) -> Rows:
        """See `AbstractLinearised`."""
        return self.push(step)


def is_large(problem: LeastSquares, weights: Weights) -> bool:
    """Whether the Jacobian is too large for a factorisation to be the cheaper way."""
    size = sum(leaf.size for leaf in jax.tree.leaves(weights))
    return is_large_system(_count_rows(problem, weights), size)


def _count_rows(problem: LeastSquares, weights: Weights) -> int:
    """Rows of a problem, without those that fill up what several devices have."""
    return jax.eval_shape(problem.over(None).rows, weights).size


def is_large_system(rows: int, weights: int) -> bool:
    """The same by numbers."""
    return min(rows, weights) ** 2 * max(rows, weights) > DENSE_UP_TO


def linearise(
    problem: LeastSquares, weights: Weights, *, damped: bool = False, exact: bool = True
) -> AbstractLinearised:
    """The rows near ``weights``, by the cheapest of the representations for their sizes.

    ``damped`` is for steps whose damping is at least `LEAST_DAMPING`, or nearly. Such a step need not be
    ``exact`` where a solver looks at what it has achieved; then it is not differentiated. Over several
    devices others are by conjugate gradients, and so is everything where JAX has no double precision
    enabled.
    """
    mesh, double = problem.mesh, jnp.result_type(float) == jnp.float64
    single = jax.tree.leaves(weights)[0].dtype != jnp.result_type(float)
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    rows = _count_rows(problem, weights)
    sketched = damped and not exact and single and SKETCHED_FROM <= rows <= count
    if sketched and mesh is None and rows * count <= FORMED_UP_TO:
        return Sketched(problem.jacobian(weights))
    if is_large(problem, weights) or (mesh is not None and not (damped and double)):
        return MatrixFree(problem, weights)
    jacobian = problem.jacobian(weights)
    if mesh is not None:
        return ShardedGram(jacobian, mesh, rows)
    # Without double precision there is only the QR decomposition.
    if damped and min(jacobian.shape) >= GRAM_FROM and single:
        return Gram(jacobian)
    return Dense(jacobian)

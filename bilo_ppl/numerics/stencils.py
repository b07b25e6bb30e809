"""What the finite-difference operators share: a problem's residual on three neighbouring nodes.

The residual that the user wrote is evaluated on the quadratic through a node and its two
neighbours, so that ``grad`` and ``laplacian`` become central differences, and the Jacobian of the
nodal residuals is tridiagonal. No solver restates the PDE.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._types import Field, Scalar, Theta
from bilo_ppl.pde.calculus import partial
from bilo_ppl.pde.problem import Problem

__all__ = ["check_local", "constant", "quadratic", "secants", "solve_tridiagonal"]


def quadratic(
    stencil: Float[Array, "3"], x: Scalar, left: Scalar, right: Scalar, jump: Any = 0.0
) -> Callable[[Scalar], Scalar]:
    """The quadratic through the values at ``x - left``, ``x`` and ``x + right``.

    With a ``jump`` of the derivative at x, the quadratic is that of the smooth part of the
    function, what is left after subtracting ``jump |. - x| / 2``.
    """
    backward = (stencil[1] - stencil[0]) / left + jump / 2
    forward = (stencil[2] - stencil[1]) / right - jump / 2
    curvature = 2 * (forward - backward) / (left + right)
    slope = (left * forward + right * backward) / (left + right)

    def u(y):
        return stencil[1] + (y - x) * (slope + (y - x) * curvature / 2)

    return u


class _Secant(eqx.Module):
    """A field near a node by its values in the middle of the two cells beside it.

    It makes ``divergence(D grad u)`` on a quadratic the difference of the two fluxes through those
    middles, ``D(x + h/2) (u(x + h) - u(x)) / h`` and the like: the conservative scheme, of second
    order wherever D has its kinks.
    """

    field: Field
    x: Scalar
    left: Scalar
    right: Scalar

    def __call__(self, y):
        y = jnp.asarray(y)
        before, after = self._at(y, self.x - self.left / 2), self._at(y, self.x + self.right / 2)
        distance = (y if y.ndim == 0 else y[0]) - self.x
        mean = (self.left * before + self.right * after) / (self.left + self.right)
        return mean + distance * 2 * (after - before) / (self.left + self.right)

    def _at(self, y, x):
        return self.field(x if y.ndim == 0 else y.at[0].set(x))


def secants(theta: Theta, x: Scalar, left: Scalar, right: Scalar) -> dict[str, Any]:
    """Theta with its fields replaced near the node x by their secants (see `_Secant`)."""
    return {
        name: _Secant(value, x, left, right) if callable(value) else value
        for name, value in theta.items()
    }


def solve_tridiagonal(
    bands: Float[Array, "m 3"], right_side: Float[Array, " m"]
) -> Float[Array, " m"]:
    """Solve a system whose matrix has the entries ``bands`` left of, on and right of its diagonal."""
    lower, diagonal, upper = bands.at[0, 0].set(0).at[-1, 2].set(0).T
    return jax.lax.linalg.tridiagonal_solve(lower, diagonal, upper, right_side[:, None])[:, 0]


def constant(tree: Any) -> Any:
    """The pytree with no derivative through its arrays."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)


def check_local(solver: str, problem: Problem, theta: Theta, dtype: Any) -> None:
    """Refuse a problem that is not scalar, or whose residual needs more than ``solver`` knows.

    That is u, its first two derivatives along the first coordinate, and its first along the second,
    all at the point. Raises a ``ValueError``.
    """
    name, dimension = type(problem).__name__, problem.domain.dimension
    lower, upper = np.array(problem.domain.lower), np.array(problem.domain.upper)
    x = jnp.asarray(lower + 0.37 * (upper - lower), dtype)

    def trial(y):
        return 0.6 + 0.3 * jnp.cos(1.3 + jnp.sum((y - x) / (upper - lower).astype(dtype)))

    value = trial(x)
    slopes = [partial(trial, axis)(x) for axis in range(dimension)]
    curvature = partial(trial, 0, 0)(x)

    def taylor(y):
        terms = [slope * (y - x)[axis] for axis, slope in enumerate(slopes)]
        return value + sum(terms) + curvature * (y - x)[0] ** 2 / 2

    wanted, got = (jnp.asarray(problem.residual(u, x, theta)) for u in (trial, taylor))
    if wanted.shape != ():
        raise ValueError(
            f"{solver}: {name}.residual has shape {wanted.shape} at a point; it must be a scalar."
        )
    error, scale = jnp.abs(wanted - got), jnp.abs(wanted) + jnp.abs(curvature) + jnp.abs(value)
    if error > jnp.finfo(dtype).eps ** 0.5 * scale:
        known = "u, u_x and u_xx" if dimension == 1 else "u, u_x, u_xx and u_t"
        raise ValueError(
            f"{solver} knows {known} at a point, but {name}.residual depends on something else of "
            f"u: for a smooth u it is {wanted:.6g}, with those alone {got:.6g}."
        )

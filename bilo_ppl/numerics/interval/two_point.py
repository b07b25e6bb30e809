"""The nonlinear equations of a two-point boundary value problem on a grid."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._types import Scalar, Theta
from bilo_ppl.numerics.stencils import quadratic, secants, solve_tridiagonal
from bilo_ppl.pde.problem import Problem

__all__ = ["Scheme", "make_grid"]


class Scheme(eqx.Module):
    """The nodal residuals of a problem on a grid, and their Jacobian."""

    problem: Problem
    nodes: Float[Array, " n"]
    jumps: tuple[tuple[int, Callable], ...] = eqx.field(static=True)

    def complete(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, " n"]:
        """Nodal values with the boundary values, which `lift` gives for any raw value."""
        zero = jnp.zeros((), self.nodes.dtype)
        left = self.problem.lift(self.nodes[:1], zero, theta)
        right = self.problem.lift(self.nodes[-1:], zero, theta)
        return jnp.concatenate([jnp.reshape(left, (1,)), interior, jnp.reshape(right, (1,))])

    def at_node(
        self, stencil: Float[Array, "3"], nodes: Float[Array, "3"], jump: Scalar, theta: Theta
    ) -> Any:
        """The residual at the middle one of three nodes, from the values there."""
        x, left, right = nodes[1], nodes[1] - nodes[0], nodes[2] - nodes[1]
        u = quadratic(stencil, x, left, right, jump)
        near = secants(theta, x, left, right)
        return self.problem.residual(lambda y: u(jnp.reshape(y, ())), x[None], near)

    def _at_nodes(self, function: Callable, interior, theta):
        full, x = self.complete(interior, theta), self.nodes
        stencils = jnp.stack([full[:-2], full[1:-1], full[2:]], axis=-1)
        nodes = jnp.stack([x[:-2], x[1:-1], x[2:]], axis=-1)
        jumps = jnp.zeros_like(x)
        for node, jump in self.jumps:
            jumps = jumps.at[node].set(jump(theta))
        return jax.vmap(lambda *args: function(*args, theta))(stencils, nodes, jumps[1:-1])

    def residuals(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, " m"]:
        """The residual at every interior node."""
        return self._at_nodes(self.at_node, interior, theta)

    def bands(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, "m 3"]:
        """The Jacobian of the residuals: entries left of, on and right of the diagonal."""
        return self._at_nodes(jax.grad(self.at_node), interior, theta)

    def newton(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, " m"]:
        """One undamped Newton step."""
        bands = self.bands(interior, theta)
        return interior - solve_tridiagonal(bands, self.residuals(interior, theta))


def make_grid(
    problem: Problem, count: int, jumps: Mapping[float, Callable]
) -> tuple[np.ndarray, Any]:
    """``count`` nodes, equidistant in each part between jumps, and the jumps by node number."""
    (lower,), (upper,) = problem.domain.lower, problem.domain.upper
    places = sorted(jumps)
    if any(not lower < z < upper for z in places):
        raise ValueError(
            f"FiniteDifferences: the jumps are at {places}; they must lie inside ({lower}, {upper})."
        )
    ends = np.array([lower, *places, upper])
    numbers = np.round((ends - lower) / (upper - lower) * (count - 1)).astype(int)
    if np.diff(numbers).min() < 4:
        raise ValueError(
            "FiniteDifferences needs at least 5 nodes, and as many between any two jumps, got "
            f"nodes={count}."
        )
    grid = np.interp(np.arange(count), numbers, ends)
    return grid, tuple(zip(numbers[1:-1].tolist(), (jumps[z] for z in places), strict=True))

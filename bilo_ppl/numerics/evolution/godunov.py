"""Godunov's method for a scalar conservation law u_t + f(u)_x = 0, differentiable in theta.

    u_i^{n+1} = u_i^n - (dt / h) (F(u_i, u_{i+1}) - F(u_{i-1}, u_i)),

with the flux of the exact Riemann solution. For a convex f with its minimum at s that is
F(a, b) = max(f(max(a, s)), f(min(b, s))) (LeVeque, *Finite Volume Methods for Hyperbolic Problems*,
2002, section 12.1). It converges to the entropy solution through shocks and rarefactions.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._replaced import replaced
from bilo_ppl._types import Scalar, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.numerics.evolution.common import (
    boundary_values,
    check_evolution,
    extents,
    halved,
    initial_values,
)
from bilo_ppl.numerics.grid_field import GridField2D
from bilo_ppl.numerics.stencils import check_local
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit

__all__ = ["Godunov"]

_COURANT = 0.9


class Godunov(AbstractSolutionOperator):
    """Godunov's first-order method for u_t + f(u)_x = 0 with a convex flux f.

    Control volumes lie around the interior nodes; initial values and the values at both ends come
    from the problem's lift. The number of time steps is fixed by ``max_speed``, with Courant number
    0.9. The L1 error is O(h) for smooth solutions and at most O(h^(1/2)) with shocks. The derivative
    in theta is that of the discrete solution, which exists except where a Riemann solution changes
    its kind.

    Examples:
        >>> class Burgers(bilo.Problem):  # u_t + (u^2 / 2)_x = 0 from a x: u = a x / (1 + a t)
        ...     parameters, components = ("a",), 1
        ...     domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
        ...     def residual(self, u, x, theta):
        ...         return bilo.partial(u, 1)(x) + u(x) * bilo.partial(u, 0)(x)
        ...     def lift(self, x, raw, theta):
        ...         u = theta["a"] * x[0] / (1 + theta["a"] * x[1])
        ...         return u + x[1] * x[0] * (1 - x[0]) * raw
        >>> operator = bilo.Godunov(Burgers(), lambda u: u**2 / 2, 41, theta={"a": 1.0}, max_speed=1.0)
        >>> field, _, _ = eqx.filter_jit(operator.solve)({"a": 1.0}, operator.init_state())
        >>> round(float(field(jnp.array([0.5, 1.0]))), 2)
        0.25
    """

    problem: Problem
    flux: Callable = eqx.field(static=True)
    sonic: float = eqx.field(static=True)
    max_speed: float = eqx.field(static=True)
    nodes: Shaped[Any, " n"]
    """Equidistant nodes in space, ends included."""
    times: Shaped[Any, " m"]
    """Equidistant times, ends included."""

    def __init__(
        self,
        problem: Problem,
        flux: Callable[[Any], Any],
        nodes: int = 401,
        *,
        theta: Theta,
        max_speed: float,
        sonic: float = 0.0,
    ):
        """Check the problem and make the grid.

        **Arguments**

        - ``flux``: f, a convex function of u that JAX can differentiate. The problem's residual must
          be a multiple of ``u_t + f'(u) u_x``.
        - ``nodes``: number of nodes in space, ends included, at least 5.
        - ``theta``: parameters at which the problem's definition is checked.
        - ``max_speed``: a bound on ``|f'(u)|`` for all solutions of interest.
        - ``sonic``: where f has its minimum.

        Raises a ``ValueError`` if the problem or the flux is not of this kind.
        """
        dtype = jnp.result_type(float)
        theta = admit(problem, theta, dtype)
        check_evolution("Godunov", problem, theta, dtype)
        check_local("Godunov", problem, theta, dtype)
        if nodes < 5 or not 0 < max_speed < math.inf:
            raise ValueError(
                "Godunov needs at least 5 nodes and a positive speed, got "
                f"nodes={nodes}, max_speed={max_speed}."
            )
        _check_flux(problem, flux, sonic, theta, dtype)
        self.problem, self.flux = problem, flux
        self.sonic, self.max_speed = sonic, max_speed
        (a, b), (start, end) = extents(problem)
        steps = math.ceil((end - start) * max_speed * (nodes - 1) / (_COURANT * (b - a)))
        self.nodes = np.linspace(a, b, nodes)
        self.times = np.linspace(start, end, steps + 1)

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def refined(self) -> "Godunov":
        """With half the distances of nodes and of times: about half the error."""
        return replaced(self, nodes=halved(self.nodes), times=halved(self.times))

    def solve(self, theta: Theta, state: Any) -> tuple[GridField2D, Any, SolveInfo]:
        """The solution at ``theta``, bilinear between the nodes and times.

        ``steps`` is the number of time steps; the method is explicit and leaves no residual, so the
        loss is 0. ``converged`` is false where the initial or boundary values are faster than
        ``max_speed``; all later values are then the initial ones.
        """
        values, info = self._values(admit(self.problem, theta, jnp.result_type(float)))
        return GridField2D(self.nodes, self.times, values, degree=1), state, info

    @eqx.filter_jit
    def _values(self, theta: Theta) -> tuple[Float[Array, "n m"], SolveInfo]:
        dtype = jnp.result_type(float)
        nodes, times = jnp.asarray(self.nodes, dtype), jnp.asarray(self.times, dtype)
        ratio = (times[1] - times[0]) / (nodes[1] - nodes[0])
        initial = initial_values(self.problem, nodes, times[0], theta)
        ends = jax.vmap(lambda t: boundary_values(self.problem, nodes, t, theta))(times)
        slow = self._is_slow(initial) & self._is_slow(ends.ravel())

        def step(u: Array, boundary: Array):
            full = jnp.concatenate([boundary[:1], u, boundary[1:]])
            new = jnp.where(slow, u - ratio * jnp.diff(self._riemann(full[:-1], full[1:])), u)
            return new, new

        _, later = jax.lax.scan(step, initial[1:-1], ends[:-1])
        later = jnp.concatenate([ends[1:, :1], later, ends[1:, 1:]], axis=1)
        steps, loss = len(self.times) - 1, jnp.zeros((), dtype)
        info = SolveInfo.of(steps, loss, slow, StopReason.INVALID)
        return jnp.concatenate([initial[:, None], later.T], axis=1), info

    def _riemann(self, left: Array, right: Array) -> Array:
        """The flux at the origin of the Riemann problem."""
        from_left = self.flux(jnp.maximum(left, self.sonic))
        return jnp.maximum(from_left, self.flux(jnp.minimum(right, self.sonic)))

    def _is_slow(self, values: Array) -> Any:
        speeds = jnp.abs(jax.vmap(jax.grad(self.flux))(values))
        return jnp.max(speeds) <= self.max_speed * (1 + 1e-5)


def _check_flux(problem: Problem, flux: Callable, sonic: float, theta: Theta, dtype: Any) -> None:
    """Compare f'(u) with the ratio of the coefficients of u_x and u_t in the residual."""
    name = type(problem).__name__
    (a, b), (start, end) = extents(problem)
    speed = jax.grad(flux)
    values = jnp.asarray(sonic, dtype) + jnp.linspace(-1, 1, 9, dtype=dtype)
    if jnp.any(jnp.diff(jax.vmap(speed)(values)) < 0) or not jnp.abs(speed(values[4])) < 1e-6:
        raise ValueError(
            f"Godunov: the flux must be convex with its minimum at sonic={sonic}; its derivative at "
            f"{values} is {jax.vmap(speed)(values)}."
        )
    tolerance = float(jnp.finfo(dtype).eps) ** 0.5
    for fraction, value in ((0.31, values[1]), (0.73, values[6])):
        x = jnp.asarray([a + fraction * (b - a), start + fraction * (end - start)], dtype)

        def residual(slope: float, rate: float, value=value, x=x) -> Scalar:
            return problem.residual(
                lambda y: value + slope * (y[0] - x[0]) + rate * (y[1] - x[1]), x, theta
            )

        source, per_rate = residual(0.0, 0.0), residual(0.0, 1.0) - residual(0.0, 0.0)
        error = jnp.abs(residual(1.0, 0.0) - source - per_rate * speed(value))
        if jnp.abs(source) + error > tolerance * (jnp.abs(per_rate) + jnp.abs(error + source)):
            raise ValueError(
                f"Godunov: {name}.residual is not u_t + f'(u) u_x for the given flux: at u = "
                f"{value:.4g} it has the speed {(residual(1.0, 0.0) - source) / per_rate:.6g}, not "
                f"f'(u) = {speed(value):.6g}, and the source {source / per_rate:.6g}."
            )

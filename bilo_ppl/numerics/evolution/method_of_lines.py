"""Scalar parabolic problems in one space dimension, differentiable in theta.

In space the user's residual is evaluated on the quadratic through a node and its two neighbours; in
time each of its u_t is what the stage of an implicit Runge-Kutta method makes of the unknown value,

    u_t = (U - base) / (gamma h),   gamma = 1 - 1 / sqrt(2),

with base = u_n in the first stage and u_n + (1 - gamma) h k_1 in the second (Alexander, *SIAM J.
Numer. Anal.* 14, 1977: two stages, second order, L-stable, stiffly accurate). So the residual need
not be solved for u_t, and every stage is one tridiagonal Newton iteration.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._replaced import replaced
from bilo_ppl._types import Count, Flag, Scalar, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.numerics.evolution.common import (
    check_evolution,
    extents,
    halved,
    initial_values,
    with_boundary,
)
from bilo_ppl.numerics.grid_field import GridField2D
from bilo_ppl.numerics.stencils import (
    check_local,
    constant,
    quadratic,
    secants,
    solve_tridiagonal,
)
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit

__all__ = ["MethodOfLines"]

_GAMMA = 1 - 1 / math.sqrt(2)


class _Stage(eqx.Module):
    """The equations of one stage for the unknown interior values at time t."""

    problem: Problem
    nodes: Float[Array, " n"]
    base: Float[Array, " m"]
    t: Scalar
    step: Scalar
    """gamma times the time step."""
    theta: Theta

    def at_node(
        self, stencil: Float[Array, "3"], base: Scalar, x: Scalar, t: Scalar, theta: Theta
    ) -> Any:
        """The residual at (x, t), from the values at three nodes."""
        h = self.nodes[1] - self.nodes[0]
        u = quadratic(stencil, x, h, h)
        rate = (stencil[1] - base) / self.step
        near = secants(theta, x, h, h)
        return self.problem.residual(lambda y: u(y[0]) + (y[1] - t) * rate, jnp.stack([x, t]), near)

    def _at_nodes(self, function, interior):
        full = with_boundary(self.problem, self.nodes, interior, self.t, self.theta)
        stencils = jnp.stack([full[:-2], full[1:-1], full[2:]], axis=-1)
        return jax.vmap(lambda s, b, x: function(s, b, x, self.t, self.theta))(
            stencils, self.base, self.nodes[1:-1]
        )

    def residuals(self, interior: Float[Array, " m"]) -> Float[Array, " m"]:
        """The residual at every interior node."""
        return self._at_nodes(self.at_node, interior)

    def linearised(self, interior: Float[Array, " m"]) -> tuple[Float[Array, " m"], Array]:
        """The residuals and the bands ``(m, 3)`` of their Jacobian."""
        return self._at_nodes(jax.value_and_grad(self.at_node), interior)


class _State(NamedTuple):
    """What goes from one stage to the next."""

    interior: Float[Array, " m"]
    """At the last full time."""
    move: Float[Array, " m"]
    """By how much the stage since then differs from it; 0 before the first stage."""
    converged: Flag
    steps: Count
    """Newton steps so far."""
    squares: Scalar
    """Sum of the mean squared residuals of the stages so far."""


class MethodOfLines(AbstractSolutionOperator):
    """Central differences in space, an L-stable Runge-Kutta method of order 2 in time.

    For scalar problems on points (x, t) of first order in time and second order in space, linear or
    not, whose initial and boundary values are built into the lift. The error of u is O(h^2) in both
    steps for smooth solutions, and in space also where a field in theta has kinks. The derivatives
    in theta are those of the discrete solution; reverse mode is the discrete adjoint, one
    tridiagonal solve for each stage.

    The residual may use u, u_t, u_x and u_xx at its point only. There is no upwinding: advection
    must be resolved by diffusion (for conservation laws see `Godunov`).

    Examples:
        >>> class Heat(bilo.Problem):  # u_t = D u_xx from sin(pi x): u = exp(-D pi^2 t) sin(pi x)
        ...     parameters, components = ("D",), 1
        ...     domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
        ...     def residual(self, u, x, theta):
        ...         return bilo.partial(u, 1)(x) - theta["D"] * bilo.partial(u, 0, 0)(x)
        ...     def lift(self, x, raw, theta):
        ...         return jnp.sin(jnp.pi * x[0]) + x[1] * x[0] * (1 - x[0]) * raw
        >>> operator = bilo.MethodOfLines(Heat(), nodes=21, times=21, theta={"D": 0.1})
        >>> field, _, _ = eqx.filter_jit(operator.solve)({"D": 0.1}, operator.init_state())
        >>> round(float(field(jnp.array([0.5, 1.0]))), 2), round(float(np.exp(-0.1 * np.pi**2)), 2)
        (0.37, 0.37)
    """

    problem: Problem
    nodes: Shaped[Any, " n"]
    """Equidistant nodes in space, ends included."""
    times: Shaped[Any, " m"]
    """Equidistant times, ends included."""
    max_newton_steps: int = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        nodes: int = 201,
        times: int = 201,
        *,
        theta: Theta,
        max_newton_steps: int = 10,
    ):
        """Check the problem and make the grid.

        **Arguments**

        - ``nodes``, ``times``: numbers of nodes in space and of times, ends included, at least 5.
        - ``theta``: parameters at which the problem's definition is checked.
        - ``max_newton_steps``: for one stage.

        Raises a ``ValueError`` if the problem is not of this kind.
        """
        dtype = jnp.result_type(float)
        theta = admit(problem, theta, dtype)
        check_evolution("MethodOfLines", problem, theta, dtype)
        check_local("MethodOfLines", problem, theta, dtype)
        if min(nodes, times) < 5 or max_newton_steps < 1:
            raise ValueError(
                "MethodOfLines needs at least 5 nodes, 5 times and 1 Newton step, got "
                f"nodes={nodes}, times={times}, max_newton_steps={max_newton_steps}."
            )
        self.problem = problem
        in_space, in_time = extents(problem)
        self.nodes, self.times = np.linspace(*in_space, nodes), np.linspace(*in_time, times)
        self.max_newton_steps = max_newton_steps

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def refined(self) -> "MethodOfLines":
        """With half the distances of nodes and of times: a quarter of the error."""
        return replaced(self, nodes=halved(self.nodes), times=halved(self.times))

    def solve(self, theta: Theta, state: Any) -> tuple[GridField2D, Any, SolveInfo]:
        """The solution at ``theta`` on the space-time grid.

        ``steps`` counts Newton steps, the loss is the mean squared residual of all stages.
        ``converged`` is false where Newton's method failed in some stage; from then on the values
        stay what they were.
        """
        values, info = self._values(admit(self.problem, theta, jnp.result_type(float)))
        return GridField2D(self.nodes, self.times, values), state, info

    @eqx.filter_jit
    def _values(self, theta: Theta) -> tuple[Float[Array, "n m"], SolveInfo]:
        dtype = jnp.result_type(float)
        nodes, times = jnp.asarray(self.nodes, dtype), jnp.asarray(self.times, dtype)
        initial = initial_values(self.problem, nodes, times[0], theta)
        gamma = jnp.asarray(_GAMMA, dtype)
        dt = times[1] - times[0]
        # One loop over all stages, so that the equations of a stage are compiled once.
        stages = jnp.stack([times[1:] - (1 - gamma) * dt, times[1:]], axis=1).ravel()

        def one(state: _State, item):
            t, last = item
            base = state.interior + (1 / gamma - 1) * state.move
            guess = state.interior + state.move / gamma
            stage = _Stage(self.problem, nodes, base, t, gamma * dt, theta)
            return self._advance(stage, guess, state, last)

        zero = jnp.zeros((), dtype)
        inner = initial[1:-1]
        start = _State(inner, jnp.zeros_like(inner), jnp.array(True), jnp.array(0), zero)
        end, later = jax.lax.scan(one, start, (stages, jnp.arange(stages.size) % 2 == 1))
        finite = jnp.isfinite(end.squares)
        otherwise = jnp.where(finite, StopReason.STEP_LIMIT, StopReason.NOT_FINITE)
        info = SolveInfo.of(end.steps, end.squares / stages.size, end.converged, otherwise)
        rows = jax.vmap(lambda u, t: with_boundary(self.problem, nodes, u, t, theta))
        return jnp.concatenate([initial[None], rows(later[1::2], times[1:])]).T, info

    def _advance(self, stage: _Stage, guess: Array, state: _State, last: Flag):
        """Solve a stage; the last one of a time step ends it."""
        value, squares, steps, solved = self._solve(stage, guess)
        converged = state.converged & solved
        value = jnp.where(converged, value, state.interior)
        new = _State(
            interior=jnp.where(last, value, state.interior),
            move=jnp.where(last, 0, value - state.interior),
            converged=converged,
            steps=state.steps + steps,
            squares=state.squares + squares,
        )
        return new, value

    def _solve(self, stage: _Stage, guess: Array) -> tuple[Array, Scalar, Count, Flag]:
        """Newton's method; its last step has a constant Jacobian and carries the derivative."""
        fixed, guess = constant(stage), jax.lax.stop_gradient(guess)
        tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.5

        def is_small(update, near):
            return jnp.max(jnp.abs(update)) <= tolerance * jnp.max(jnp.abs(near))

        def unfinished(carry):
            near, _, update, steps = carry
            return (steps == 0) | (~is_small(update, near) & (steps < self.max_newton_steps))

        def newton(carry):
            near, _, update, steps = carry
            near = near - update
            residuals, bands = fixed.linearised(near)
            return near, bands, solve_tridiagonal(bands, residuals), steps + 1

        identity = jnp.tile(jnp.asarray([0, 1, 0], guess.dtype), (guess.size, 1))
        start = (guess, identity, jnp.zeros_like(guess), jnp.array(0))
        near, bands, update, steps = jax.lax.while_loop(unfinished, newton, start)
        solved = is_small(update, near) & jnp.all(jnp.isfinite(bands))
        near, bands = jnp.where(solved, near, guess), jnp.where(solved, bands, identity)
        value = near - solve_tridiagonal(bands, stage.residuals(near))
        squares = jnp.mean(fixed.residuals(jax.lax.stop_gradient(value)) ** 2)
        return value, squares, steps, solved

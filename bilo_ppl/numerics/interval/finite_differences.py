"""Finite differences for a two-point boundary value problem, differentiable in theta.

At an interior node the user's residual is evaluated on the quadratic through the node and its two
neighbours (second-order central differences). The solution is followed from a known theta by
continuation with Newton's method.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Field, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.numerics.grid_field import GridField, PiecewiseGridField
from bilo_ppl.numerics.interval.continuation import CONTRACTION, Path, follow, line
from bilo_ppl.numerics.interval.two_point import Scheme, make_grid
from bilo_ppl.numerics.stencils import check_local, constant, solve_tridiagonal
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["FiniteDifferences"]

_MET = 1e-2  # part of a condition that may be left: the error of a coarse grid


class FiniteDifferences(AbstractSolutionOperator):
    """Second-order central differences for a scalar problem on an interval.

    `solve` follows the branch of solutions from the base theta to the wanted one along a straight
    line, and ends with one Newton step that carries the derivative in theta (implicit function
    theorem). First derivatives of the discrete solution are exact; a reverse-mode gradient costs
    one more tridiagonal solve, the discrete adjoint. The error of u is O(h^2), also where a field
    in theta has kinks: fields enter by their values midway between nodes.

    The residual may use u, u' and u'' at its point x only, and theta must hold its numbers as
    leaves (scalars, arrays, Equinox fields), not in the closure of a function.

    Examples:
        >>> operator = bilo.FiniteDifferences(problem, nodes=101, theta=start)
        >>> field, _, info = eqx.filter_jit(operator.solve)({"r": 9.0}, operator.init_state())
        >>> point = jnp.array([0.5])
        >>> round(float(field(point)), 3), round(float(formula(point, {"r": 9.0})), 3)
        (0.213, 0.213)
        >>> bool(info.converged)
        True
    """

    problem: Problem
    theta: Theta
    """The base theta, from which every solve starts."""
    nodes: Shaped[Any, " n"]
    """Nodes, ends included; equidistant between the jumps."""
    values: Float[Array, " n"]
    """The solution at the base theta."""
    jumps: tuple[tuple[int, Callable], ...] = eqx.field(static=True)
    """Numbers of the nodes where u' jumps, and the jump there as a function of theta."""
    continuation_steps: int = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        nodes: int = 401,
        *,
        theta: Theta,
        guess: Field | None = None,
        jumps: Mapping[float, Callable[[Theta], Any]] | None = None,
        continuation_steps: int = 1,
        tolerance: float | None = None,
        max_steps: int = 200,
    ):
        """Solve at the base ``theta``, from ``guess``.

        **Arguments**

        - ``problem``: scalar, on an interval, with boundary values built into its lift.
        - ``nodes``: number of nodes, ends included, at least 5 between any two jumps.
        - ``theta``: base parameters; choose them where the wanted branch is known.
        - ``guess``: a function of a point ``(1,)`` near the solution at ``theta``; by default the
          lift of zero, which is enough for a linear problem.
        - ``jumps``: points where u' jumps by a known amount, a function of theta: a point source of
          strength s in ``u'' + s delta(x - z) = ...`` is ``{z: lambda theta: -s}``. The problem's
          conditions must say the same.
        - ``continuation_steps``: stops on the line from the base to the wanted theta that are
          tried first; more are put in where Newton's method needs them.
        - ``tolerance``: on the largest Newton update, relative to the largest ``|u|``; by default
          the square root of the machine precision, after which one more step is taken.
        - ``max_steps``: Newton steps, all stops and failed trials included.

        Raises a ``ValueError`` if the problem is not of this kind or Newton's method fails.
        """
        _check_kind(problem, continuation_steps)
        dtype = jnp.result_type(float)
        self.problem = problem
        self.theta = admit(problem, theta, dtype)
        check_local("FiniteDifferences", problem, self.theta, dtype)
        self.nodes, self.jumps = make_grid(problem, nodes, jumps or {})
        self.continuation_steps = continuation_steps
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.values = jnp.zeros(nodes, dtype)
        self.values = self._base(guess)
        self._check_conditions()

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def refined(self) -> "FiniteDifferences":
        """With half the distances of nodes, from the solution at the base theta."""
        return FiniteDifferences(
            self.problem,
            2 * len(self.nodes) - 1,
            theta=self.theta,
            guess=self._field(self.values),
            jumps={float(self.nodes[node]): jump for node, jump in self.jumps},
            continuation_steps=self.continuation_steps,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )

    def solve(
        self, theta: Theta, state: Any
    ) -> tuple[GridField | PiecewiseGridField, Any, SolveInfo]:
        """The solution at ``theta`` on the grid; the loss is the mean squared nodal residual.

        ``converged`` is false where the branch from the base theta cannot be followed to
        ``theta``; the interior values are then the last solution on the way, with derivative 0.
        """
        values, info = self._values(admit(self.problem, theta, jnp.result_type(float)))
        return self._field(values), state, info

    def _field(self, values: Float[Array, " n"]) -> GridField | PiecewiseGridField:
        ends = [0, *(node for node, _ in self.jumps), len(self.nodes) - 1]
        pieces = tuple(
            GridField(self.nodes[a : b + 1], values[a : b + 1]) for a, b in itertools.pairwise(ends)
        )
        return PiecewiseGridField(pieces) if self.jumps else pieces[0]

    @eqx.filter_jit
    def _values(self, theta: Theta) -> tuple[Float[Array, " n"], SolveInfo]:
        scheme = self._scheme()
        fixed_scheme, fixed = constant(scheme), constant(theta)
        way = line(constant(theta_as(self.theta, scheme.nodes.dtype)), fixed)
        stride = 1 / self.continuation_steps
        path = self._follow(fixed_scheme, way, self.values, stride, CONTRACTION)
        interior, converged = self._differentiable(scheme, fixed_scheme, path, theta, fixed)
        loss = jnp.mean(fixed_scheme.residuals(jax.lax.stop_gradient(interior), fixed) ** 2)
        used_up = path.steps >= self.max_steps
        otherwise = jnp.where(used_up, StopReason.STEP_LIMIT, StopReason.STUCK)
        info = SolveInfo.of(path.steps + 1, loss, converged, otherwise)
        return scheme.complete(interior, theta), info

    def _scheme(self) -> Scheme:
        return Scheme(self.problem, jnp.asarray(self.nodes, jnp.result_type(float)), self.jumps)

    def _follow(self, scheme, way, values, stride, contraction) -> Path:
        dtype = scheme.nodes.dtype
        start = jax.lax.stop_gradient(jnp.asarray(values, dtype))[1:-1]
        tolerance = float(jnp.finfo(dtype).eps) ** 0.5 if self.tolerance is None else self.tolerance

        def newton(interior, s):
            return scheme.newton(interior, way(s))

        return follow(newton, start, stride, contraction, tolerance, self.max_steps)

    def _differentiable(self, scheme, fixed_scheme, path, theta, fixed):
        """The last Newton step: its Jacobian is constant, its residual a function of theta."""
        reached = path.reached >= 1
        bands = fixed_scheme.bands(path.accepted, fixed)
        identity = jnp.asarray([0, 1, 0], bands.dtype)
        bands = jnp.where(reached & jnp.isfinite(bands), bands, identity)
        interior = path.accepted - solve_tridiagonal(bands, scheme.residuals(path.accepted, theta))
        converged = reached & jnp.all(jnp.isfinite(interior))
        return jnp.where(converged, interior, path.accepted), converged

    def _base(self, guess: Field | None) -> Float[Array, " n"]:
        scheme, theta = self._scheme(), self.theta
        zero = jnp.zeros((), scheme.nodes.dtype)
        start = guess or (lambda x: self.problem.lift(x, zero, theta))
        values = jax.vmap(start)(scheme.nodes[:, None])
        if values.shape != self.nodes.shape or not np.isfinite(values).all():
            raise ValueError(
                "FiniteDifferences: guess must give a finite scalar at every node; its values "
                f"have shape {values.shape[1:]} at a point, {np.isfinite(values).sum()} finite."
            )
        path, values = self._solve_base(values)
        if not path.reached >= 1:
            raise ValueError(
                f"FiniteDifferences: Newton's method did not converge at the base theta {theta} in "
                f"{path.steps} steps; give a better guess or a theta where the solution is known."
            )
        return values

    @eqx.filter_jit
    def _solve_base(self, values: Float[Array, " n"]) -> tuple[Path, Float[Array, " n"]]:
        scheme, theta = self._scheme(), self.theta
        path = self._follow(scheme, lambda s: theta, values, 1.0, jnp.inf)
        return path, scheme.complete(scheme.newton(path.accepted, theta), theta)

    def _check_conditions(self) -> None:
        problem, theta = self.problem, self.theta
        met = problem.conditions(self._field(self.values), theta)
        unmet = problem.conditions(self._field(jnp.zeros_like(self.values)), theta)
        for name in met:
            left, size = (float(jnp.max(jnp.abs(rows[name]))) for rows in (met, unmet))
            if not left <= _MET * size:
                raise ValueError(
                    f"FiniteDifferences: {type(problem).__name__} has further conditions: {name!r} "
                    f"is {left:.3g} for the solution and {size:.3g} for u = 0. Only jumps of u' can "
                    "be imposed (the argument jumps), on a grid fine enough."
                )


def _check_kind(problem: Problem, continuation_steps: int) -> None:
    name = type(problem).__name__
    if problem.domain.dimension != 1 or problem.components != 1:
        raise ValueError(
            f"FiniteDifferences solves scalar problems on an interval; {name} has "
            f"{problem.components} components in {problem.domain.dimension} dimensions."
        )
    if continuation_steps < 1:
        raise ValueError(
            f"FiniteDifferences needs at least 1 continuation step, got {continuation_steps}."
        )

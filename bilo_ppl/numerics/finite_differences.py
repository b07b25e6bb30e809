"""Finite differences for a two-point boundary value problem, differentiable in theta.

At an interior node the user's residual is evaluated on the quadratic through the node and its two
neighbours, so that ``grad`` and ``laplacian`` become second-order central differences and the
Jacobian of the nodal residuals is tridiagonal. The solution is followed from a known theta by
continuation with Newton's method, each step of which must contract (Deuflhard, *Newton Methods for
Nonlinear Problems*, 2011, chapter 5): that keeps it on its branch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Count, Field, Flag, Scalar, Theta
from bilo_ppl.problem import Problem, check_theta, theta_as
from bilo_ppl.solution_operators import AbstractSolutionOperator, SolveInfo

__all__ = ["FiniteDifferences", "GridField"]

_SMALLEST_STRIDE = 2.0**-10
_CONTRACTION = 0.1
_ON_THE_WAY = 1e-4  # tolerance before the end of the line


class GridField(eqx.Module):
    """A function on an interval from its values at equidistant nodes.

    Between nodes it is the cubic through the four nearest ones, with error O(h^4) in u, O(h^3) in
    u' and O(h^2) in u''; u itself is continuous. Outside the interval the end cubics are continued.
    """

    nodes: Shaped[Any, " n"]
    values: Shaped[Any, " n"]

    def __call__(self, x: Shaped[Any, "..."]) -> Scalar:
        """The value at a point of shape ``(1,)`` or ``()``."""
        values = jnp.asarray(self.values)
        nodes = jnp.asarray(self.nodes, values.dtype)
        n = nodes.shape[0]
        t = (jnp.reshape(jnp.asarray(x), ()) - nodes[0]) * (n - 1) / (nodes[-1] - nodes[0])
        cell = jnp.clip(jnp.floor(jax.lax.stop_gradient(t)).astype(int), 1, n - 3)
        a, b, c, d = values[cell - 1], values[cell], values[cell + 1], values[cell + 2]
        s = t - cell
        # Newton's form of the interpolating cubic: b + s (c - b) + ..., by differences.
        second, third = a - 2 * b + c, d - a + 3 * (b - c)
        return b + s * (c - b + (s - 1) * (second / 2 + (s + 1) * third / 6))


class _Scheme(eqx.Module):
    """The nodal residuals of a problem on a grid, and their Jacobian."""

    problem: Problem
    nodes: Float[Array, " n"]

    def complete(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, " n"]:
        """Nodal values with the boundary values, which `lift` gives for any raw value."""
        zero = jnp.zeros((), self.nodes.dtype)
        left = self.problem.lift(self.nodes[:1], zero, theta)
        right = self.problem.lift(self.nodes[-1:], zero, theta)
        return jnp.concatenate([jnp.reshape(left, (1,)), interior, jnp.reshape(right, (1,))])

    def at_node(self, stencil: Float[Array, "3"], x: Scalar, theta: Theta) -> Any:
        """The residual of the quadratic through three neighbours, at the middle one."""
        h = (self.nodes[-1] - self.nodes[0]) / (self.nodes.size - 1)
        left, middle, right = stencil
        slope = (right - left) / (2 * h)
        curvature = ((right - middle) - (middle - left)) / h**2

        def u(y):
            distance = jnp.reshape(y, ()) - x
            return middle + distance * (slope + distance * curvature / 2)

        return self.problem.residual(u, x[None], theta)

    def _at_nodes(self, function: Callable, interior, theta):
        full = self.complete(interior, theta)
        stencils = jnp.stack([full[:-2], full[1:-1], full[2:]], axis=-1)
        return jax.vmap(lambda s, x: function(s, x, theta))(stencils, self.nodes[1:-1])

    def residuals(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, " m"]:
        """The residual at every interior node."""
        return self._at_nodes(self.at_node, interior, theta)

    def bands(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, "m 3"]:
        """The Jacobian of the residuals: entries left of, on and right of the diagonal."""
        return self._at_nodes(jax.grad(self.at_node), interior, theta)

    def newton(self, interior: Float[Array, " m"], theta: Theta) -> Float[Array, " m"]:
        """One undamped Newton step."""
        return interior - _solve(self.bands(interior, theta), self.residuals(interior, theta))


def _solve(bands: Float[Array, "m 3"], right_side: Float[Array, " m"]) -> Float[Array, " m"]:
    lower, diagonal, upper = bands.at[0, 0].set(0).at[-1, 2].set(0).T
    return jax.lax.linalg.tridiagonal_solve(lower, diagonal, upper, right_side[:, None])[:, 0]


class _Path(NamedTuple):
    """Where the continuation stands; theta runs along a line from 0 to 1."""

    reached: Scalar
    """The furthest point of the line at which the solution is known."""
    stride: Scalar
    accepted: Float[Array, " m"]
    """The solution at ``reached``."""
    trial: Float[Array, " m"]
    """Newton's iterate for ``reached + stride``."""
    update: Scalar
    """Size of Newton's last update of ``trial``, infinite before the first."""
    steps: Count


def _distance(a: Array, b: Array) -> Scalar:
    return jnp.max(jnp.abs(a - b))


def _follow(
    newton: Callable[[Array, Scalar], Array],
    start: Float[Array, " m"],
    stride: float,
    contraction: float,
    tolerance: float,
    max_steps: int,
) -> _Path:
    """Follow a solution along a line, one Newton step ``newton(u, s)`` at a time.

    A trial is given up and the stride halved if its updates fail to shrink by ``contraction``,
    or if one step from the new solution back to ``reached`` misses the old one by more than that
    (the trial has then left the branch). After a success the stride is doubled.
    ``reached < 1`` in the result means failure.
    """
    size = jnp.max(jnp.abs(start))

    def step(path: _Path) -> _Path:
        target = jnp.minimum(path.reached + path.stride, 1)
        trial = newton(path.trial, target)
        update = _distance(trial, path.trial)
        scale = jnp.maximum(size, jnp.max(jnp.abs(trial)))
        small = scale * jnp.where(target < 1, max(tolerance, _ON_THE_WAY), tolerance)

        def leads_back():
            error = _distance(newton(trial, path.reached), path.accepted)
            return (error <= small) | (error <= contraction * _distance(trial, path.accepted))

        still = update <= small
        done = jax.lax.cond(still, leads_back, lambda: still)
        shrinks = jnp.isfinite(update) & (update <= contraction * path.update)
        failed = ~done & (still | ~shrinks)
        accepted = jnp.where(done, trial, path.accepted)
        return _Path(
            reached=jnp.where(done, target, path.reached),
            stride=jnp.where(done, 2, jnp.where(failed, 0.5, 1)) * path.stride,
            accepted=accepted,
            trial=jnp.where(failed, accepted, trial),
            update=jnp.where(done | failed, jnp.inf, update),
            steps=path.steps + 1,
        )

    def unfinished(path: _Path) -> Flag:
        return (path.reached < 1) & (path.stride >= _SMALLEST_STRIDE) & (path.steps < max_steps)

    zero, one = jnp.zeros((), start.dtype), jnp.ones((), start.dtype)
    first = _Path(zero, stride * one, start, start, jnp.inf * one, jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, step, first)


def _constant(tree: Any) -> Any:
    """The pytree with no derivative through its arrays."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)


def _line(start: Theta, end: Theta) -> Callable[[Scalar], Theta]:
    """The straight line between two thetas that differ in their floating-point arrays only."""
    first, last = ({name: _shapes(theta[name]) for name in theta} for theta in (start, end))
    if first != last:
        raise ValueError(
            f"FiniteDifferences.solve: the arrays of theta have the shapes {last}; they must be "
            f"those of the base theta, {first}."
        )
    leaves, rest = eqx.partition(end, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(leaves)
    origin = jax.tree.leaves(eqx.filter(start, eqx.is_inexact_array))

    def at(s):
        between = [(1 - s) * a + s * b for a, b in zip(origin, leaves, strict=True)]
        return eqx.combine(jax.tree.unflatten(tree, between), rest)

    return at


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]


class FiniteDifferences(AbstractSolutionOperator):
    """Second-order central differences for a scalar problem on an interval.

    `solve` follows the branch of solutions from the base theta to the wanted one along a straight
    line, and ends with one Newton step that carries the derivative in theta (implicit function
    theorem). First derivatives of the discrete solution are exact; a reverse-mode gradient costs
    one more tridiagonal solve, the discrete adjoint. The error of u is O(h^2); coefficients with a
    kink need a node beside it, not on it, and lower the order.

    The residual may use u, u' and u'' at its point x only, and theta must hold its numbers as
    leaves (scalars, arrays, Equinox fields), not in the closure of a function.
    """

    problem: Problem
    theta: Theta
    """The base theta, from which every solve starts."""
    nodes: Shaped[Any, " n"]
    """Equidistant nodes, ends included."""
    values: Float[Array, " n"]
    """The solution at the base theta."""
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
        continuation_steps: int = 1,
        tolerance: float | None = None,
        max_steps: int = 200,
    ):
        """Solve at the base ``theta``, from ``guess``.

        **Arguments**

        - ``problem``: scalar, on an interval, with boundary values built into its lift.
        - ``nodes``: number of equidistant nodes, ends included, at least 5.
        - ``theta``: base parameters; choose them where the wanted branch is known.
        - ``guess``: a function of a point ``(1,)`` near the solution at ``theta``; by default the
          lift of zero, which is enough for a linear problem.
        - ``continuation_steps``: stops on the line from the base to the wanted theta that are
          tried first; more are put in where Newton's method needs them.
        - ``tolerance``: on the largest Newton update, relative to the largest ``|u|``; by default
          the square root of the machine precision, after which one more step is taken.
        - ``max_steps``: Newton steps, all stops and failed trials included.

        Raises a ``ValueError`` if the problem is not of this kind or Newton's method fails.
        """
        _check_kind(problem, nodes, continuation_steps)
        check_theta(problem, theta)
        dtype = jnp.result_type(float)
        self.problem = problem
        self.theta = theta_as(theta, dtype)
        self.nodes = problem.domain.grid(nodes)[:, 0]
        self.continuation_steps = continuation_steps
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.values = jnp.zeros(nodes, dtype)
        self.values = self._base(guess)

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def solve(self, theta: Theta, state: Any) -> tuple[GridField, Any, SolveInfo]:
        """The solution at ``theta``, a `GridField`; the loss is the mean squared nodal residual.

        ``converged`` is false where the branch from the base theta cannot be followed to
        ``theta``; the interior values are then the last solution on the way, with derivative 0.
        """
        values, info = self._values(theta_as(theta, jnp.result_type(float)))
        return GridField(self.nodes, values), state, info

    @eqx.filter_jit
    def _values(self, theta: Theta) -> tuple[Float[Array, " n"], SolveInfo]:
        scheme = self._scheme()
        fixed_scheme, fixed = _constant(scheme), _constant(theta)
        line = _line(_constant(theta_as(self.theta, scheme.nodes.dtype)), fixed)
        stride = 1 / self.continuation_steps
        path = self._follow(fixed_scheme, line, self.values, stride, _CONTRACTION)
        interior, converged = self._differentiable(scheme, fixed_scheme, path, theta, fixed)
        loss = jnp.mean(fixed_scheme.residuals(jax.lax.stop_gradient(interior), fixed) ** 2)
        return scheme.complete(interior, theta), SolveInfo(path.steps + 1, loss, converged)

    def _scheme(self) -> _Scheme:
        return _Scheme(self.problem, jnp.asarray(self.nodes, jnp.result_type(float)))

    def _follow(self, scheme, line, values, stride, contraction) -> _Path:
        dtype = scheme.nodes.dtype
        start = jax.lax.stop_gradient(jnp.asarray(values, dtype))[1:-1]
        tolerance = float(jnp.finfo(dtype).eps) ** 0.5 if self.tolerance is None else self.tolerance

        def newton(interior, s):
            return scheme.newton(interior, line(s))

        return _follow(newton, start, stride, contraction, tolerance, self.max_steps)

    def _differentiable(self, scheme, fixed_scheme, path, theta, fixed):
        """The last Newton step: its Jacobian is constant, its residual a function of theta."""
        reached = path.reached >= 1
        bands = fixed_scheme.bands(path.accepted, fixed)
        identity = jnp.asarray([0, 1, 0], bands.dtype)
        bands = jnp.where(reached & jnp.isfinite(bands), bands, identity)
        interior = path.accepted - _solve(bands, scheme.residuals(path.accepted, theta))
        converged = reached & jnp.all(jnp.isfinite(interior))
        return jnp.where(converged, interior, path.accepted), converged

    def _base(self, guess: Field | None) -> Float[Array, " n"]:
        scheme, theta = self._scheme(), self.theta
        _check_residual(scheme, theta)
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
    def _solve_base(self, values: Float[Array, " n"]) -> tuple[_Path, Float[Array, " n"]]:
        scheme, theta = self._scheme(), self.theta
        path = self._follow(scheme, lambda s: theta, values, 1.0, jnp.inf)
        return path, scheme.complete(scheme.newton(path.accepted, theta), theta)


def _check_kind(problem: Problem, nodes: int, continuation_steps: int) -> None:
    name = type(problem).__name__
    if problem.domain.dimension != 1 or problem.components != 1:
        raise ValueError(
            f"FiniteDifferences solves scalar problems on an interval; {name} has "
            f"{problem.components} components in {problem.domain.dimension} dimensions."
        )
    if nodes < 5 or continuation_steps < 1:
        raise ValueError(
            "FiniteDifferences needs at least 5 nodes and 1 continuation step, got "
            f"nodes={nodes}, continuation_steps={continuation_steps}."
        )


def _check_residual(scheme: _Scheme, theta: Theta) -> None:
    problem, name = scheme.problem, type(scheme.problem).__name__
    stencil, x = jnp.zeros(3, scheme.nodes.dtype), scheme.nodes[1]
    shape = jax.eval_shape(scheme.at_node, stencil, x, theta).shape
    if shape != ():
        raise ValueError(
            f"FiniteDifferences: {name}.residual has shape {shape} at a point; it must be a scalar."
        )
    field = GridField(scheme.nodes, jnp.zeros_like(scheme.nodes))
    if problem.conditions(field, theta):
        raise ValueError(
            f"FiniteDifferences imposes the residual and the lift of a problem, but {name} has "
            "further conditions."
        )

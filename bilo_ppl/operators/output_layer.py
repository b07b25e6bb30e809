"""Fine-tuning of the output layer alone: for a PDE linear in u a linear least-squares problem.

With features phi_k(x) that stay, u = lift(x, sum_k c_k phi_k(x)), and the weights c minimise

    F(c; theta) = |rows(c; theta)|^2 + ridge |c - c_0|^2,

with the rows of the lower level, c_0 the stored weights, and a ridge so small that it only decides what
the rows leave open in working precision. One Gauss-Newton step solves it where the rows are affine in c.
The derivative in theta is that of the minimiser, dc/dtheta = -H^-1 d(grad_c F)/dtheta / 2 with the full
Hessian: with the rows' own second derivatives, and with the term in dJ/dtheta, which counts where the
rows cannot vanish.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Field, Key, Rows, Scalar, Theta, Weights
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.inner.solvers import LevenbergMarquardt
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.network.features import (
    Polynomials,
    blinded,
    features,
    output_weights,
    with_output_weights,
)
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["OutputLayer"]

ORDERS = (2, 3, 4)
"""Orders of derivatives that a residual may have; the least that reproduces it is taken."""

RIDGE = 4.0
"""In units of what rounding makes of the smallest eigenvalue of the normal matrix at home."""

TRIED = 8
"""Points at which polynomials are compared with the network."""

ENOUGH = 1e-6
"""Part of the objective below which a predicted decrease is nothing."""

HALVINGS = 4
"""How often a step that does not lower the objective is halved."""


class OutputSolution(eqx.Module):
    """The solution at one theta: a function of a point."""

    operator: LocalOperator
    weights: Float[Array, "components features"]
    theta: Theta

    def __call__(self, x):
        """Value at a point ``(d,)`` (in one dimension also a scalar): a scalar or (components,)."""
        operator = self.operator
        x = jnp.atleast_1d(x).astype(operator.dtype)
        return _lifted(operator.problem, x, self.weights @ features(operator, x), self.theta)


class _NearPoint(eqx.Module):
    """The same near a collocation point, by Taylor polynomials."""

    problem: Problem
    point: Any
    derivatives: tuple[Any, ...]
    weights: Float[Array, "components features"]
    theta: Theta

    def __call__(self, x):
        raw = Polynomials.value(self.derivatives, self.weights, x - self.point)
        return _lifted(self.problem, x, raw, self.theta)


def _lifted(problem: Problem, x: Any, raw: Any, theta: Theta) -> Any:
    return problem.lift(x, raw if problem.components > 1 else raw[0], theta)


class OutputLayer(AbstractSolutionOperator):
    """BiLO with the output layer as the only weights: the features are those at home, for every theta.

    For problems that are linear in u, with many parameters or unknown functions: nothing is adapted.
    How right a solution can be is up to the features: let there be a few hundred of them
    (``width``), and at least twice as many collocation points.

    ``operator`` is a trained `LocalOperator` whose network is an `MLP`; it is taken in default
    precision, since features are nearly dependent. ``theta`` is where it was trained. A solve has
    converged where its loss, without the ridge, is at most ``tolerance``; ``max_steps`` limits the
    Gauss-Newton steps for a problem that is not linear. Raises a ``ValueError`` if the network's inputs
    depend on theta, or the residual has derivatives of more than fourth order.
    """

    operator: LocalOperator
    tolerance: float
    max_steps: int = eqx.field(static=True)
    table: Polynomials
    ridge: Scalar
    linear: bool = eqx.field(static=True)
    """Whether one step is the solution."""

    def __init__(
        self, operator: LocalOperator, theta: Theta, *, tolerance: float, max_steps: int = 20
    ):
        if not tolerance > 0 or max_steps < 1:
            raise ValueError(
                f"OutputLayer: tolerance={tolerance} must be positive, max_steps={max_steps} at least 1."
            )
        if type(operator.problem).inputs is not Problem.inputs:
            raise ValueError(
                f"OutputLayer: the inputs of the network are {type(operator.problem).__name__}'s own, "
                "and may depend on theta; features that stay need the point alone."
            )
        self.operator = blinded(operator).astype(jnp.result_type(float))
        self.tolerance, self.max_steps = tolerance, max_steps
        theta = admit(operator.problem, theta, self.operator.dtype)
        self.table = self._tabulated(theta)
        self.linear = bool(jit_once(self._is_linear)(theta))
        self.ridge = jit_once(self._ridge)(theta)

    def _tabulated(self, theta: Theta) -> Polynomials:
        """Polynomials of the least order by which the residual is what it is by the network."""
        points = self.operator.points
        tried = points[:: max(1, len(points) // TRIED)]

        def residuals(table):
            weights = self._random(jax.random.key(0))
            by_network = OutputSolution(self.operator, weights, theta)
            exact = jax.vmap(lambda x: self._residual(by_network, x, theta))(tried)
            return exact, jax.vmap(lambda x, d: self._near(x, d, weights, theta))(*table)

        for order in ORDERS:
            table = Polynomials.of(self.operator, tried, order)
            exact, near = jit_once(residuals)((table.points, table.derivatives))
            if jnp.max(jnp.abs(near - exact)) <= self._rounding * jnp.max(jnp.abs(exact)):
                return Polynomials.of(self.operator, points, order)
        raise ValueError(
            f"OutputLayer: derivatives up to order {ORDERS[-1]} do not give the residual of "
            f"{type(self.problem).__name__}; it may only ask for derivatives of u at its point."
        )

    def _random(self, key: Key) -> Float[Array, "components features"]:
        """Weights that no problem is special at."""
        stored = output_weights(self.operator)
        return stored + jax.random.normal(key, stored.shape, stored.dtype)

    @property
    def _rounding(self) -> float:
        """Relative difference of what is the same but for rounding."""
        return float(jnp.finfo(self.operator.dtype).eps) ** 0.5

    @property
    def problem(self) -> Problem:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The PDE."""
        return self.operator.problem

    @property
    def loss_tolerance(self) -> float:
        """Largest loss of a converged solve."""
        return self.tolerance

    @property
    def home(self) -> Mapping[str, Array]:
        """Where the stored weights solve."""
        return self.operator.home

    def init_state(self) -> Float[Array, "components features"]:
        """The stored weights."""
        return output_weights(self.operator)

    # --- the lower level -------------------------------------------------------------------------

    def _residual(self, u: Field, x: Any, theta: Theta) -> Rows:
        return jnp.atleast_1d(self.problem.residual(u, x, theta))

    def _near(self, point: Any, derivatives: Any, weights: Any, theta: Theta) -> Rows:
        u = _NearPoint(self.problem, point, derivatives, weights, theta)
        return self._residual(u, point, theta)

    def _rows(self, weights: Weights, theta: Theta) -> list[Rows]:
        """Residuals, scaled so that their squares add up to the mean square, and conditions."""
        table = self.table
        rows = jax.vmap(lambda x, d: self._near(x, d, weights, theta))(
            table.points, table.derivatives
        )
        u = OutputSolution(self.operator, weights, theta)
        conditions = self.problem.conditions(u, theta)
        found = [jnp.atleast_1d(conditions[name]).ravel() for name in sorted(conditions)]
        return [rows.ravel() / np.sqrt(len(table.points)), *found]

    def _flat_rows(self, theta: Theta, flat: Any) -> Rows:
        return jnp.concatenate(self._rows(flat.reshape(self.init_state().shape), theta))

    def _jacobian(self, theta: Theta, flat: Any) -> Float[Array, "rows p"]:
        """Row by row: a residual knows the features at its point only."""
        shape, table = self.init_state().shape, self.table

        def at_point(x, derivatives):
            return jax.jacrev(lambda w: self._near(x, derivatives, w.reshape(shape), theta))(flat)

        blocks = jax.vmap(at_point)(table.points, table.derivatives)
        scaled = blocks.reshape(-1, flat.size) / np.sqrt(len(table.points))
        others = jax.jacrev(
            lambda w: jnp.concatenate([jnp.zeros(0), *self._rows(w.reshape(shape), theta)[1:]])
        )(flat)
        return jnp.concatenate([scaled, others])

    def _is_linear(self, theta: Theta) -> Any:
        """Whether the rows are affine in the weights, by their values at random ones."""
        first, second = (self._random(jax.random.key(k)).ravel() for k in (1, 2))
        rows = partial(self._flat_rows, theta)
        middle, mean = rows((first + second) / 2), (rows(first) + rows(second)) / 2
        size = jnp.max(jnp.abs(rows(first) - rows(second)))
        return jnp.max(jnp.abs(middle - mean)) <= self._rounding * size

    def _ridge(self, theta: Theta) -> Scalar:
        J = self._jacobian(theta, self.init_state().ravel())
        return RIDGE * jnp.finfo(J.dtype).eps * jnp.sum(J**2)

    # --- solves ------------------------------------------------------------------------------------

    def solve(self, theta: Theta, state: Weights) -> tuple[Field, Weights, SolveInfo]:
        """The minimiser at theta, from the weights ``state``, and its derivative."""
        theta = admit(self.problem, theta, self.operator.dtype)
        arrays, static = eqx.partition((theta, state), eqx.is_array)
        fixed, start = eqx.combine(jax.lax.stop_gradient(arrays), static)
        flat, factor, steps = self._minimised(fixed, start.ravel())
        flat, factor = jax.lax.stop_gradient((flat, factor))
        loss = jnp.sum(self._flat_rows(fixed, flat) ** 2)
        converged = (loss <= self.tolerance) & jnp.isfinite(loss)
        finite = jnp.isfinite(loss)
        otherwise = jnp.where(finite, StopReason.STUCK, StopReason.NOT_FINITE)
        info = SolveInfo.of(steps, loss, converged, otherwise)
        # A Newton step that hardly moves, for the sake of its derivative.
        moved = flat - cho_solve((factor, True), self._gradient(theta, flat))
        shape = self.init_state().shape
        return OutputSolution(self.operator, moved.reshape(shape), theta), flat.reshape(shape), info

    def _gradient(self, theta: Theta, flat: Any) -> Any:
        """Half of the gradient of the objective."""
        rows, pull = jax.vjp(partial(self._flat_rows, theta), flat)
        return pull(rows)[0] + self.ridge * (flat - self.init_state().ravel())

    def _minimised(self, theta: Theta, flat: Any) -> tuple[Any, Any, Any]:
        """Weights of least objective, the factor of its Hessian there, and the number of steps."""
        if self.linear:
            rows, J = self._flat_rows(theta, flat), self._jacobian(theta, flat)
            factor = self._factor(J.T @ J)
            away = flat - self.init_state().ravel()
            return (
                flat - cho_solve((factor, True), J.T @ rows + self.ridge * away),
                factor,
                jnp.array(1),
            )
        flat, steps = self._iterated(theta, flat)
        hessian = jax.jacfwd(partial(self._gradient, theta))(flat)
        return flat, self._factor(hessian - self.ridge * jnp.eye(flat.size)), steps

    def _factor(self, normal: Any) -> Any:
        return cho_factor(normal + self.ridge * jnp.eye(len(normal)), lower=True)[0]

    def _objective(self, theta: Theta, flat: Any) -> Scalar:
        away = flat - self.init_state().ravel()
        return jnp.sum(self._flat_rows(theta, flat) ** 2) + self.ridge * jnp.sum(away**2)

    def _iterated(self, theta: Theta, flat: Any) -> tuple[Any, Any]:
        """Gauss-Newton steps, halved where they are too long."""
        objective = partial(self._objective, theta)

        def step(carry):
            flat, value, count, _ = carry
            J, gradient = self._jacobian(theta, flat), self._gradient(theta, flat)
            full = cho_solve((self._factor(J.T @ J), True), gradient)
            lengths = 0.5 ** jnp.arange(HALVINGS)
            tried = jax.vmap(lambda s: objective(flat - s * full))(lengths)
            best = jnp.nanargmin(jnp.where(jnp.isfinite(tried), tried, jnp.inf))
            better = tried[best] < value
            done = ~better | (gradient @ full <= ENOUGH * value)
            moved = jnp.where(better, flat - lengths[best] * full, flat)
            return moved, jnp.where(better, tried[best], value), count + 1, done

        def go_on(carry):
            return ~carry[3] & (carry[2] < self.max_steps)

        start = (flat, objective(flat), jnp.array(0), jnp.array(False))
        flat, _, steps, _ = jax.lax.while_loop(go_on, step, start)
        return flat, steps

    # --- what others ask of an operator --------------------------------------------------------------

    def to_tolerance(self, tolerance: float) -> "OutputLayer":
        """With another tolerance."""
        return eqx.tree_at(lambda o: o.tolerance, self, tolerance)

    def settled(self, theta: Theta, state: Weights, *, key: Key) -> "OutputLayer":
        """With the weights ``state`` as its own."""
        local = with_output_weights(self.operator, state)
        known = {n: v for n, v in theta_as(theta, local.dtype).items() if not callable(v)}
        local = eqx.tree_at(lambda o: o.home, local, known)
        return eqx.tree_at(lambda o: o.operator, self, local)

    @property
    def _all_weights(self) -> FineTuned:
        solver = LevenbergMarquardt(tolerance=self.tolerance, max_steps=self.max_steps)
        local = self.operator.with_lora(0, key=jax.random.key(0))
        return FineTuned(local, solver, PartialDerivative())

    def tightened(self, factor: float, max_steps: int) -> FineTuned:
        """All weights, at five times as many points: the features are part of the error."""
        return self._all_weights.tightened(factor, max_steps)

    def corrected_near(self, theta: Theta, factor: float, max_steps: int) -> FineTuned | None:
        """The same, by corrections that are linear in all weights."""
        return self._all_weights.corrected_near(theta, factor, max_steps)

    @property
    def can_be_fitted(self) -> bool:
        """There is nothing to fit, and every theta is as near as home."""
        return True

    def loss_of_home_state(self, theta: Theta) -> Scalar:
        """Loss at ``theta`` after a solve: that is what a check costs here."""
        return self.solve(theta, self.init_state())[2].loss

    def fitted_to(
        self,
        thetas: Theta,
        *,
        rank: int,
        steps: int,
        key: Key,
        progress: bool,
        mesh: Mesh | None = None,
    ) -> tuple["OutputLayer", FitReport]:
        """The operator as it is, with its mean loss over ``thetas``."""
        loss = float(jnp.mean(jax.lax.map(self.loss_of_home_state, thetas)))
        reached = loss <= self.tolerance
        report = FitReport(loss, {"residual": loss}, 0, reached, self.tolerance, 0.0, [(0, loss)])
        return self, report

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
from jax.lax.linalg import cholesky
from jax.scipy.linalg import cho_solve
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bilo_ppl._types import Field, Key, Scalar, Theta, Weights
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.output_level import OutputLevel, output_level
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.inner.solvers import LevenbergMarquardt
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.network.features import (
    blinded,
    is_one_layer,
    output_weights,
    with_more_features,
    with_output_weights,
)
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["OutputLayer"]

RIDGE = 4.0
"""In units of what rounding makes of the smallest eigenvalue of the normal matrix at home."""

ENOUGH = 1e-6
"""Part of the objective below which a predicted decrease is nothing."""

MORE = 1.5
"""Features, in units of its own, that a better operator has beside them."""

LESS = 10.0
"""How many times smaller the loss of a better operator has to be."""

HALVINGS = 4
"""How often a step that does not lower the objective is halved."""


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

    level: OutputLevel
    at: Theta
    """Where it was made."""
    tolerance: float
    ridge: Scalar
    max_steps: int = eqx.field(static=True)
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
        operator = blinded(operator).astype(jnp.result_type(float))
        theta = admit(operator.problem, theta, operator.dtype)
        self.level, self.at = output_level(operator, theta), theta
        self.tolerance, self.max_steps = tolerance, max_steps
        self.linear = self.level.is_linear(theta)
        self.ridge = RIDGE * jnp.finfo(operator.dtype).eps * self.level.trace(theta)

    @property
    def operator(self) -> LocalOperator:
        """Features and stored weights as a local operator, which does not follow theta."""
        return self.level.operator

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

    def solve(self, theta: Theta, state: Weights) -> tuple[Field, Weights, SolveInfo]:
        """The minimiser at theta, from the weights ``state``, and its derivative."""
        theta = admit(self.problem, theta, self.operator.dtype)
        arrays, static = eqx.partition((theta, state), eqx.is_array)
        fixed, start = eqx.combine(jax.lax.stop_gradient(arrays), static)
        flat, factor, steps = self._minimised(fixed, start.ravel())
        flat, factor = jax.lax.stop_gradient((flat, factor))
        loss = jnp.sum(self.level.rows(fixed, flat) ** 2)
        finite, known = jnp.isfinite(loss), self.level.knows(fixed, flat)
        converged = (loss <= self.tolerance) & finite & known
        otherwise = jnp.where(known, StopReason.STUCK, StopReason.INVALID)
        otherwise = jnp.where(finite, otherwise, StopReason.NOT_FINITE)
        info = SolveInfo.of(steps, loss, converged, otherwise)
        # A Newton step that hardly moves, for the sake of its derivative.
        moved = flat - cho_solve((factor, True), self._gradient(theta, flat))
        return self.level.solution(theta, moved), flat.reshape(self.level.shape), info

    def _gradient(self, theta: Theta, flat: Any) -> Any:
        """Half of the gradient of the objective."""
        away = flat - self.init_state().ravel()
        return self.level.gradient(theta, flat) + self.ridge * away

    def _minimised(self, theta: Theta, flat: Any) -> tuple[Any, Any, Any]:
        """Weights of least objective, the factor of its Hessian there, and the number of steps."""
        if self.linear:
            rows, J = self.level.rows(theta, flat), self.level.jacobian(theta, flat)
            factor = self._factor(_lower_gram(J))
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
        """Of a normal matrix without the ridge, of which the lower triangle counts."""
        return cholesky(normal + self.ridge * jnp.eye(len(normal)), symmetrize_input=False)

    def _objective(self, theta: Theta, flat: Any) -> Scalar:
        away = flat - self.init_state().ravel()
        return jnp.sum(self.level.rows(theta, flat) ** 2) + self.ridge * jnp.sum(away**2)

    def _iterated(self, theta: Theta, flat: Any) -> tuple[Any, Any]:
        """Gauss-Newton steps, halved where they are too long."""
        objective = partial(self._objective, theta)

        def step(carry):
            flat, value, count, _ = carry
            J, gradient = self.level.jacobian(theta, flat), self._gradient(theta, flat)
            full = cho_solve((self._factor(_lower_gram(J)), True), gradient)
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

    def to_tolerance(self, tolerance: float) -> "OutputLayer":
        """With another tolerance."""
        return eqx.tree_at(lambda o: o.tolerance, self, tolerance)

    def settled(self, theta: Theta, state: Weights, *, key: Key) -> "OutputLayer":
        """With the weights ``state`` as its own."""
        local = with_output_weights(self.operator, jnp.asarray(state))
        known = {n: v for n, v in theta_as(theta, local.dtype).items() if not callable(v)}
        local = eqx.tree_at(lambda o: o.home, local, known)
        return eqx.tree_at(lambda o: o.level.operator, self, local)

    @property
    def _all_weights(self) -> FineTuned:
        solver = LevenbergMarquardt(tolerance=self.tolerance, max_steps=self.max_steps)
        local = self.operator.with_lora(0, key=jax.random.key(0))
        return FineTuned(local, solver, PartialDerivative())

    def tightened(self, factor: float, max_steps: int) -> "OutputLayer | FineTuned":
        """More features at more points, or all weights there: the features are part of the error."""
        richer = self._with_more_features(self.at, factor)
        return self._all_weights.tightened(factor, max_steps) if richer is None else richer

    def state_for(self, tight: Any, state: Weights) -> Weights:
        """All weights of a network with the output layer ``state``, or a batch of them."""
        if state.ndim > 2:
            return jax.vmap(lambda one: self.state_for(tight, one))(state)
        if isinstance(tight, OutputLayer):
            # One step leads from any weights to the solution.
            return tight.init_state()
        return with_output_weights(tight.operator, jnp.asarray(state)).weights

    def corrected_near(
        self, theta: Theta, factor: float, max_steps: int
    ) -> "OutputLayer | FineTuned | None":
        """The same, or by corrections that are linear in all weights."""
        richer = self._with_more_features(theta, factor)
        return (
            self._all_weights.corrected_near(theta, factor, max_steps) if richer is None else richer
        )

    def _with_more_features(self, theta: Theta, factor: float) -> "OutputLayer | None":
        """The minimiser again, in one step; None where that is not so, or features have several layers.

        No step leads further than features do. A loss ten times smaller, about a third of the error, is
        enough to see what the error of the fewer features was.
        """
        if not self.linear or not is_one_layer(self.operator):
            return None
        finer = self._all_weights.refined_operator
        local = with_more_features(finer, MORE, key=jax.random.key(0))
        return OutputLayer(local, theta, tolerance=self.tolerance / min(factor, LESS))

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


def _lower_gram(J: Float[Array, "rows p"]) -> Float[Array, "p p"]:
    """``J.T @ J`` less its upper right quarter, which a factorisation does not look at."""
    half = J.shape[1] // 2
    first, second = J.T[:half], J.T[half:]
    top = jnp.pad(first @ first.T, ((0, 0), (0, len(second))))
    return jnp.concatenate([top, second @ J])

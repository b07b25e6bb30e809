"""BiLO's solution operator: a network that is fine-tuned wherever theta goes."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from bilo_ppl._types import Field, Key, Scalar, Theta, Weights
from bilo_ppl.inner.consolidation import consolidate
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.linearised import is_large
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, PartialDerivative
from bilo_ppl.inner.solvers import (
    AbstractInnerSolver,
    Chord,
    InnerSolution,
    LevenbergMarquardt,
    solve,
)
from bilo_ppl.network.local_operator import LocalOperator, LocalSolution
from bilo_ppl.network.lora import saves
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.one_step import OneStep
from bilo_ppl.pde.points import refined
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["FineTuned"]

LOOSEST = 1e-4
"""Largest tolerance of an exploring solve: energies that are wrong by more would trap a chain."""

SEARCHING_STEPS = 30
"""Most inner steps of a solve in a descent."""

CORRECTED_RANK = 8
"""Rank of the increments by which a solution is corrected where all weights are too many."""

MOST_POINTS = 7500
"""Points of a certificate that a multiple of the own ones should not exceed."""

EXPLORING_POINTS = 256
"""Most collocation points of an exploring solve."""

EXPLORING_STEPS = 8
"""Most inner steps of an exploring solve."""


class FineTuned(AbstractSolutionOperator):
    """BiLO: the local operator, fine-tuned at every theta until its loss is below a tolerance.

    ``operator`` says which weights may change (all, or LoRA increments: `LocalOperator.with_lora`),
    ``solver`` how they are found and to what tolerance, ``sensitivity`` how the solution is
    differentiated with respect to theta. ``row_weights`` are the loss weights of the lower level.

    Examples:
        >>> tuned = bilo.FineTuned(network.with_lora(2, key=key), solver, bilo.ImplicitDifferentiation())
        >>> field, state, info = eqx.filter_jit(tuned.solve)({"r": 6.0}, tuned.init_state())
        >>> bool(info.converged), bool(info.loss <= 1e-6)
        (True, True)
        >>> point = jnp.array([0.5])
        >>> round(float(field(point)), 3), round(float(formula(point, {"r": 6.0})), 3)
        (0.27, 0.27)
    """

    operator: LocalOperator
    solver: AbstractInnerSolver
    sensitivity: AbstractSensitivity
    row_weights: dict[str, float] = eqx.field(default_factory=dict)
    check_points: Array | None = None
    """Points that are solved at first; others are looked at where that has asked for steps. None: all."""

    @property
    def problem(self) -> Problem:
        """The PDE."""
        return self.operator.problem

    @property
    def lower_level(self) -> LowerLevel:
        """The least-squares problem that the inner solver works on."""
        return LowerLevel(self.operator, self.sensitivity, self.row_weights)

    def init_state(self) -> Weights:
        """The stored weights."""
        return self.operator.weights

    def solve(self, theta: Theta, state: Weights) -> tuple[Field, Weights, SolveInfo]:
        """Fine-tune from the weights ``state`` if the loss at theta asks for it.

        The search for the weights is not differentiated; the sensitivity supplies the derivative.
        """
        theta = admit(self.problem, theta, self.operator.dtype)
        arrays, static = eqx.partition((theta, state), eqx.is_array)
        fixed, start = eqx.combine(jax.lax.stop_gradient(arrays), static)
        lower_level = self.lower_level
        found = self._found(lower_level, fixed, start)
        weights = self.sensitivity.attach(lower_level, found.value, theta)
        field = LocalSolution(self.operator.with_weights(weights), theta)
        return field, found.value, SolveInfo(found.steps, found.loss, found.reason)

    def _found(self, level: LowerLevel, theta: Theta, start: Weights) -> InnerSolution:
        if self.check_points is None:
            return solve(self.solver, level.at(theta), start)
        few = solve(self.solver, level.with_points(self.check_points).at(theta), start)

        # What cannot be solved at a few points is not at all of them, and costs little to find out. What
        # can is solved from the start: weights fitted to a few points are off at the others.
        return jax.lax.cond(
            few.converged & (few.steps > 0),
            lambda: solve(self.solver, level.at(theta), start),
            lambda: few,
        )

    def checked_at_few(self) -> "FineTuned":
        """Solves at a few hundred of many points first, for an operator that is adapted.

        What adaptation has seen on all points, a solve need not see again. Where the few ask for steps,
        all are solved; where the few cannot be, as after a leap, that is all. U stays a function of
        theta.
        """
        if not self.is_dear:
            return self
        few = jnp.asarray(self._thinned.points)
        return eqx.tree_at(lambda f: f.check_points, self, few, is_leaf=lambda v: v is None)

    @property
    def loss_tolerance(self) -> float:
        """The inner solver's."""
        return self.solver.tolerance

    @property
    def differentiates_exactly(self) -> bool:
        """As the sensitivity does."""
        return self.sensitivity.exact

    @property
    def home(self) -> Mapping[str, Array]:
        """The theta of pretraining."""
        return self.operator.home

    def unsolved(self, theta: Theta) -> Field | None:
        """u at the stored weights, if they were fitted so that it follows theta near home."""
        return self.operator.field(theta) if self.sensitivity.follows_theta else None

    def tightened(self, factor: float, max_steps: int) -> "FineTuned":
        """On the residual rows alone, by Levenberg-Marquardt, in default precision, at more points.

        Rounding in single precision stalls the loss near 1e-9, and is an error of its own. The points
        are two to five times as many (`bilo.refined`): where all fits have been, a loss cannot tell of
        the gaps.
        """
        solver = LevenbergMarquardt(self.loss_tolerance / factor, max_steps)
        return FineTuned(self.refined_operator, solver, PartialDerivative(), self.row_weights)

    def corrected_near(self, theta: Theta, factor: float, max_steps: int) -> "FineTuned | None":
        """As `tightened`, by steps with one linearisation, at ``theta`` and the stored weights.

        What corrects is linear, made of the network's derivatives in its weights at ``theta``; the only
        nonlinearity is the PDE's. Where the rows are too many for all weights, those of increments and
        the modulations are taken; None where these are too many too.
        """
        key, sensitivity = jax.random.key(0), PartialDerivative()
        local = self.refined_operator.with_lora(0, key=key)
        fixed = theta_as(theta, local.dtype)
        level = LowerLevel(local, sensitivity, self.row_weights)
        if is_large(level.at(fixed), local.weights):
            if not saves(local.network, CORRECTED_RANK):
                return None
            local = local.with_lora(CORRECTED_RANK, key=key, many=True)
            level = LowerLevel(local, sensitivity, self.row_weights)
            if is_large(level.at(fixed), local.weights):
                return None
        tolerance = self.loss_tolerance / factor
        solver = Chord(level.at(fixed), local.weights, tolerance=tolerance, max_steps=max_steps)
        return FineTuned(local.tangent(fixed), solver, sensitivity, self.row_weights)

    @property
    def refined_operator(self) -> LocalOperator:
        """In default precision, at five times as many points, most of which no fit has seen.

        Of many, twice as many have to do.
        """
        own = np.asarray(self.operator.points, float)
        times = max(1, min(4, MOST_POINTS // len(own) - 1))
        points = refined(own, self.problem.domain, times)
        return self.operator.astype(jnp.result_type(float)).with_points(points)

    def relaxed(self) -> "FineTuned":
        """On the residual rows alone, to a hundred times the tolerance, but at most 1e-4.

        The derivative is the partial one: cheap, and good enough where the operator was fitted. Of many
        collocation points, a few hundred have to do.
        """
        solver = LevenbergMarquardt(self._loose_tolerance, max_steps=EXPLORING_STEPS)
        return FineTuned(self._thinned, solver, PartialDerivative(), self.row_weights)

    @property
    def _loose_tolerance(self) -> float:
        return max(self.loss_tolerance, min(100 * self.loss_tolerance, LOOSEST))

    @property
    def _thinned(self) -> LocalOperator:
        """At a few hundred of the collocation points."""
        local = self.operator
        if len(local.points) <= EXPLORING_POINTS:
            return local
        order = np.random.default_rng(0).permutation(len(local.points))
        return local.with_points(local.points[np.sort(order[:EXPLORING_POINTS])])

    def to_tolerance(self, tolerance: float) -> "FineTuned":
        """The inner solver's is another."""
        return eqx.tree_at(lambda f: f.solver.tolerance, self, tolerance)

    def searching(self) -> "FineTuned":
        """On the residual rows alone, with room for many steps: a descent may have far to go."""
        solver = LevenbergMarquardt(tolerance=self.loss_tolerance, max_steps=SEARCHING_STEPS)
        return FineTuned(self.operator, solver, ImplicitDifferentiation(), self.row_weights)

    def scouting(self) -> "FineTuned | None":
        """At a few hundred points and to a looser tolerance; None where all points are as few."""
        if len(self.operator.points) <= EXPLORING_POINTS:
            return None
        solver = LevenbergMarquardt(self._loose_tolerance, max_steps=SEARCHING_STEPS)
        return FineTuned(self._thinned, solver, ImplicitDifferentiation(), self.row_weights)

    def settled(self, theta: Theta, state: Weights, *, key: Key) -> "FineTuned":
        """The weights merged, with new increments of the same rank."""
        local = self.operator.with_weights(state).with_lora(self.operator.rank, key=key)
        known = {n: v for n, v in theta_as(theta, local.dtype).items() if not callable(v)}
        moved = eqx.tree_at(lambda o: o.home, local, known)
        return eqx.tree_at(lambda o: o.operator, self, moved)

    def in_steps(self, theta: Theta, steps: int) -> OneStep:
        """The papers' simultaneous update (`OneStep`)."""
        return OneStep(self.lower_level, self.solver, dict(theta), steps)

    @property
    def is_dear(self) -> bool:
        """Where the collocation points are many."""
        return len(self.operator.points) > EXPLORING_POINTS

    @property
    def can_be_fitted(self) -> bool:
        """It has weights to adapt."""
        return True

    def loss_of_home_state(self, theta: Theta) -> Scalar:
        """Lower-level loss of the stored weights at ``theta``: no inner step is taken."""
        theta = theta_as(theta, self.operator.dtype)
        return self.lower_level.at(theta).loss(self.init_state())

    def fitted_to(
        self,
        thetas: Theta,
        *,
        rank: int,
        steps: int,
        key: Key,
        progress: bool,
        mesh: Mesh | None = None,
    ) -> tuple["FineTuned", FitReport]:
        """See `bilo_ppl.inner.consolidation.consolidate`; the rank stays what it was."""
        local, report = consolidate(
            self.lower_level,
            thetas,
            tolerance=self.loss_tolerance,
            rank=rank,
            steps=steps,
            key=key,
            progress=progress,
            mesh=mesh,
        )
        return eqx.tree_at(lambda o: o.operator, self, local), report

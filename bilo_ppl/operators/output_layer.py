"""Fine-tuning of the output layer alone: for a PDE linear in u a linear least-squares problem.

With features phi_k(x) that stay, u = lift(x, sum_k c_k phi_k(x)), and the weights c minimise the
squares of the lower level's rows, with a ridge that is as good as none (`bilo_ppl.inner.ridge_problem`):
in one step where the PDE is linear in u, else in a few Gauss-Newton steps.
Fitted to thetas, the operator first looks among combinations of their solutions
(`bilo_ppl.inner.reduced_level`).
"""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Scalar, Theta, Weights
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.fixed_factor import fixed_factor
from bilo_ppl.inner.output_level import output_level
from bilo_ppl.inner.reduced_level import ReducedLevel
from bilo_ppl.inner.ridge_problem import smallest_ridge
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.inner.solvers import LevenbergMarquardt
from bilo_ppl.network.features import (
    blinded,
    is_one_layer,
    with_more_features,
    with_output_weights,
)
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.known_solutions import level_between
from bilo_ppl.operators.output_solves import AbstractOutputLayer
from bilo_ppl.pde.inputs import inputs_of_features
from bilo_ppl.pde.points import refined
from bilo_ppl.pde.sizes import POINTS_PER_FEATURE
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["OutputLayer"]

MORE = 1.5
"""Features, in units of its own, that a better operator has beside them."""

LESS = 10.0
"""How many times smaller the loss of a better operator has to be."""

LEFT_OUT = 1e-4
"""Part of the tolerance by which solutions between known ones may have a larger loss, on the average."""


class OutputLayer(AbstractOutputLayer):
    """BiLO with the output layer as the only weights: the features are those at home, for every theta.

    No network is trained, and nothing is adapted: for many parameters or unknown functions, and wherever
    u is smooth. How right a solution can be is up to the features: let there be a few hundred of them
    (``width``), and at least twice as many collocation points.

    ``operator`` is a trained `LocalOperator` whose network is an `MLP`; it is taken in default
    precision, since features are nearly dependent. ``theta`` is where it was trained. A solve has
    converged where its loss, without the ridge, is at most ``tolerance``; ``max_steps`` limits the
    Gauss-Newton steps for a problem that is not linear. The ridge is ``ridge`` times the least that
    working precision asks for: larger where features leave open what u is between the points. Raises a
    ``ValueError`` if the network's inputs depend on theta, or the residual has derivatives of more than
    fourth order.

    Examples:
        >>> operator = bilo.OutputLayer(features, start, tolerance=1e-6)
        >>> field, _, info = eqx.filter_jit(operator.solve)({"r": 9.0}, operator.init_state())
        >>> round(float(field(jnp.array([0.5]))), 3), int(info.steps)
        (0.213, 1)
    """

    at: Theta
    """Where it was made."""
    times_smallest: Scalar
    """The ridge, in units of what working precision asks for."""

    def __init__(
        self,
        operator: LocalOperator,
        theta: Theta,
        *,
        tolerance: float,
        max_steps: int = 20,
        ridge: float = 1.0,
    ):
        if not tolerance > 0 or max_steps < 1 or not ridge >= 1:
            raise ValueError(
                f"OutputLayer: tolerance={tolerance} must be positive, max_steps={max_steps} and "
                f"ridge={ridge} at least 1."
            )
        inputs_of_features("OutputLayer", operator.problem, theta)
        operator = _admitted(operator)
        theta = admit(operator.problem, theta, operator.dtype)
        self.level, self.at = output_level(operator, theta), theta
        self.tolerance, self.max_steps, self.reduced = tolerance, max_steps, None
        self.linear = self.level.is_linear(theta)
        self.ridge = ridge * smallest_ridge(self.level.trace(theta), operator.dtype)
        self.times_smallest = jnp.asarray(ridge, operator.dtype)
        self.factor = fixed_factor(self.level, theta, self.ridge) if self.linear else None

    def with_features(self, operator: LocalOperator, ridge: float) -> "OutputLayer":
        """With other features, of the same problem at the same points, and another ``ridge``."""
        level = self.level.of_features(_admitted(operator))
        smallest = smallest_ridge(level.trace(self.at), level.operator.dtype)
        found = ridge * smallest
        factor = fixed_factor(level, self.at, found) if self.linear else None
        return eqx.tree_at(
            lambda o: (o.level, o.ridge, o.times_smallest, o.factor),
            self._looking(None),
            (level, found, jnp.asarray(ridge, smallest.dtype), factor),
            is_leaf=lambda x: x is None,
        )

    @property
    def loss_tolerance(self) -> float:
        """Largest loss of a converged solve."""
        return self.tolerance

    @property
    def home(self) -> Mapping[str, Array]:
        """Where the stored weights solve."""
        return self.operator.home

    def to_tolerance(self, tolerance: float) -> "OutputLayer":
        """With another tolerance."""
        return eqx.tree_at(lambda o: o.tolerance, self, tolerance)

    def settled(self, theta: Theta, state: Weights, *, key: Key) -> "OutputLayer":
        """With the weights ``state`` as its own."""
        local = with_output_weights(self.operator, jnp.asarray(state))
        known = {n: v for n, v in theta_as(theta, local.dtype).items() if not callable(v)}
        local = eqx.tree_at(lambda o: o.home, local, known)
        return eqx.tree_at(lambda o: o.level.operator, self._looking(None), local)

    def with_room_for(self, sizes: tuple[int, int] | None) -> "OutputLayer":
        """Of the structure of one that has a reduced level of these `reduced_sizes`."""
        return self._looking(None if sizes is None else ReducedLevel.empty(self.level, *sizes))

    @property
    def reduced_sizes(self) -> tuple[int, int] | None:
        """Directions that are looked along first, and points that are looked at; None: all."""
        level = self.reduced
        return None if level is None else (len(level.directions), len(level.points))

    def checked_at_all(self) -> "OutputLayer":
        """Looking at all points, also where few of them stand for all: dearer, but it leaves no doubt."""
        few = self.reduced
        if few is None or len(few.points) == len(self.level.points):
            return self
        whole = ReducedLevel.along_directions(self.level, few.origin, few.directions)
        return self._looking(whole)

    def _looking(self, level: ReducedLevel | None) -> "OutputLayer":
        """The operator that looks in a reduced level first; None: in none."""
        return eqx.tree_at(lambda o: o.reduced, self, level, is_leaf=lambda x: x is None)

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
            # The features that are new come after its own, and before the bias.
            start = (
                jnp.zeros_like(tight.init_state()).at[:, : state.shape[1] - 1].set(state[:, :-1])
            )
            return start.at[:, -1].set(state[:, -1])
        return with_output_weights(tight.operator, jnp.asarray(state)).weights

    def corrected_near(
        self, theta: Theta, factor: float, max_steps: int
    ) -> "OutputLayer | FineTuned | None":
        """The same, or by corrections that are linear in all weights; itself if no more is asked for."""
        if factor <= 1:
            return self
        richer = self._with_more_features(theta, factor)
        return (
            self._all_weights.corrected_near(theta, factor, max_steps) if richer is None else richer
        )

    def _with_more_features(self, theta: Theta, factor: float) -> "OutputLayer | None":
        """The minimiser again; None where features have several layers.

        No step leads further than features do. A loss ten times smaller, about a third of the error, is
        enough to see what the error of the fewer features was. Half of the new ones lie where the
        residual of the solution at home is large.
        """
        if not is_one_layer(self.operator):
            return None
        shares = self.shares_of_loss({**self.at, **self.home})
        own = np.asarray(self.operator.points, float)
        # Twice as many points, and at least as many as determine the weights of all features.
        wanted = POINTS_PER_FEATURE * (1 + MORE) * self.init_state().shape[1]
        times = max(1, math.ceil(wanted / len(own)) - 1)
        finer = self.operator.with_points(refined(own, self.problem.domain, times))
        local = with_more_features(finer, MORE, shares, key=jax.random.key(0))
        tolerance = self.tolerance / min(factor, LESS)
        # A smaller ridge, too: what it adds is part of the error.
        ridge = max(1.0, float(self.times_smallest) / LESS)
        return OutputLayer(local, theta, tolerance=tolerance, max_steps=self.max_steps, ridge=ridge)

    def shares_of_loss(self, theta: Theta) -> Float[Array, " n"]:
        """What each collocation point adds to the loss of the solution at ``theta``, as a part of it."""
        return _shares(self._looking(None), theta)

    @property
    def richer(self) -> "OutputLayer | None":
        """With more features at more points; None where these are of several layers."""
        return self._with_more_features(self.at, LESS)

    @property
    def heeds_tolerance(self) -> bool:
        """The minimiser is what it is."""
        return False

    @property
    def is_dear(self) -> bool:
        """Side by side, all solves would take the way of one that known solutions do not tell."""
        return True

    @property
    def can_be_fitted(self) -> bool:
        """There is nothing to fit, and every theta is as near as home."""
        return True

    def loss_of_home_state(self, theta: Theta) -> Scalar:
        """Loss at ``theta`` on all points after a solve: that is what a check costs here."""
        _, state, _ = self.solve(theta, self.init_state())
        return self.loss_at(theta, state)

    def loss_at(self, theta: Theta, state: Weights) -> Scalar:
        """Loss of the weights ``state`` at ``theta`` on all points."""
        theta = admit(self.problem, theta, self.operator.dtype)
        return jnp.sum(self.level.rows(theta, state.ravel()) ** 2)

    @property
    def checks_by_solving(self) -> bool:
        """A loss is known after a solve only."""
        return True

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
        """The operator with solutions at ``thetas`` between which it looks first.

        The report has the mean loss of those that were solved. Nothing else is fitted: where solutions
        do not lie near a space of few dimensions, the operator is as it was.
        """
        whole = self._looking(None)
        between, losses = level_between(whole, self.level, thetas, LEFT_OUT * self.tolerance)
        loss = float(np.mean(losses))
        reached = loss <= self.tolerance
        report = FitReport(loss, {"residual": loss}, 0, reached, self.tolerance, 0.0, [(0, loss)])
        return whole._looking(between), report


def _admitted(operator: LocalOperator) -> LocalOperator:
    return blinded(operator).astype(jnp.result_type(float))


@jit_once
def _shares(operator: OutputLayer, theta: Theta) -> Float[Array, " n"]:
    _, state, _ = operator.solve(theta, operator.init_state())
    theta = admit(operator.problem, theta, operator.operator.dtype)
    squares = jnp.sum(operator.level.residuals(theta, state.ravel()) ** 2, axis=0)
    usable = jnp.where(jnp.isfinite(squares), squares, 0.0) + 1e-30
    return usable / jnp.sum(usable)

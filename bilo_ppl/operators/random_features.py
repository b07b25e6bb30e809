"""Random features for an output layer: a hidden layer of tanh units that nothing has trained.

Units whose transitions lie anywhere in the domain, at any direction, and are as steep as a scale says
(the random feature method: Chen, Chi, E, Yang, *Bridging traditional and machine learning-based
algorithms for solving PDEs*, 2022). Which scale suits a problem the loss between the points says, and
along which axis it should be larger: what diffuses has many waves in space that fade in time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Scalar, Theta
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.network.features import random_places, with_more_features, with_output_weights
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.pde.inputs import inputs_of_features
from bilo_ppl.pde.points import refined
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import theta_as

__all__ = ["FeatureTrial", "add_features", "choose_random_features", "random_features"]

SCALES = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 10.0)
"""Standard deviations of the slopes, in half widths of the domain."""

STEEPER, MOST_STRETCHED = 2.0, 8.0
"""Factor by which the scale along an axis is changed, and the largest that comes of it."""

BETTER = 0.1
"""What a change has to bring, in the mean logarithm of the losses."""

NOTHING = 1e-20
"""A loss below which all are alike."""


class FeatureTrial(NamedTuple):
    """What features of one scale make of some thetas."""

    scale: float
    losses: list[float]
    """At the collocation points, by theta."""
    unseen: list[float]
    """At points between them."""
    stretch: tuple[float, ...] = ()
    """By how much steeper units are along each axis; none: alike."""

    @property
    def score(self) -> float:
        """Mean of the logarithms of the unseen losses; infinite where one is not finite."""
        logs = np.log(np.maximum(self.unseen, NOTHING))
        return float(np.mean(logs)) if np.isfinite(logs).all() else np.inf

    def __str__(self) -> str:
        if len(set(self.stretch)) < 2:
            return f"{self.scale:g}"
        return f"({', '.join(f'{self.scale * factor:g}' for factor in self.stretch)})"


def random_features(
    problem: Problem,
    theta: Theta,
    *,
    count: int,
    scale: float,
    key: Key,
    stretch: Sequence[float] = (),
) -> LocalOperator:
    """A local operator with ``count`` random features, and an output layer of zeros.

    ``stretch`` are factors of the scale along each axis, or each input of a problem's own.
    """
    operator = LocalOperator(problem, theta, key=key, width=count, depth=1, embedded=())
    first, last = operator.network.layers  # pyright: ignore[reportAttributeAccessIssue]
    key_slope, key_place = jax.random.split(key)
    slopes = scale * jax.random.normal(key_slope, first.weight.shape, first.weight.dtype)
    if stretch:
        slopes = slopes * jnp.asarray(stretch, slopes.dtype)[None]
    places = random_places(problem, count, slopes.dtype, key_place)
    return eqx.tree_at(
        lambda o: (
            o.network.layers[0].weight,
            o.network.layers[0].bias,
            o.network.layers[1].weight,
            o.network.layers[1].bias,
        ),
        operator,
        (
            slopes,
            -jnp.sum(slopes * places, axis=1),
            jnp.zeros_like(last.weight),
            jnp.where(_moved_at_zero(operator, theta), 0.0, jnp.ones_like(last.bias)),
        ),
    )


@jit_once
def _moved_at_zero(operator: LocalOperator, theta: Theta) -> Any:
    """Whether u changes with each component of a raw output of zero: that of a square does not."""
    problem = operator.problem
    zero = jnp.zeros(problem.components, operator.dtype)

    def slopes(x):
        def lifted(raw):
            return jnp.ravel(problem.lift(x, raw if problem.components > 1 else raw[0], theta))

        return jnp.any(jax.jacfwd(lifted)(zero) != 0, axis=0)

    return jnp.any(jax.vmap(slopes)(jnp.asarray(operator.points, operator.dtype)), axis=0)


def choose_random_features(
    problem: Problem, thetas: Sequence[Theta], *, count: int, key: Key
) -> tuple[LocalOperator, list[FeatureTrial]]:
    """Random features of the scale that leaves the least loss between the points, and all trials.

    ``thetas`` are of one structure, and should be spread as those that will be asked for: features may
    suit one and not another. Raises a ``ValueError`` if no scale solves at all of them.

    Examples:
        >>> thetas = [start, {"r": 9.0}]
        >>> features, trials = bilo.choose_random_features(problem, thetas, count=10, key=key)
        >>> best = min(trials, key=lambda trial: trial.score)
        >>> [loss < 1e-6 for loss in best.losses]
        [True, True]
    """
    points = jnp.asarray(refined(np.asarray(problem.points, float), problem.domain))
    inputs = inputs_of_features("choose_random_features", problem, thetas[0])
    made: list[LocalOperator] = []
    trials: list[FeatureTrial] = []

    def attempt(scale: float, stretch: tuple[float, ...]) -> None:
        local = random_features(
            *(problem, thetas[0]), count=count, scale=scale, stretch=stretch, key=key
        )
        made.append(local)
        trials.append(_trial(local, thetas, points, scale, stretch))

    def best() -> int:
        return int(np.argmin([trial.score for trial in trials]))

    for scale in SCALES:
        attempt(scale, (1.0,) * inputs)
    if not np.isfinite(trials[best()].score):
        raise ValueError(
            f"choose_random_features: features of no scale of {SCALES} solve the PDE at all of "
            f"{len(thetas)} thetas: the losses are not finite."
        )
    for axis, factor in _changes_of(inputs):
        # In the direction of a change that helps, as far as it does.
        while True:
            known = trials[best()]
            stretch = list(known.stretch)
            stretch[axis] *= factor
            tried = {trial.stretch for trial in trials if trial.scale == known.scale}
            if max(stretch) / min(stretch) > MOST_STRETCHED or tuple(stretch) in tried:
                break
            attempt(known.scale, tuple(stretch))
            if not trials[-1].score < known.score - BETTER:
                break
    return made[best()], trials


def _changes_of(inputs: int) -> list[tuple[int, float]]:
    """Axes, with a factor for the scale along them; of one axis the scale itself has been tried."""
    if inputs == 1:
        return []
    return [(axis, factor) for axis in range(inputs) for factor in (STEEPER, 1 / STEEPER)]


def add_features(
    features: LocalOperator, thetas: Sequence[Theta], *, like: FeatureTrial, more: float, key: Key
) -> tuple[LocalOperator, FeatureTrial]:
    """``more`` times as many features beside those of a trial, which ``features`` are, and a new trial.

    Half of the new ones lie where the residuals at ``thetas`` are large; or all are drawn anew as
    those were, where that leaves a smaller loss between the points.
    """
    operator = OutputLayer(features, thetas[0], tolerance=np.inf)
    shares = sum(operator.shares_of_loss(theta) for theta in thetas) / len(thetas)
    beside = with_more_features(operator.operator, more, shares, key=key)
    problem, count = features.problem, beside.network.layers[0].weight.shape[0]  # pyright: ignore[reportAttributeAccessIssue]
    anew = random_features(
        *(problem, thetas[0]), count=count, scale=like.scale, stretch=like.stretch, key=key
    )
    points = jnp.asarray(refined(np.asarray(problem.points, float), problem.domain))
    shape = like.scale, like.stretch
    tried = [(local, _trial(local, thetas, points, *shape)) for local in (beside, anew)]
    return min(tried, key=lambda pair: pair[1].score)


def _trial(
    local: LocalOperator,
    thetas: Sequence[Theta],
    points: Any,
    scale: float,
    stretch: tuple[float, ...],
) -> FeatureTrial:
    operator = OutputLayer(local, thetas[0], tolerance=np.inf)
    found = [_losses(operator, theta, points) for theta in thetas]
    seen, unseen = ([float(pair[i]) for pair in found] for i in (0, 1))
    return FeatureTrial(scale, seen, unseen, stretch)


@jit_once
def _losses(operator: OutputLayer, theta: Theta, points: Any) -> tuple[Scalar, Scalar]:
    """Of the solution at theta: at the collocation points, and at others."""
    _, state, info = operator.solve(theta, operator.init_state())
    local = with_output_weights(operator.operator, state).with_points(points)
    level, theta = LowerLevel(local, PartialDerivative()), theta_as(theta, local.dtype)
    return info.loss, level.at(theta).loss(local.weights)

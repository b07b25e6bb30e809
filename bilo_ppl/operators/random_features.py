"""Random features for an output layer: a hidden layer of tanh units that nothing has trained.

Units whose transitions lie anywhere in the domain, at any direction, and are as steep as a scale says
(the random feature method: Chen, Chi, E, Yang, *Bridging traditional and machine learning-based
algorithms for solving PDEs*, 2022). Which scale suits a problem the loss between the points says, and
along which axis it should be larger: what diffuses has many waves in space that fade in time.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Points, Scalar, Theta
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.network.features import random_places, with_more_features, with_output_weights
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.pde.inputs import inputs_of_features
from bilo_ppl.pde.points import even_part, refined
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import theta_as

__all__ = ["FeatureTrial", "add_features", "choose_random_features", "random_features"]

SCALES = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 10.0)
"""Standard deviations of the slopes, in half widths of the domain."""

MIDDLE = 2.0
"""The first that is tried."""

RIDGES = (1.0, 1e3, 1e6, 1e9)
"""In units of what working precision asks for. Where the residual leaves open what u is between or beyond
the points, the least one lets features swing there; where u is smooth and determined it is the best."""

UNSEEN = 1000
"""Points between the others at which a trial is judged."""

STEEPER, MOST_STRETCHED = 2.0, 8.0
"""Factor by which the scale along an axis is changed, and the largest that comes of it."""

BETTER = 0.2
"""What a change has to bring, in the mean logarithm of the losses."""

MILDER = BETTER / math.log(1e3)
"""What a larger ridge is worth, by its logarithm: solves take fewer steps."""

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
    ridge: float = 1.0
    """See `OutputLayer`."""

    @property
    def score(self) -> float:
        """Mean of the logarithms of the unseen losses, in favour of larger ridges where these are alike.

        Infinite where a loss is not finite.
        """
        logs = np.log(np.maximum(self.unseen, NOTHING))
        mean = float(np.mean(logs)) if np.isfinite(logs).all() else np.inf
        return mean - MILDER * math.log(self.ridge)

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
    suit one and not another. The best of the trials, by their score, says with which ridge they are to be
    taken. Raises a ``ValueError`` if no scale solves at all of them.

    Examples:
        >>> thetas = [start, {"r": 9.0}]
        >>> features, trials = bilo.choose_random_features(problem, thetas, count=10, key=key)
        >>> best = min(trials, key=lambda trial: trial.score)
        >>> [loss < 1e-6 for loss in best.losses]
        [True, True]
    """
    inputs = inputs_of_features("choose_random_features", problem, thetas[0])
    search = _Search(problem, thetas, count, key)
    alike = (1.0,) * inputs
    for ridge in RIDGES:
        search.attempt(MIDDLE, ridge, alike)
    ridge = search.best.ridge
    # Away from the middle on both sides, as long as that helps.
    for scales in (filter(MIDDLE.__lt__, SCALES), filter(MIDDLE.__gt__, reversed(SCALES))):
        for scale in scales:
            if not search.helps(scale, ridge, alike):
                break
    if not math.isfinite(search.best.score):
        raise ValueError(
            f"choose_random_features: features of no scale of {SCALES} solve the PDE at all of "
            f"{len(thetas)} thetas: the losses are not finite."
        )
    for axis, factor in _changes_of(inputs):
        search.stretched_along(axis, factor)
    known, at = search.best, RIDGES.index(ridge)
    if (known.scale, known.stretch) != (MIDDLE, alike):
        # The ridge was chosen where features were less suitable, which may be why it had to be large.
        for others in (RIDGES[at + 1 :][:1], RIDGES[:at][::-1]):
            for other in others:
                if not search.helps(known.scale, other, known.stretch):
                    break
    return search.made[search.trials.index(search.best)].operator, search.trials


class _Search:
    """Trials of features of one number, and what was made for them."""

    def __init__(self, problem: Problem, thetas: Sequence[Theta], count: int, key: Key):
        self.problem, self.thetas, self.count, self.key = problem, thetas, count, key
        self.points = _between(problem.points, problem)
        self.made: list[OutputLayer] = []
        self.trials: list[FeatureTrial] = []

    @property
    def best(self) -> FeatureTrial:
        """By the score."""
        return min(self.trials, key=lambda trial: trial.score)

    def attempt(self, scale: float, ridge: float, stretch: tuple[float, ...]) -> None:
        """One more trial."""
        first = self.thetas[0]
        shape = {"count": self.count, "scale": scale, "stretch": stretch}
        local = random_features(self.problem, first, **shape, key=self.key)
        # What the residual asks for is found once.
        if self.made:
            layer = self.made[0].with_features(local, ridge)
        else:
            layer = OutputLayer(local, first, tolerance=np.inf, ridge=ridge)
        self.made.append(layer)
        self.trials.append(_trial(layer, self.thetas, self.points, scale, stretch))

    def helps(self, scale: float, ridge: float, stretch: tuple[float, ...]) -> bool:
        """Whether one more trial is better than all before; as long as none solves, so it is said."""
        known = self.best.score
        self.attempt(scale, ridge, stretch)
        return self.trials[-1].score < known - BETTER or not math.isfinite(known)

    def stretched_along(self, axis: int, factor: float) -> None:
        """Trials in the direction of a change along an axis, as far as that helps."""
        while True:
            known = self.best
            stretch = list(known.stretch)
            stretch[axis] *= factor
            tried = {trial.stretch for trial in self.trials if trial.scale == known.scale}
            far = max(stretch) / min(stretch) > MOST_STRETCHED
            if far or tuple(stretch) in tried:
                return
            if not self.helps(known.scale, known.ridge, tuple(stretch)):
                return


def _between(points: Points, problem: Problem) -> Float[Array, "m d"]:
    """Points at which features are judged."""
    finer = refined(np.asarray(points, float), problem.domain)
    return jnp.asarray(even_part(finer, min(UNSEEN, len(finer))))


def _changes_of(inputs: int) -> list[tuple[int, float]]:
    """Axes, with a factor for the scale along them; of one axis the scale itself has been tried."""
    if inputs == 1:
        return []
    return [(axis, factor) for axis in range(inputs) for factor in (STEEPER, 1 / STEEPER)]


def add_features(
    features: LocalOperator,
    thetas: Sequence[Theta],
    *,
    like: FeatureTrial,
    more: float,
    key: Key,
    points: Points | None = None,
) -> tuple[LocalOperator, FeatureTrial]:
    """``more`` times as many features beside those of a trial, which ``features`` are, and a new trial.

    Half of the new ones lie where the residuals at ``thetas`` are large; or all are drawn anew as
    those were, where that leaves a smaller loss between the points. Where fewer features needed a large
    ridge, smaller ones are tried. ``points`` are other collocation points, to determine so many.
    """
    if points is not None:
        features = features.with_points(points)
    operator = OutputLayer(features, thetas[0], tolerance=np.inf, ridge=like.ridge)
    shares = sum(operator.shares_of_loss(theta) for theta in thetas) / len(thetas)
    beside = with_more_features(operator.operator, more, shares, key=key)
    problem, count = features.problem, beside.network.layers[0].weight.shape[0]  # pyright: ignore[reportAttributeAccessIssue]
    anew = random_features(
        *(problem, thetas[0]), count=count, scale=like.scale, stretch=like.stretch, key=key
    )
    if points is not None:
        anew = anew.with_points(points)
    unseen, shape = _between(features.points, problem), (like.scale, like.stretch)

    def tried(local: LocalOperator, ridge: float) -> tuple[LocalOperator, FeatureTrial]:
        layer = operator.with_features(local, ridge)
        return layer.operator, _trial(layer, thetas, unseen, *shape)

    best = min((tried(local, like.ridge) for local in (beside, anew)), key=_score)
    smaller = [tried(best[0], ridge) for ridge in RIDGES if ridge < like.ridge]
    return min([best, *smaller], key=_score)


def _score(pair: tuple[LocalOperator, FeatureTrial]) -> float:
    return pair[1].score


def _trial(
    operator: OutputLayer,
    thetas: Sequence[Theta],
    points: Any,
    scale: float,
    stretch: tuple[float, ...],
) -> FeatureTrial:
    found = [_losses(operator, theta, points) for theta in thetas]
    seen, unseen = ([float(pair[i]) for pair in found] for i in (0, 1))
    return FeatureTrial(scale, seen, unseen, stretch, float(operator.times_smallest))


@jit_once
def _losses(operator: OutputLayer, theta: Theta, points: Any) -> tuple[Scalar, Scalar]:
    """Of the solution at theta: at the collocation points, and at others."""
    _, state, info = operator.solve(theta, operator.init_state())
    local = with_output_weights(operator.operator, state).with_points(points)
    level, theta = LowerLevel(local, PartialDerivative()), theta_as(theta, local.dtype)
    return info.loss, level.at(theta).loss(local.weights)

"""How many random features there are: as many as usual, and more where they are far too few."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Points, Theta, Weights
from bilo_ppl.network.features import with_output_weights
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.operators.random_features import FeatureTrial, add_features, choose_random_features
from bilo_ppl.pde.collocation import resized
from bilo_ppl.pde.sizes import POINTS_PER_FEATURE
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.run.sizes import OPTION, USUAL
from bilo_ppl.run.tolerance import FAR_TOO_WRONG
from bilo_ppl.validation.accuracy import Accuracy, PredictionError

__all__ = ["Features", "accuracies_of", "enough_features", "error_of", "solved_state"]


HELPS = 0.8
"""Part to which twice as many features have to bring the error; else the fewer are kept."""


POINTS_OF_FIXED = 4096
"""At most, where a solve has no normal matrix to make: it is factored once."""

PATIENCE = 1
"""Doublings without a gain after which there is one more, where features cost so little."""


class Features(NamedTuple):
    """Random features, and what they make of some thetas."""

    local: LocalOperator
    trials: list[FeatureTrial]
    """By scale."""
    count: int
    accuracies: list[Accuracy]
    """By theta; empty where nothing was measured."""

    @property
    def best(self) -> FeatureTrial:
        """That of the scale that was taken."""
        return min(self.trials, key=lambda trial: trial.score)

    @property
    def worst(self) -> tuple[Accuracy, float]:
        """The largest error that is finite, and the loss there."""
        found = list(zip(self.accuracies, self.best.losses, strict=True))
        finite = [entry for entry in found if np.isfinite(entry[0].worst)]
        return max(finite or found, key=lambda entry: entry[0].worst)


def enough_features(
    plan: Plan,
    record: Record,
    tried: list[tuple[Theta, dict[str, Any]]],
    error: PredictionError | None,
    limit: float | None = None,
) -> Features:
    """Features that suit the thetas ``tried``, each with the values of the latent sites behind it.

    Where nobody has stated their number, and u is more wrong than ``limit`` times what the noise allows
    for, by default far more, there are twice as many, as long as that helps and the collocation points
    determine their weights. Where theta has no part in the normal matrix, so that many features cost
    little in a solve, there are more points too. Raises a ``ValueError`` if features of no scale solve.
    """
    problem, key = plan.file.problem, jax.random.key(plan.settings.seed)
    thetas = [theta for theta, _ in tried]

    def measured(more: Features) -> Features:
        if error is None:
            return more
        return more._replace(accuracies=_measured(plan, more, tried, error))

    count = plan.sizes["width"].value
    found = measured(
        Features(*choose_random_features(problem, thetas, count=count, key=key), count, [])
    )
    if not found.accuracies or error_of(plan, found, limit) <= (limit or FAR_TOO_WRONG):
        return found
    fixed, missed = _is_fixed(plan, found), 0
    while error_of(plan, found, limit) > (limit or FAR_TOO_WRONG):
        count *= 2
        points = _points_for(plan, found, count, fixed)
        if points is None:
            break
        grown = len(points) > len(found.local.points)
        where = f" at {len(points)} points" if grown else ""
        record.say(f"{found.count} features: {found.worst[0]}. {count} are tried{where}.")
        local, trial = add_features(
            found.local,
            thetas,
            like=found.best,
            more=count / found.count - 1,
            key=key,
            points=points if grown else None,
        )
        more = measured(Features(local, [trial], count, []))
        if error_of(plan, more, limit) < HELPS * error_of(plan, found, limit):
            found, missed = more, 0
            continue
        record.say(f"{count} features are no better: {more.worst[0]}.")
        missed += 1
        if not fixed or missed > PATIENCE:
            break
    return found


def _is_fixed(plan: Plan, found: Features) -> bool:
    """Whether theta has no part in the normal matrix, which then is factored once for all solves."""
    return _layer(plan, found).factor is not None


def _layer(plan: Plan, found: Features) -> OutputLayer:
    return OutputLayer(
        found.local, plan.file.start, tolerance=plan.tolerance, ridge=found.best.ridge
    )


def _points_for(plan: Plan, found: Features, count: int, fixed: bool) -> Points | None:
    """Collocation points for so many features; None where these may not be, or there is no room.

    More than the problem has only where a solve has no normal matrix to make.
    """
    own, wanted = np.asarray(found.local.points), POINTS_PER_FEATURE * count
    if plan.sizes["width"].origin != USUAL:
        return None
    if wanted <= len(own):
        return own
    if not fixed or plan.sizes["points"].origin == OPTION or wanted > POINTS_OF_FIXED:
        return None
    try:
        return resized(own, plan.file.problem.domain, wanted)
    except ValueError:
        return None


def error_of(plan: Plan, found: Features, limit: float | None) -> float:
    """In units of what is allowed: the largest; with a limit, at the first guess and at most others.

    Where theta has functions all others count: a point estimate of these is not looked at, since the
    operator knows no home with them.
    """
    errors = [accuracy.worst for accuracy in found.accuracies]
    if limit is None:
        return found.worst[0].worst
    if any(map(callable, plan.file.start.values())):
        return max(errors)
    return max(errors[0], float(np.median(errors)))


def _measured(
    plan: Plan,
    found: Features,
    tried: list[tuple[Theta, dict[str, Any]]],
    error: PredictionError,
) -> list[Accuracy]:
    operator = _layer(plan, found)
    states = [
        (theta, solved_state(operator, theta, operator.init_state())[0], values)
        for theta, values in tried
    ]
    return accuracies_of(error, operator, states)


def accuracies_of(
    error: PredictionError,
    operator: OutputLayer,
    found: Sequence[tuple[Theta, Weights, Mapping[str, Any]]],
) -> list[Accuracy]:
    """How right solutions are: thetas, weights there, and values of the latent sites.

    By what more features change; a step in the weights of the features themselves would chase what no
    function of theirs can solve, as at a corner where data do not agree.
    """
    theta, weights, _ = found[0]
    richer = operator.settled(theta, weights, key=jax.random.key(0)).richer
    if richer is None:
        settled = ((operator.settled(t, w, key=jax.random.key(0)), t, v) for t, w, v in found)
        return [error(there.operator, theta, values) for there, theta, values in settled]
    accuracies = []
    for theta, weights, values in found:
        start = operator.state_for(richer, weights)
        better, converged = solved_state(richer, theta, start)
        if not converged and bool(jnp.array_equal(start, better)):
            # No step was found: what a solution there would change is not known.
            accuracies.append(Accuracy(math.inf, math.inf))
            continue
        before, after = (with_output_weights(richer.operator, w) for w in (start, better))
        accuracies.append(error.between(before, after, theta, values))
    return accuracies


@jit_once
def solved_state(operator: OutputLayer, theta: Theta, start: Weights) -> tuple[Weights, Any]:
    """Weights at theta, and whether they solve."""
    _, state, info = operator.solve(theta, start)
    return state, info.converged

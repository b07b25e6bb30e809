"""How many random features there are: as many as usual, and more where they are far too few."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta, Weights
from bilo_ppl.network.features import with_output_weights
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.operators.random_features import FeatureTrial, add_features, choose_random_features
from bilo_ppl.pde.sizes import POINTS_PER_FEATURE
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.run.sizes import USUAL
from bilo_ppl.run.tolerance import FAR_TOO_WRONG
from bilo_ppl.validation.accuracy import Accuracy, PredictionError

__all__ = ["Features", "accuracies_of", "enough_features", "error_of", "solved_state"]


HELPS = 0.8
"""Part to which twice as many features have to bring the error; else the fewer are kept."""


class Features(NamedTuple):
    """Random features, and what they make of some thetas."""

    local: LocalOperator
    count: int
    trials: list[FeatureTrial]
    """By scale."""
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
    determine their weights. Raises a ``ValueError`` if features of no scale solve.
    """
    problem, key, found = plan.file.problem, jax.random.key(plan.settings.seed), None
    thetas = [theta for theta, _ in tried]
    for count in _counts(plan):
        if found is None:
            local, trials = choose_random_features(problem, thetas, count=count, key=key)
        else:
            record.say(f"{found.count} features: {found.worst[0]}. {count} are tried.")
            more = count / found.count - 1
            local, trial = add_features(found.local, thetas, like=found.best, more=more, key=key)
            trials = [trial]
        more = Features(local, count, trials, [])
        if error is not None:
            more = more._replace(accuracies=_measured(plan, more, tried, error))
        if found is not None and not error_of(plan, more, limit) < HELPS * error_of(
            plan, found, limit
        ):
            record.say(f"{count} features are no better: {more.worst[0]}.")
            break
        found = more
        if not found.accuracies or error_of(plan, found, limit) <= (limit or FAR_TOO_WRONG):
            break
    assert found is not None
    return found


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


def _counts(plan: Plan) -> Iterator[int]:
    width = plan.sizes["width"]
    yield width.value
    count, most = 2 * width.value, len(plan.file.problem.points) // POINTS_PER_FEATURE
    while width.origin == USUAL and count <= most:
        yield count
        count *= 2


def _measured(
    plan: Plan,
    found: Features,
    tried: list[tuple[Theta, dict[str, Any]]],
    error: PredictionError,
) -> list[Accuracy]:
    operator = OutputLayer(
        found.local, plan.file.start, tolerance=plan.tolerance, ridge=found.best.ridge
    )
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

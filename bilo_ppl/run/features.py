"""The stage that chooses random features, where only the output layer is fine-tuned."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro.distributions import ImproperUniform

from bilo_ppl._blocks import Interrupts
from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._types import Theta
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.feature_count import Features, accuracies_of, enough_features, error_of
from bilo_ppl.run.plan import Plan, stand_in
from bilo_ppl.run.pretraining import save
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.sizes import described
from bilo_ppl.run.tolerance import (
    FAR_TOO_WRONG,
    noted_at_mode,
    prediction_error,
    theta_of,
    tolerance_of,
)
from bilo_ppl.run.uniqueness import warn_unless_determined
from bilo_ppl.validation.accuracy import LARGEST_STEP, Accuracy, PredictionError

__all__ = ["featured", "limit_of", "tolerance_at_estimate", "worth_a_network"]

OTHERS, VARIED = 4, 0.1
"""Thetas at which features are tried beside the first guess, and how far flat sites are from it there."""

BY_FEATURES = 20.0
"""Error, in units of what is allowed, with which a run goes on: features that stay come no nearer, and
what that does to the result, up to a nat, the certificate says."""

MORE_FEATURES = "More features (--width) at more points (--points) may help; see the certificate."

SPREAD = 10.0
"""How many times the loss at a few thetas that of others may be: a solve comes no nearer where it is
not allowed for, and what is rejected bends the posterior more than an error three times as large."""

LEFT = 5.0
"""How many times the largest loss at a few prior draws the loss at a draw of the posterior may be."""

PLANE, FUNCTION, IN_SPACE = 2, 100, 100.0
"""Coordinates up to which a network may be trained to what the noise asks for in minutes; scalars from
which on the unknowns are a function, whose estimate takes hundreds of steps, each with a solve of seconds
by a network in two coordinates; and the error with which a run goes on with features where it is so."""

SEVERAL_UNKNOWNS, MANY_UNKNOWNS = 8, 16
"""Scalars from which on features may be wrong by `FAR_TOO_WRONG`, and by `BY_FEATURES`."""

MUCH_MORE = 10.0
"""Loss between the points, in units of that at them, from which on they do not suffice."""

Tried = list[tuple[Theta, dict[str, Any]]]
"""Thetas with the values of the latent sites that they are made of; the first guess is the first."""


def featured(
    plan: Plan,
    record: Record,
    interrupts: Interrupts,
    error: PredictionError | None,
    *,
    limit: float | None = None,
) -> OutputLayer:
    """An operator with random features, and the tolerance that the noise asks for.

    They are chosen, and ``error`` is measured, at the first guess and at draws from the prior. Raises
    `RunFailedError` if no features solve there, or not as well as the noise asks for. With a
    ``limit`` (`limit_of`) they have to be within it at the first guess and at most of the draws.
    """
    file = plan.file
    record["sizes"] = plan.sizes
    record.say(f"\n{described(plan.sizes, file)}")
    with record.stage("features", f"Choosing {plan.sizes['width'].value} random features."):
        tried = [(file.start, plan.first_guess), *_others(plan)]
        try:
            found = enough_features(plan, record, tried, error, limit)
        except ValueError as cause:
            raise RunFailedError(str(cause)) from cause
        best = found.best
        shape = {"scale": best.scale, "stretch": best.stretch, "ridge": best.ridge}
        chosen = {
            "count": found.count,
            "points": len(found.local.points),
            "trials": found.trials,
            **shape,
        }
        record["features"] = chosen
        record.say(
            f"Scale {best} of {', '.join(dict.fromkeys(map(str, found.trials)))}, "
            f"{best.ridge:g} times the least ridge: loss "
            f"{max(best.losses):.1e} at the points and {max(best.unseen):.1e} between them, the largest "
            f"at {len(tried)} thetas."
        )
        operator = OutputLayer(found.local, file.start, tolerance=plan.tolerance, ridge=best.ridge)
        loosest = operator.to_tolerance(_loosest(plan, found))
        warn_unless_determined(plan, record, loosest, error or prediction_error(plan))
        if error is not None:
            if limit is not None:
                _check(plan, found, limit)
            plan = plan.with_tolerance(_tolerance(record, found, limit or 0.0))
            operator = operator.to_tolerance(plan.tolerance)
        save(plan, record, operator.operator, chosen, "operator.eqx")
    if not _seen_enough(found, plan.tolerance):
        record.alarm(
            f"{_too_few_points(found)} Give more (--points), or fewer features (--width). "
            + see("Too few points")
        )
    interrupts.raise_if_any()
    return operator


def _others(plan: Plan) -> Tried:
    """Thetas of the prior; of a site with a flat prior, such as a function's, the first guess varied."""
    data, found = plan.observations, []
    look = partial(look_at, plan.model(stand_in(plan)), data.model_args, data.model_kwargs)
    for key in jax.random.split(jax.random.key(plan.settings.seed), OTHERS):
        drawn = look(key=key).latent
        varied = {
            name: value + VARIED * jax.random.normal(key, np.shape(value))
            for name, value in plan.first_guess.items()
            if isinstance(innermost(drawn[name]["fn"]), ImproperUniform)
        }
        seen = look(key=key, values=varied)
        found.append((theta_of(plan, seen), seen.values))
    return found


def worth_a_network(plan: Plan) -> bool:
    """Whether a network may come nearer than features do in minutes."""
    dimension = plan.file.problem.domain.dimension
    return dimension < PLANE or (dimension == PLANE and plan.scalars < FUNCTION)


def limit_of(plan: Plan) -> float:
    """Error, in units of what is allowed, above which a network is the better choice.

    Of many unknowns that is far: what they are is less certain, and a network is dear to adapt. Farther
    where a network would hardly end (`worth_a_network`).
    """
    if not worth_a_network(plan):
        return IN_SPACE
    if plan.scalars > MANY_UNKNOWNS:
        return BY_FEATURES
    return FAR_TOO_WRONG if plan.scalars >= SEVERAL_UNKNOWNS else 1.0


def _check(plan: Plan, found: Features, limit: float) -> None:
    """Raise `RunFailedError` unless features do at home and at most of the other thetas (`error_of`).

    Where they do not among the others is not asked: the posterior may not come there.
    """
    if found.accuracies[0].worst > limit:
        raise RunFailedError(f"with random features the first guess has {found.accuracies[0]}")
    if error_of(plan, found, limit) > limit:
        raise RunFailedError(
            "random features do not do at enough prior draws: at one of them, "
            f"{found.worst[0]}, at a loss of {found.worst[1]:.1e}"
        )
    if not _seen_enough(found, plan.tolerance):
        raise RunFailedError(_too_few_points(found))


def _seen_enough(found: Features, tolerance: float) -> bool:
    return max(found.best.unseen) <= MUCH_MORE * max(max(found.best.losses), tolerance)


def _too_few_points(found: Features) -> str:
    return (
        f"The collocation points do not suffice for {found.count} features: the loss is "
        f"{max(found.best.losses):.1e} at them and {max(found.best.unseen):.1e} between."
    )


def _tolerance(record: Record, found: Features, limit: float) -> float:
    """What the noise asks for at the first guess, but no less than the losses of solutions not far off.

    A search may pass where solutions are less right; `tolerance_at_estimate` says what holds in the end.
    """
    losses, limit = found.best.losses, max(BY_FEATURES, limit)
    pairs = zip(found.accuracies, losses, strict=True)
    near = [(accuracy, loss) for accuracy, loss in pairs if accuracy.worst <= limit]
    tolerance = tolerance_of(
        *(record, found.accuracies[0], losses[0]),
        at_draws=partial(_strictest, near),
        after="At the first guess the features end",
        limit=limit,
        advice=MORE_FEATURES,
    )
    return max(tolerance, SPREAD * max((loss for _, loss in near), default=0.0))


def _loosest(plan: Plan, found: Features) -> float:
    """The largest loss that may come to be taken for a solution."""
    first = [accuracy.tolerance(found.best.losses[0]) for accuracy in found.accuracies[:1]]
    return max(*(first or [plan.tolerance]), SPREAD * max(found.best.losses))


def _strictest(found: list[tuple[Accuracy, float]]) -> float:
    """The least tolerance that any of some solutions asks for, each of whose losses is harmless."""
    largest = LARGEST_STEP * max((loss for _, loss in found), default=0.0)
    asked = [accuracy.tolerance_within(loss, largest) for accuracy, loss in found if loss > 0]
    return min(asked, default=math.inf)


def tolerance_at_estimate(
    record: Record,
    error: PredictionError,
    limit: float | None,
    operator: OutputLayer,
    values: Mapping[str, Any],
) -> float:
    """The tolerance that the noise asks for at a point estimate, where the operator is settled.

    A solve comes no nearer to it where it is tighter: what misses it is not solved. Raises
    `RunFailedError` where the error is more than ``limit`` times what is allowed, if that is given.
    """
    theta = operator.home
    if len(theta) < len(operator.problem.parameters):
        return operator.loss_tolerance
    found = accuracies_of(error, operator, [(theta, operator.init_state(), values)])[0]
    loss = float(jit_once(OutputLayer.loss_at)(operator, theta, operator.init_state()))
    text = f"with random features the point estimate has {found}, at a loss of {loss:.1e}"
    if limit is not None and found.worst > limit:
        raise RunFailedError(text)
    if found.worst > 1:
        record.alarm(f"{text}: less than the noise asks for. {MORE_FEATURES}")
    tolerance = max(found.tolerance_within(loss, operator.loss_tolerance), SPREAD * loss)
    if operator.linear:
        # A solve is one step, and nothing tighter makes it better. What prior draws that are right enough
        # have left (see `_tolerance`), draws of a posterior as wide as the prior may leave too.
        tolerance = max(tolerance, LEFT * operator.loss_tolerance / SPREAD)
    return noted_at_mode(record, tolerance, found, loss)

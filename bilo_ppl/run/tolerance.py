"""The tolerance that the noise asks for, from how right a solution is: at the first guess, then at the
point estimate, since the same loss may mean another error there."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._types import Theta
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.ppl.experiments import first_theta
from bilo_ppl.ppl.look import ModelLook, look_at
from bilo_ppl.run.plan import Plan, stand_in
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.validation.accuracy import NOISE_LIMIT, SIZE_LIMIT, Accuracy, PredictionError, rounded

__all__ = [
    "FAR_TOO_WRONG",
    "HEADROOM",
    "noted_at_mode",
    "prediction_error",
    "theta_of",
    "tolerance_at_mode",
    "tolerance_at_prior_draws",
    "tolerance_of",
]

FAR_TOO_WRONG = 4.0
"""Where pretraining ends with u wrong by so many times what the noise allows for, the run ends too."""

LARGER = "A larger network, more points or a first guess at which the PDE is easier may help."

FINEST = 1e-9
"""Loss below which single precision seldom leads."""

PRIOR_DRAWS = 8
"""Thetas of the prior at which the error is measured where it says little at the first guess."""

HEADROOM = 0.5
"""Pretraining aims at this part of the tolerance, so that the start does not lie on its edge."""


def prediction_error(plan: Plan) -> PredictionError:
    """How right a solution is, in units of the noise."""
    model = plan.model(stand_in(plan))
    data = plan.observations
    return PredictionError(model, data.model_args, data.model_kwargs)


def tolerance_at_prior_draws(plan: Plan, error: PredictionError, operator: LocalOperator) -> float:
    """The tightest tolerance that the noise asks for at thetas of the prior, from one step to each.

    For where home says little: at u = 0, say, which solves many an equation exactly.
    """
    fine, data = plan.fine_tuned(operator), plan.observations
    loss = jit_once(fine.loss_of_home_state)
    found = [math.inf]
    for key in jax.random.split(jax.random.key(plan.settings.seed), PRIOR_DRAWS):
        look = look_at(plan.model(fine), data.model_args, data.model_kwargs, key=key)
        theta = theta_of(plan, look)
        accuracy = error(operator, theta, look.values)
        if accuracy.worst > 0 and math.isfinite(accuracy.worst):
            found.append(accuracy.tolerance(float(loss(theta))))
    return min(found)


def theta_of(plan: Plan, look: ModelLook) -> Theta:
    """What the first solution of a model was asked for; of several experiments, the first of them."""
    site = look.solutions[plan.solutions[0]]
    return site.theta if site.batch is None else first_theta(site.theta, site.batch)


def tolerance_of(
    record: Record,
    found: Accuracy,
    loss: float,
    at_draws: Callable[[], float] | None = None,
    dtype: Any = jnp.float64,
    after: str = "At the first guess pretraining ends",
    limit: float = FAR_TOO_WRONG,
    advice: str = LARGER,
) -> float:
    """The tolerance that the noise asks for; it is at least what pretraining, or ``after``, has reached.

    ``at_draws()`` is asked where the solution at the first guess says little. For a network of single
    precision, ``dtype``, the tolerance is at least 1e-9: what may be reached at a first guess is seldom
    reached elsewhere. Raises `RunFailedError` where the error is ``limit`` times what is allowed.
    """
    finest = FINEST if dtype == jnp.float32 else 0.0
    tolerance = max(found.tolerance(loss), rounded(loss / HEADROOM, up=True), finest)
    if at_draws is not None and found.says_little and math.isfinite(other := at_draws()):
        tolerance = max(tolerance, other)
    record["tolerance"] = {"loss": tolerance, "accuracy": found._asdict(), "measured_at": loss}
    record.say(f"Tolerance from the noise: loss {tolerance:.0e} (at {loss:.1e}, {found}).")
    if found.worst > limit:
        raise RunFailedError(
            "the PDE is not solved at the first guess as well as the noise asks for: "
            f"{found}, at a loss of {loss:.1e}. Give an easier first guess, more points or a larger "
            f"network. {see('Not solved as the noise asks')}"
        )
    if found.worst > 1:
        record.alarm(
            f"{after} with {found}, at a loss of {loss:.1e}: less than "
            f"the noise asks for ({NOISE_LIMIT} sigma, {SIZE_LIMIT} of its size). {advice}"
        )
    return tolerance


def tolerance_at_mode(
    record: Record, error: PredictionError, operator: Any, values: Mapping[str, Any]
) -> float:
    """The tolerance that the noise asks for at the point estimate, where the operator is settled.

    As it was where theta has functions, of which the operator knows no home. Raises `RunFailedError`
    where it is out of reach.
    """
    theta = operator.home
    if len(theta) < len(operator.problem.parameters):
        return operator.loss_tolerance
    found = error(operator.operator, theta, values)
    loss = float(jit_once(lambda: operator.loss_of_home_state(theta))())
    if not math.isfinite(found.worst):
        raise RunFailedError(
            f"at the point estimate {dict(values)} the error of the solution is not finite. Look at the "
            "residual and the likelihood there, or restrict the prior."
        )
    tolerance = found.tolerance(loss)
    if found.worst > FAR_TOO_WRONG and tolerance < FINEST:
        raise RunFailedError(
            f"at the point estimate the PDE is not solved as well as the noise asks for: {found}, at a "
            f"loss of {loss:.1e}; {tolerance:.0e} is out of reach in single precision. "
            + see("Not solved as the noise asks")
        )
    # Tightened only as far as the error there asks for: the certificate will say whether that suffices.
    asked = rounded(loss / max(found.worst, 1e-15) ** 2)
    tolerance = max(tolerance, min(operator.loss_tolerance, asked))
    return noted_at_mode(record, tolerance, found, loss)


def noted_at_mode(record: Record, tolerance: float, found: Accuracy, loss: float) -> float:
    """The tolerance at the point estimate, written down and said."""
    record["tolerance_at_mode"] = {
        "loss": tolerance,
        "accuracy": found._asdict(),
        "measured_at": loss,
    }
    record.say(f"Tolerance at the point estimate: loss {tolerance:.0e} (at {loss:.1e}, {found}).")
    return tolerance

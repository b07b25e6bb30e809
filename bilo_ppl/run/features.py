"""The stage that chooses random features, where only the output layer is fine-tuned."""

from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro.distributions import ImproperUniform

from bilo_ppl._blocks import Interrupts
from bilo_ppl._types import Theta
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.checks import Plan, stand_in
from bilo_ppl.run.feature_count import Features, enough_features
from bilo_ppl.run.pretraining import save
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.sizes import described
from bilo_ppl.run.tolerance import theta_of, tolerance_of
from bilo_ppl.validation.accuracy import PredictionError

__all__ = ["featured"]

OTHERS, VARIED = 4, 0.1
"""Thetas at which features are tried beside the first guess, and how far flat sites are from it there."""

BY_FEATURES = 20.0
"""Error, in units of what is allowed, with which a run goes on: features that stay come no nearer, and
what that does to the result, up to a nat, the certificate says."""

MORE_FEATURES = "More features (--width) at more points (--points) may help; see the certificate."

MUCH_MORE = 10.0
"""Loss between the points, in units of that at them, from which on they do not suffice."""


def featured(
    plan: Plan, record: Record, interrupts: Interrupts, error: PredictionError | None
) -> OutputLayer:
    """An operator with random features, and the tolerance that the noise asks for.

    They are chosen, and ``error`` is measured, at the first guess and at draws from the prior. Raises
    `RunFailedError` if no features solve there, or not as well as the noise asks for.
    """
    file = plan.file
    record["sizes"] = plan.sizes
    record.say(f"\n{described(plan.sizes, file)}")
    with record.stage("features", f"Choosing {plan.sizes['width'].value} random features."):
        tried = [(file.start, plan.first_guess), *_others(plan)]
        try:
            found = enough_features(plan, record, tried, error)
        except ValueError as cause:
            raise RunFailedError(str(cause)) from cause
        best = found.best
        chosen = {"count": found.count, "trials": found.trials, "scale": best.scale}
        record["features"] = chosen
        record.say(
            f"Scale {best.scale:g} of {', '.join(f'{trial.scale:g}' for trial in found.trials)}: loss "
            f"{max(best.losses):.1e} at the points and {max(best.unseen):.1e} between them, the largest "
            f"at {len(tried)} thetas."
        )
        operator = OutputLayer(found.local, file.start, tolerance=plan.tolerance)
        if error is not None:
            plan = plan.with_tolerance(_tolerance(record, found))
            operator = operator.to_tolerance(plan.tolerance)
        save(plan, record, operator.operator, chosen, "operator.eqx")
    if max(best.unseen) > MUCH_MORE * max(max(best.losses), plan.tolerance):
        record.alarm(
            f"The collocation points do not suffice for {found.count} features: the loss is "
            f"{max(best.losses):.1e} at the points, and {max(best.unseen):.1e} between them. Give the "
            "problem more points (--points), or take fewer features (--width)."
        )
    interrupts.raise_if_any()
    return operator


def _others(plan: Plan) -> list[tuple[Theta, dict[str, Any]]]:
    """Thetas of the prior, with the values of the latent sites that they are made of.

    Of a site with a flat prior, such as a function's, the first guess is varied.
    """
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


def _tolerance(record: Record, found: Features) -> float:
    """The tightest that the noise asks for at any theta, but no less than the losses there are."""
    accuracy, loss = found.worst
    losses = found.best.losses
    after = f"At the worst of {len(losses)} thetas the features end"
    tolerance = tolerance_of(
        record, accuracy, loss, after=after, limit=BY_FEATURES, advice=MORE_FEATURES
    )
    return max(tolerance, 2 * max(losses))

"""The stage that chooses random features, where only the output layer is fine-tuned."""

from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro.distributions import ImproperUniform

from bilo_ppl._blocks import Interrupts
from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.operators.random_features import choose_random_features
from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.checks import Plan, stand_in
from bilo_ppl.run.pretraining import save
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.sizes import described
from bilo_ppl.run.tolerance import theta_of, tolerance_of
from bilo_ppl.validation.accuracy import Accuracy, PredictionError

__all__ = ["featured"]

OTHERS, VARIED = 4, 0.1
"""Thetas at which features are tried beside the first guess, and how far flat sites are from it there."""

MUCH_MORE = 10.0
"""Loss between the points, in units of that at them, from which on they do not suffice."""


def featured(
    plan: Plan, record: Record, interrupts: Interrupts, error: PredictionError | None
) -> OutputLayer:
    """An operator with random features, and the tolerance that the noise asks for.

    They are chosen, and ``error`` is measured, at the first guess and at draws from the prior. Raises
    `RunFailedError` if no features solve there, or not as well as the noise asks for.
    """
    file, settings = plan.file, plan.settings
    record["sizes"] = plan.sizes
    record.say(f"\n{described(plan.sizes, file)}")
    count = plan.sizes["width"].value
    with record.stage("features", f"Choosing {count} random features."):
        tried = [(file.start, plan.first_guess), *_others(plan)]
        try:
            local, trials = choose_random_features(
                file.problem,
                [theta for theta, _ in tried],
                count=count,
                key=jax.random.key(settings.seed),
            )
        except ValueError as cause:
            raise RunFailedError(str(cause)) from cause
        best = min(trials, key=lambda trial: trial.score)
        chosen = {"count": count, "trials": trials, "scale": best.scale}
        record["features"] = chosen
        record.say(
            f"Scale {best.scale:g} of {', '.join(f'{trial.scale:g}' for trial in trials)}: loss "
            f"{max(best.losses):.1e} at the points and {max(best.unseen):.1e} between them, the largest "
            f"at {len(tried)} thetas."
        )
        operator = OutputLayer(local, file.start, tolerance=plan.tolerance)
        if error is not None:
            plan = plan.with_tolerance(_tolerance(record, operator, error, tried, best.losses))
            operator = operator.to_tolerance(plan.tolerance)
        save(plan, record, operator.operator, chosen, "operator.eqx")
    if max(best.unseen) > MUCH_MORE * max(max(best.losses), plan.tolerance):
        record.alarm(
            f"The collocation points do not suffice for {count} features: the loss is "
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


def _tolerance(
    record: Record,
    operator: OutputLayer,
    error: PredictionError,
    tried: list[tuple[Theta, dict[str, Any]]],
    losses: list[float],
) -> float:
    """The tightest that the noise asks for at any theta, but no less than the losses there are."""
    key = jax.random.key(0)
    found: list[tuple[Accuracy, float]] = []
    for (theta, values), loss in zip(tried, losses, strict=True):
        state = _state(operator, theta)
        found.append((error(operator.settled(theta, state, key=key).operator, theta, values), loss))
    finite = [entry for entry in found if np.isfinite(entry[0].worst)]
    accuracy, loss = max(finite or found, key=lambda entry: entry[0].worst)
    after = f"At the worst of {len(tried)} thetas the features end"
    return max(tolerance_of(record, accuracy, loss, after=after), 2 * max(losses))


@jit_once
def _state(operator: OutputLayer, theta: Theta) -> Any:
    return operator.solve(theta, operator.init_state())[1]

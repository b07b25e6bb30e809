"""The stage that chooses random features, where only the output layer is fine-tuned."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro.distributions import ImproperUniform

from bilo_ppl._blocks import Interrupts
from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta, Weights
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.operators.random_features import FeatureTrial, choose_random_features
from bilo_ppl.pde.theta import theta_as
from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.plan import Plan, stand_in
from bilo_ppl.run.pretraining import save
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.sizes import described
from bilo_ppl.run.tolerance import FAR_TOO_WRONG, prediction_error, theta_of, tolerance_of
from bilo_ppl.validation.accuracy import Accuracy, PredictionError

__all__ = ["accuracy_of", "featured", "tolerance_at_estimate"]

OTHERS, VARIED = 4, 0.1
"""Thetas at which features are tried beside the first guess, and how far flat sites are from it there."""

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
    must_suffice: bool = False,
) -> OutputLayer:
    """An operator with random features, and the tolerance that the noise asks for.

    They are chosen, and ``error`` is measured, at the first guess and at draws from the prior. Raises
    `RunFailedError` if no features solve there, or not as well as the noise asks for. Where they
    ``must_suffice``, they do at the first guess and at most of the draws.
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
            found = _accuracies(operator, error, tried)
            if must_suffice:
                _check(plan, best, found)
            plan = plan.with_tolerance(_tolerance(record, found, best.losses))
            operator = operator.to_tolerance(plan.tolerance)
        save(plan, record, operator.operator, chosen, "operator.eqx")
    if not _seen_enough(best, plan.tolerance):
        record.alarm(
            f"{_too_few_points(plan, best)} Give the problem more points (--points), or take "
            "fewer features (--width)."
        )
    interrupts.raise_if_any()
    return operator


def accuracy_of(
    plan: Plan, operator: OutputLayer, theta: Theta, state: Weights, values: Mapping[str, Any]
) -> Accuracy:
    """How right the solution with the weights ``state`` is."""
    solved = operator.settled(theta, state, key=jax.random.key(0))
    return prediction_error(plan)(solved.operator, theta, values)


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


def _accuracies(operator: OutputLayer, error: PredictionError, tried: Tried) -> list[Accuracy]:
    key, found = jax.random.key(0), []
    for theta, values in tried:
        solved = operator.settled(theta, _state(operator, theta), key=key)
        found.append(error(solved.operator, theta, values))
    return found


def _check(plan: Plan, trial: FeatureTrial, found: list[Accuracy]) -> None:
    """Raise `RunFailedError` unless features do at home and at most of the other thetas.

    Where they do not among the others is not asked: the posterior may not come there.
    """
    if found[0].worst > 1:
        raise RunFailedError(f"with random features the first guess has {found[0]}")
    if np.median([accuracy.worst for accuracy in found]) > 1:
        raise RunFailedError("random features do not do at most prior draws")
    if not _seen_enough(trial, plan.tolerance):
        raise RunFailedError(_too_few_points(plan, trial))


def _seen_enough(trial: FeatureTrial, tolerance: float) -> bool:
    return max(trial.unseen) <= MUCH_MORE * max(max(trial.losses), tolerance)


def _too_few_points(plan: Plan, trial: FeatureTrial) -> str:
    return (
        f"The collocation points do not suffice for {plan.sizes['width'].value} features: the loss is "
        f"{max(trial.losses):.1e} at the points, and {max(trial.unseen):.1e} between them."
    )


def _tolerance(record: Record, found: list[Accuracy], losses: list[float]) -> float:
    """What the noise asks for at the first guess, but no less than the losses of solutions not far off.

    A search may pass where solutions are less right; `tolerance_at_estimate` says what holds in the end.
    """
    near = [
        loss
        for accuracy, loss in zip(found, losses, strict=True)
        if accuracy.worst <= FAR_TOO_WRONG
    ]
    after = "At the first guess the features end"
    return max(tolerance_of(record, found[0], losses[0], after=after), 2 * max(near, default=0.0))


def tolerance_at_estimate(
    record: Record,
    error: PredictionError,
    must_suffice: bool,
    operator: OutputLayer,
    values: Mapping[str, Any],
) -> float:
    """The tolerance that the noise asks for at a point estimate, where the operator is settled.

    A solve comes no nearer to it where it is tighter: what misses it is not solved. Raises
    `RunFailedError` where features ``must_suffice`` and do not.
    """
    theta = operator.home
    if len(theta) < len(operator.problem.parameters):
        return operator.loss_tolerance
    found = error(operator.operator, theta, values)
    loss = float(jit_once(operator.loss_of_home_state)(theta_as(theta, operator.operator.dtype)))
    if found.worst > 1:
        text = f"with random features the point estimate has {found}, at a loss of {loss:.1e}"
        if must_suffice:
            raise RunFailedError(text)
        record.alarm(f"{text}: less than the noise asks for. Try --fine-tune increments.")
    tolerance = max(found.tolerance(loss), 2 * loss)
    record["tolerance_at_mode"] = {
        "loss": tolerance,
        "accuracy": found._asdict(),
        "measured_at": loss,
    }
    record.say(f"Tolerance at the point estimate: loss {tolerance:.0e} (at {loss:.1e}, {found}).")
    return tolerance


@jit_once
def _state(operator: OutputLayer, theta: Theta) -> Any:
    return operator.solve(theta, operator.init_state())[1]

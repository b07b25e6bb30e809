"""The tolerance that the noise asks for, from how right the solution at the first guess is."""

from bilo_ppl.run.checks import Plan, untrained
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.validation.accuracy import NOISE_LIMIT, SIZE_LIMIT, Accuracy, PredictionError

__all__ = ["HEADROOM", "prediction_error", "tolerance_of"]

FAR_TOO_WRONG = 4.0
"""Where pretraining ends with u wrong by so many times what the noise allows for, the run ends too."""

HEADROOM = 0.5
"""Pretraining aims at this part of the tolerance, so that the start does not lie on its edge."""


def prediction_error(plan: Plan) -> PredictionError:
    """How right a solution at the first guess is, in units of the noise."""
    model = plan.model(plan.fine_tuned(untrained(plan)))
    data = plan.observations
    return PredictionError(model, data.model_args, data.model_kwargs, values=plan.first_guess)


def tolerance_of(record: Record, found: Accuracy, loss: float) -> float:
    """The tolerance that the noise asks for; it is at least what pretraining has reached."""
    tolerance = max(found.tolerance(loss), loss / HEADROOM)
    record["tolerance"] = {"loss": tolerance, "accuracy": found._asdict(), "measured_at": loss}
    record.say(f"Tolerance from the noise: loss {tolerance:.0e} (at {loss:.1e}, {found}).")
    if found.worst > FAR_TOO_WRONG:
        raise RunFailedError(
            "pretraining does not solve the PDE at the first guess as well as the noise asks for: "
            f"{found}, by a step at points that no fit has seen, at a loss of {loss:.1e}. A small "
            "loss may hide a wrong solution. Give a first guess at which the PDE is easier, more points "
            "or a larger network, or use the numerical operator; --tol sets the tolerance by hand."
        )
    if found.worst > 1:
        record.alarm(
            f"At the first guess pretraining ends with {found}, at a loss of {loss:.1e}: less than "
            f"the noise asks for ({NOISE_LIMIT} sigma, {SIZE_LIMIT} of its size). A larger network, "
            "more points or a first guess at which the PDE is easier may help."
        )
    return tolerance

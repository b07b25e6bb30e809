"""Whether u is determined at the first guess: a condition that was forgotten shows in no loss."""

from bilo_ppl._pages import see
from bilo_ppl.network.features import with_output_weights
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.run.tolerance import prediction_error
from bilo_ppl.validation.uniqueness import loosest_change

__all__ = ["warn_unless_determined"]

LARGEST_CHANGE = 0.5
"""Part of its size by which u may change within the tolerance; what is determined changes far less."""


def warn_unless_determined(plan: Plan, record: Record, operator: OutputLayer) -> None:
    """Alarm where u can be another function at the first guess, with a loss no larger than is allowed."""
    theta = plan.file.start
    _, state, _ = operator.solve(theta, operator.init_state())
    other = state + loosest_change(operator, theta, state)
    before, after = (with_output_weights(operator.operator, w) for w in (state, other))
    change = prediction_error(plan).between(before, after, theta, plan.first_guess).size
    record["undetermined"] = change
    if change > LARGEST_CHANGE:
        record.alarm(
            "The PDE and its conditions do not determine u at the first guess: within the tolerance it "
            f"can change by {change:.2g} times its size. Is a boundary or an initial condition missing? "
            + see("Not determined")
        )

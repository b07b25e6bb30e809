"""Whether u is determined at the first guess: a condition that was forgotten shows in no loss."""

from bilo_ppl._pages import see
from bilo_ppl.network.features import with_output_weights
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.feature_count import solved_state
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.validation.accuracy import PredictionError
from bilo_ppl.validation.uniqueness import loosest_change

__all__ = ["warn_unless_determined"]

LARGEST_CHANGE = 0.5
"""Part of its size by which u may change within the tolerance; what is determined changes far less."""

FROM_OUTSIDE = 100.0
"""How many times smaller the change is with u held all around, where conditions are missing; a tolerance
that is too loose for what happens inside leaves both alike."""


def warn_unless_determined(
    plan: Plan, record: Record, operator: OutputLayer, error: PredictionError
) -> None:
    """Alarm where u can be another function at the first guess, with a loss no larger than is allowed."""
    theta = plan.file.start
    state, _ = solved_state(operator, theta, operator.init_state())

    def size(held: bool) -> float:
        """Part of its size by which u changes."""
        other = state + loosest_change(operator, theta, state, held=held)
        before, after = (with_output_weights(operator.operator, w) for w in (state, other))
        return error.between(before, after, theta, plan.first_guess).size

    change, inside = size(False), size(True)
    record["undetermined"] = {"change": change, "with_u_held_around": inside}
    if change > max(LARGEST_CHANGE, FROM_OUTSIDE * inside):
        record.alarm(
            f"The PDE leaves u open at the first guess: it can change by {min(change, 100):.2g} times "
            "its size within the tolerance. Is a boundary or initial condition missing? "
            + see("Not determined")
        )

"""What a run says of the weights of all draws."""

import pytest

import bilo_ppl as bilo
from bilo_ppl.run.sample.printed import weights_note


def certificate(pareto_k):
    return bilo.Certificate(
        against="the numerical operator",
        draws=400,
        unsolved=0,
        left_out=0,
        achieved_loss=0.0,
        energy_error_sd=0.3,
        kl_divergence=0.04,
        effective_fraction=0.9,
        pareto_k=pareto_k,
        means={"k": (0.7, 0.71)},
        sds={"k": (0.02, 0.02)},
    )


@pytest.mark.parametrize(
    ("pareto_k", "says", "says_not"),
    [(0.2, "group certificate", "Do not use"), (0.9, "Do not use the weights", "stands above")],
)
def test_weights_are_offered_only_where_they_can_be_used(pareto_k, says, says_not):
    note = weights_note(certificate(pareto_k))
    assert says in note
    assert says_not not in note

"""The verdict, case by case: what speaks against a run, and how much."""

from types import SimpleNamespace

import pytest

from bilo_ppl.diagnostics.fit import Fit
from bilo_ppl.diagnostics.verdict import Evidence, State, judge, judge_estimates

NAN = float("nan")
GOOD_FIT, BAD_FIT = Fit(1.0, 0.4, 11, 100), Fit(9.0, 1e-9, 11, 100)


def certificate(*, distorted=False, trustworthy=False):
    return SimpleNamespace(distorted=distorted, trustworthy=trustworthy)


GOOD, ALARM, UNDECIDED = certificate(trustworthy=True), certificate(distorted=True), certificate()


def distance(mean_error, ess=1000.0):
    return SimpleNamespace(mean_error=mean_error, ess=ess)


FINE = Evidence(
    r_hat=1.002,
    ess=900.0,
    transitions=4000,
    diverging=0,
    draws_solved_anew=400,
    unsolved=0,
    certificates={"tighter": GOOD},
    certifiable=True,
    fits={"y": GOOD_FIT},
)


def test_nothing_speaks_against_it():
    found = judge(FINE)
    assert found.state is State.RIGHT
    assert found.reasons == found.unchecked == ()
    assert str(found) == (
        "Verdict: RIGHT AS FAR AS CHECKED (no divergences, R-hat 1.002, 900 effective draws, the PDE "
        "solved at 400 of 400 draws, certificate (tighter) GOOD, fit with p = 0.4)."
    )


FAILED, DOUBTFUL, RIGHT = State.FAILED, State.DOUBTFUL, State.RIGHT


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ({"diverging": 4000}, FAILED, "all 4000 transitions diverged"),
        ({"diverging": 3999}, DOUBTFUL, "3999 of 4000 transitions diverged"),
        ({"diverging": 41}, DOUBTFUL, "41 of 4000 transitions diverged"),
        ({"diverging": 40}, RIGHT, "40 divergences"),
        ({"diverging": 1}, RIGHT, "1 divergence,"),
        ({"diverging": None}, RIGHT, "not checked: divergences"),
        ({"moves": False}, FAILED, "one value in all draws"),
        ({"moves": False, "r_hat": NAN, "ess": NAN}, FAILED, "one value in all draws"),
        ({"r_hat": NAN}, DOUBTFUL, "too few draws to tell"),
        ({"ess": NAN}, DOUBTFUL, "too few draws to tell"),
        ({"r_hat": 1.0101}, DOUBTFUL, "have not mixed (R-hat 1.010)"),
        ({"r_hat": 1.01}, RIGHT, "R-hat 1.010"),
        ({"r_hat": 3.0}, DOUBTFUL, "have not mixed (R-hat 3.000)"),
        ({"ess": 399.0}, DOUBTFUL, "only 399 effective draws"),
        ({"ess": 400.0}, RIGHT, "400 effective draws"),
        ({"unsolved": 4}, RIGHT, "solved at 396 of 400"),
        ({"unsolved": 5}, DOUBTFUL, "not solved at 5 of 400 draws"),
        ({"unsolved": 200}, DOUBTFUL, "not solved at 200 of 400 draws"),
        ({"unsolved": 201}, FAILED, "not solved at 201 of 400 draws"),
        ({"unsolved": None}, RIGHT, "not checked: solves"),
        ({"unsolved": None, "certifiable": False}, RIGHT, "900 effective draws, fit"),
        ({"certificates": {}}, RIGHT, "not checked: the solution of the PDE (no certificate)"),
        ({"certificates": {"tighter": None}}, DOUBTFUL, "no certificate is decided (tighter)"),
        ({"certificates": {"tighter": UNDECIDED}}, DOUBTFUL, "no certificate is decided"),
        ({"certificates": {"tighter": ALARM}}, DOUBTFUL, "certificate (tighter) is an ALARM"),
        ({"certificates": {"a": GOOD, "b": ALARM}}, DOUBTFUL, "certificate (b) is an ALARM"),
        ({"certificates": {"a": UNDECIDED, "b": GOOD}}, RIGHT, "certificate (b) GOOD"),
        ({"certificates": {"a": None, "b": GOOD}}, RIGHT, "certificate (b) GOOD"),
        ({"certificates": {}, "certifiable": False}, RIGHT, "fit with p"),
        ({"fits": {"y": BAD_FIT}}, DOUBTFUL, "model and data contradict each other"),
        ({"fits": {"y": GOOD_FIT, "z": BAD_FIT}}, DOUBTFUL, "model and data of z contradict"),
        ({"fits": {}}, RIGHT, "not checked: the fit to the data"),
        ({"distances": {"D": distance(5.0)}}, DOUBTFUL, "the mean of D is 0.16 sd from the exact"),
        ({"distances": {"D": distance(-5.0)}}, DOUBTFUL, "the mean of D is 0.16 sd"),
        ({"distances": {"D": distance(3.9)}}, RIGHT, "means as on the grid"),
        ({"distances": {"D": distance(5.0, ess=1e6)}}, RIGHT, "means as on the grid"),
        ({"alarms": ["WARNING: It is odd. Very."]}, DOUBTFUL, "a stage has warned: It is odd."),
        ({"alarms": ["x" * 500]}, DOUBTFUL, "x ..."),
        ({"interrupted": True}, DOUBTFUL, "it was interrupted"),
    ],
)
def test_one_thing_at_a_time(change, state, reason):
    found = judge(FINE._replace(**change))
    assert found.state is state
    assert reason in str(found)
    assert str(found).startswith(f"Verdict: {state.value} {'(' if state is RIGHT else 'because '}")
    assert "\n" not in str(found)


def test_the_gravest_comes_first_and_all_are_named():
    found = judge(FINE._replace(r_hat=2.0, diverging=4000, certificates={"tighter": ALARM}))
    assert found.state is FAILED
    assert found.reasons == (
        "all 4000 transitions diverged",
        "the chains have not mixed (R-hat 2.000)",
        "the certificate (tighter) is an ALARM",
    )
    assert found.as_dict()["state"] == "FAILED"
    assert found.as_dict()["text"] == str(found)
    assert found.as_dict()["reasons"] == list(found.reasons)


def accuracy(*, good=False, alarming=False):
    return SimpleNamespace(good=good, alarming=alarming, largest_shift=0.7)


ESTIMATES = {
    "converged": [True, True],
    "solved": [True, True],
    "energies": [1.0, 2.0],
    "accuracy": accuracy(good=True),
}


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ({}, RIGHT, "2 of 2 descents converged, certificate GOOD"),
        ({"converged": [True, False]}, DOUBTFUL, "1 of 2 descents did not converge"),
        ({"solved": [True, False]}, DOUBTFUL, "not solved at 1 of 2 estimates"),
        ({"solved": [False, False]}, FAILED, "not solved at 2 of 2 estimates"),
        ({"energies": [1.0, NAN]}, FAILED, "U is not finite at 1 of 2"),
        ({"accuracy": None}, RIGHT, "not checked: the solution of the PDE"),
        ({"accuracy": None, "certifiable": False}, RIGHT, "descents converged)"),
        ({"accuracy": accuracy(alarming=True)}, DOUBTFUL, "moves the estimate by 0.7 sd"),
        ({"accuracy": accuracy()}, DOUBTFUL, "its certificate is undecided"),
        ({"alarms": ["Few points."]}, DOUBTFUL, "a stage has warned: Few points"),
        ({"interrupted": True}, DOUBTFUL, "it was interrupted"),
    ],
)
def test_estimates(change, state, reason):
    found = judge_estimates(**(ESTIMATES | change))
    assert found.state is state
    assert reason in str(found)

"""What a run advises where its verdict is not right: a cause, and options that there are."""

import re
from types import SimpleNamespace

import pytest

from bilo_ppl.diagnostics.fit import Fit
from bilo_ppl.diagnostics.verdict import Evidence, judge
from bilo_ppl.run.remedies import Operating, for_draws, for_estimates

NAN = float("nan")
NETWORK = Operating(features=False, numerical=False, rank=4, tolerance=1e-6)
FEATURES = Operating(features=True, numerical=False, rank=4, tolerance=None)
NUMERICAL = Operating(features=False, numerical=True, rank=4, tolerance=None)
ALL_WEIGHTS = Operating(features=False, numerical=False, rank=0, tolerance=1e-6)

FINE = Evidence(
    r_hat=1.002,
    ess=900.0,
    transitions=4000,
    diverging=0,
    draws_solved_anew=400,
    unsolved=0,
    certificates={"tighter": SimpleNamespace(distorted=False, trustworthy=True)},
    certifiable=True,
    fits={"y": Fit(1.0, 0.4, 11, 100)},
)
ALARM = {"tighter": SimpleNamespace(distorted=True, trustworthy=False)}
UNDECIDED = {"tighter": SimpleNamespace(distorted=False, trustworthy=False)}
OFF = {"D": SimpleNamespace(mean_error=9.0, ess=100.0)}


def advised(evidence, operating=NETWORK, **numbers):
    return for_draws(
        evidence, operating, **({"samples": 1000, "warmup": 500, "target_accept": 0.8} | numbers)
    )


@pytest.mark.parametrize(
    ("change", "operating", "says"),
    [
        ({"diverging": 90}, NETWORK, "steps too long for the posterior.*--target-accept 0.95"),
        ({"diverging": 90, "unsolved": 1}, NETWORK, "not solved: let it know more .--rank 8.,"),
        ({"diverging": 90, "solver_failures": 46}, NETWORK, "not solved: let it know more"),
        ({"diverging": 90, "solver_failures": 45, "unsolved": 1}, NETWORK, "too long"),
        ({"diverging": 90, "solver_failures": 90}, FEATURES, "not solved.*--width, --points"),
        ({"diverging": 90, "solver_failures": 90}, NUMERICAL, "not solved.*keep the prior"),
        ({"diverging": 90, "solver_failures": 90}, ALL_WEIGHTS, "allow more --max-inner-steps"),
        ({"moves": False}, NETWORK, "a chain that never moves"),
        ({"ess": NAN}, NETWORK, "too few draws to judge"),
        ({"ess": 100.0}, NETWORK, "draw more: --samples 4800 --resume extends this run"),
        ({"ess": 390.0}, NETWORK, "draw more: --samples 2000 --resume"),
        ({"r_hat": 1.02}, NETWORK, "draw more: --samples 2000 --resume"),
        ({"r_hat": 1.2}, NETWORK, "different places.*--warmup 1000.*figures/trace.png"),
        ({"unsolved": 9}, NETWORK, "does not know all of the posterior region: .*--rank 8"),
        ({"certificates": ALARM}, NETWORK, "not right enough for these data: take --tol 1e-07"),
        ({"certificates": ALARM}, FEATURES, "take a smaller --tol with more features"),
        ({"certificates": UNDECIDED}, NETWORK, "no certificate tells.*reference.."),
        ({"fits": {"y": Fit(9.0, 0.0, 9, 9)}}, NETWORK, "sigma is smaller than the noise"),
        ({"fits": {"y": Fit(0.1, 1.0, 9, 9)}}, NETWORK, "sigma is larger than the noise"),
        ({"distances": OFF}, NETWORK, "a mean is not that of the grid"),
        ({"interrupted": True}, NETWORK, "--resume goes on with it"),
    ],
)
def test_every_doubt_has_its_remedy(change, operating, says):
    evidence = FINE._replace(**change)
    (text,) = advised(evidence, operating)
    assert re.search(says, text), text
    assert "\n" not in text
    assert len(text) <= 160


def test_where_nothing_is_wrong_nothing_is_advised():
    assert advised(FINE) == ()
    assert advised(FINE._replace(diverging=40, r_hat=1.01, ess=400.0, unsolved=4)) == ()
    assert advised(FINE._replace(certificates=UNDECIDED, certifiable=False)) == ()


def test_numbers_of_the_run_are_counted_from():
    few = FINE._replace(ess=50.0)
    assert advised(few, samples=100) == ("draw more: --samples 960 --resume extends this run",)
    (long,) = advised(FINE._replace(diverging=90), target_accept=0.95)
    assert "less correlated" in long
    assert advised(few._replace(interrupted=True)) == ("--resume goes on with it",)


def test_a_verdict_carries_them_to_run_json():
    found = judge(FINE)._replace(advice=("draw more",)).as_dict()
    assert found["advice"] == ["draw more"]
    assert judge(FINE).as_dict()["advice"] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, []),
        ({"short": True}, ["a descent has not come to its end: allow --steps 1000"]),
        ({"short": True, "simultaneous": True}, ["--steps 1000, or a smaller --learning-rate"]),
        ({"unsolved": True}, ["not solved at an estimate: let it know more (--rank 8)"]),
        ({"accuracy": SimpleNamespace(alarming=True)}, ["take --tol 1e-07"]),
        ({"interrupted": True}, ["--resume goes on with it"]),
    ],
)
def test_estimates(change, says):
    fine = {"short": False, "simultaneous": False, "unsolved": False, "interrupted": False}
    fine |= {"steps": 500, "accuracy": SimpleNamespace(alarming=False), "operating": NETWORK}
    found = for_estimates(**(fine | change))
    assert len(found) == len(says)
    assert all(part in text for part, text in zip(says, found, strict=True))

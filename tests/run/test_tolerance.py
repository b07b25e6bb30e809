"""The tolerance at the point estimate, from errors that are told."""

import jax
import jax.numpy as jnp
import pytest

import bilo_ppl as bilo
from bilo_ppl.run.checks import prepare
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.tolerance import tolerance_at_mode, tolerance_at_prior_draws, tolerance_of
from bilo_ppl.validation.accuracy import NOISE_LIMIT, SAFE, Accuracy, PredictionError
from models import poisson

TOLERANCE = 1e-5


class _Record(Record):
    def __init__(self):
        self.entries, self.lines = {}, []

    def __setitem__(self, name, value):
        self.entries[name] = value

    def say(self, *lines):
        self.lines.extend(lines)


class _ToldError(PredictionError):
    """An error that is known beforehand, of a solution at some theta and values."""

    def __init__(self, worst):
        self.worst, self.asked = worst, []

    def __call__(self, operator, theta, values=None):
        self.asked.append((dict(theta), dict(values or {})))
        return Accuracy(self.worst * NOISE_LIMIT, 0.0)


@pytest.fixture
def fine():
    """An operator that was never trained: its loss is large, and home is D = 2."""
    local = bilo.LocalOperator(poisson.problem, {"D": 2.0}, key=jax.random.key(0), width=6)
    return bilo.FineTuned(local, bilo.LevenbergMarquardt(TOLERANCE, 5), bilo.PartialDerivative())


def tolerance(fine, worst):
    record, error = _Record(), _ToldError(worst)
    found = tolerance_at_mode(record, error, fine, {"D": 2.0})
    ((theta, values),) = error.asked
    assert float(theta["D"]) == values["D"] == 2.0
    assert record.entries["tolerance_at_mode"]["loss"] == found
    assert any("Tolerance at the point estimate" in line for line in record.lines)
    return found


def test_the_tolerance_is_loosened_to_what_the_noise_allows(fine):
    loss = float(fine.loss_of_home_state({"D": 2.0}))
    assert loss > 100 * TOLERANCE
    assert loss / 2.5 <= tolerance(fine, SAFE) <= loss
    assert tolerance(fine, 0.0) > 100 * loss


def test_it_is_tightened_as_far_as_the_error_asks_for_and_no_further(fine):
    loss = float(fine.loss_of_home_state({"D": 2.0}))
    worst = (1e2 * loss / (1.5 * TOLERANCE)) ** 0.5  # where rounding does not decide
    assert tolerance(fine, worst) == pytest.approx(1e-2 * TOLERANCE, rel=1e-3)
    # Within the limits it stays what it was.
    assert TOLERANCE / 2.5 <= tolerance(fine, (loss / TOLERANCE) ** 0.5 * SAFE) <= TOLERANCE


def test_a_loss_that_no_network_reaches_ends_the_run(fine):
    loss = float(fine.loss_of_home_state({"D": 2.0}))
    with pytest.raises(RunFailedError, match="out of reach in single precision"):
        tolerance(fine, (loss / 1e-14) ** 0.5)
    with pytest.raises(RunFailedError, match="the error of the solution is not finite"):
        tolerance(fine, float("nan"))


@pytest.mark.parametrize(
    ("worst", "at_draws", "wanted"),
    [
        (1e-5, 1e-7, 1e-7),  # home says little, and the draws ask for more than it would
        (1e-5, 1e-12, 1e-10),  # as far as home can be trusted
        (1e-5, float("inf"), 1e-10),  # the draws say nothing
        (0.4, 1e-3, 2e-14),  # home says it
    ],
)
def test_where_home_says_little_prior_draws_are_asked(worst, at_draws, wanted):
    record, found = _Record(), Accuracy(worst * NOISE_LIMIT, 0.0)
    assert tolerance_of(record, found, 1e-14, lambda: at_draws) == pytest.approx(wanted, rel=1e-6)


def test_the_tolerance_is_one_that_single_precision_reaches():
    record, found = _Record(), Accuracy(0.4 * NOISE_LIMIT, 0.0)
    assert tolerance_of(record, found, 1e-14, dtype=jnp.float32) == pytest.approx(1e-9)
    assert tolerance_of(record, found, 1e-14, dtype=jnp.float64) < 1e-13
    # What pretraining has not reached is not asked for.
    assert tolerance_of(record, found, 1e-8, dtype=jnp.float32) == pytest.approx(2e-8)


def test_of_prior_draws_the_tightest_tolerance_counts(fine, tmp_path):
    """With the same error everywhere that is the one of the least loss."""
    plan = prepare(SampleSettings("poisson", rank=0, out=tmp_path / "out"), load_model("poisson"))
    error = _ToldError(SAFE)
    found = tolerance_at_prior_draws(plan, error, fine.operator)
    thetas = [theta["D"] for theta, _ in error.asked]
    assert len({float(D) for D in thetas}) == 8
    assert all(
        float(D) == float(values["D"]) for D, (_, values) in zip(thetas, error.asked, strict=True)
    )
    solved = plan.fine_tuned(fine.operator)
    least = min(float(solved.loss_of_home_state({"D": D})) for D in thetas)
    assert least / 2.5 <= found <= least * (1 + 1e-6)
    assert tolerance_at_prior_draws(plan, _ToldError(float("nan")), fine.operator) == float("inf")

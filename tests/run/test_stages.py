"""What one stage of a run hands to the next: variances to the chains, energies to the certificate."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl._blocks import Interrupts
from bilo_ppl.adaptation.report import Adapted, AdaptReport
from bilo_ppl.diagnostics.verdict import State, Verdict
from bilo_ppl.mcmc import Draws
from bilo_ppl.run.checks import prepare
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.operators import Prepared, _scales
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample import pipeline
from bilo_ppl.run.sample.certificates import _certificate, _numerically
from bilo_ppl.run.sample.chains import make_sampler
from bilo_ppl.run.sample.kernel import make_kernel
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.settings import RunFailedError


@pytest.fixture
def plan(folder):
    def make(**options):
        options = {"chains": 2, "warmup": 0, "samples": 100, "quiet": True, **options}
        return prepare(
            SampleSettings("closed.py", operator="numerical", **options), load_model("closed.py")
        )

    return make


def sampler_of(plan, variances=None):
    return make_sampler(plan, plan.numerical, variances, None)


@pytest.mark.parametrize("kind", ["nuts", "bilo-hmc"])
def test_chains_begin_with_the_variances_that_adaptation_has_found(plan, kind):
    sampler = sampler_of(plan(sampler=kind), np.array([0.04]))
    sampler.start(jax.random.key(0))
    (matrix,) = jax.tree.leaves(sampler.state.adapt_state.inverse_mass_matrix)
    np.testing.assert_allclose(matrix, np.full((2, 1), 0.04), rtol=1e-6)
    # The next guess is ten times the first.
    np.testing.assert_allclose(sampler.state.adapt_state.step_size, 0.1, rtol=1e-6)


@pytest.mark.parametrize("kind", ["nuts", "hmc", "bilo-nuts"])
def test_a_covariance_is_a_dense_mass_matrix(plan, kind):
    sampler = sampler_of(plan(sampler=kind), np.array([[0.04]]))
    sampler.start(jax.random.key(0))
    (matrix,) = jax.tree.leaves(sampler.state.adapt_state.inverse_mass_matrix)
    np.testing.assert_allclose(matrix, np.full((2, 1, 1), 0.04), rtol=1e-6)


@pytest.mark.parametrize(
    ("unknowns", "shape"), [(1, (1,)), (2, (2, 2)), (100, (100, 100)), (101, (101,))]
)
def test_few_unknowns_are_sampled_with_their_covariance(unknowns, shape):
    positions = np.random.default_rng(0).normal(size=(200, unknowns))
    report = tuple.__new__(AdaptReport, ())
    adapted = Adapted({}, report, positions.var(axis=0), positions, dict)
    assert _scales(adapted).shape == shape
    assert _scales(dataclasses.replace(adapted, inverse_mass_matrix=None)) is None


@pytest.mark.parametrize(("unknowns", "adapts"), [(50, True), (51, False)])
def test_warm_up_learns_no_large_dense_matrix(unknowns, adapts):
    settings = SampleSettings("poisson", warmup=10)
    kernel = make_kernel(settings, lambda: None, {}, np.eye(unknowns))
    assert kernel._adapt_mass_matrix is adapts
    assert make_kernel(settings, lambda: None, {}, np.ones(unknowns))._adapt_mass_matrix


def test_without_an_adaptation_chains_begin_carefully(plan):
    sampler = sampler_of(plan(sampler="hmc"))
    sampler.start(jax.random.key(0))
    (matrix,) = jax.tree.leaves(sampler.state.adapt_state.inverse_mass_matrix)
    np.testing.assert_array_equal(matrix, np.ones((2, 1)))
    assert (sampler.state.adapt_state.step_size < 0.2).all()


def results_of(plan, operator=None):
    """Results of 200 draws with an operator: by default a closed form."""
    asked = plan(sampler="hmc")
    operator = operator or asked.numerical
    sampler = make_sampler(asked, operator, None, None)
    sampler.start(jax.random.key(0))
    sampler.run(100, keep=True, progress=False, label="")
    return Results(asked, object.__new__(Record), operator, sampler, operator)


def test_a_certificate_is_of_the_energies_of_the_chain_and_by_the_operator_that_is_given(plan):
    results = results_of(plan)
    exact = results.plan.numerical
    same = _certificate(results, exact)
    assert same.against == "the numerical operator"
    assert same.energy_error_sd < 1e-6
    energies = results.draws.statistics["potential_energy"]
    noise = 0.3 * np.random.default_rng(0).normal(size=energies.shape)
    draws = results.draws
    results.draws = Draws(
        draws.model,
        draws.args,
        draws.kwargs,
        draws.samples,
        {**draws.statistics, "potential_energy": energies + noise},
    )
    found = _certificate(results, exact)
    assert found.draws == 200
    assert found.energy_error_sd == pytest.approx(noise.std(), rel=1e-3)
    with pytest.raises(ValueError, match="Give reference="):
        _certificate(results, None)


def differences(results, nodes):
    return bilo.FiniteDifferences(results.plan.file.problem, nodes, theta={"D": 1.0})


@pytest.mark.parametrize("reweight", [False, True])
def test_a_coarse_numerical_operator_is_refined_before_it_raises_an_alarm(plan, reweight):
    results, said = results_of(plan), []
    # No option: a run by a numerical operator has no weights.
    object.__setattr__(results.plan.settings, "reweight", reweight)
    object.__setattr__(results.record, "say", lambda *lines: said.extend(lines))
    coarse = differences(results, 7)
    assert _certificate(results, coarse).distorted
    found = _numerically(results, coarse)
    assert found.trustworthy
    assert "the numerical operator, refined once, would move no" in found.verdict
    (line,) = said
    assert line.startswith("The numerical operator would move a mean by 0.")
    assert len(results.finest.nodes) == 13
    assert (found.weights is not None) is reweight
    if reweight:
        kept = _certificate(results, differences(results, 13), "all")
        np.testing.assert_allclose(found.weights, kept.weights)


def test_an_alarm_that_is_right_stays_on_a_finer_grid(plan):
    settled = results_of(plan)
    results, said = results_of(plan, differences(settled, 7)), []
    object.__setattr__(results.record, "say", lambda *lines: said.extend(lines))
    found = _numerically(results, differences(results, 101))
    assert found.distorted
    assert "refined once, would move the posterior mean by about" in found.verdict
    assert len(said) == 1
    # A closed form has no grid to refine.
    assert _numerically(results, settled.operator).against == "the numerical operator"


class Refinable(bilo.AbstractSolutionOperator):
    """u times 1 + error, which a refinement divides by a factor; or which cannot be refined."""

    problem: Any
    error: float
    factor: float = 4.0
    fails: bool = False

    def init_state(self):
        return ()

    def solve(self, theta, state):
        u = bilo.ClosedForm(self.problem, lambda x, t: jnp.sin(jnp.pi * x[0]) / t["D"]).solve
        field, state, info = u(theta, state)
        return lambda x: field(x) * (1 + self.error), state, info

    def refined(self):
        if self.fails:
            raise ValueError("Newton's method has failed.")
        return Refinable(self.problem, self.error / self.factor, self.factor)


@pytest.mark.parametrize(("factor", "times"), [(2.0, "twice"), (1.1, "once")])
def test_an_operator_is_refined_again_where_that_has_helped(plan, factor, times):
    results = results_of(plan)
    object.__setattr__(results.record, "say", lambda *lines: None)
    found = _numerically(results, Refinable(results.plan.file.problem, 0.2, factor))
    assert f"refined {times}, would" in found.verdict
    assert results.finest.error == pytest.approx(0.2 / factor ** (1 + (times == "twice")))


def test_an_alarm_stays_where_a_refinement_has_no_answer(plan):
    results, said = results_of(plan), []
    object.__setattr__(results.record, "say", lambda *lines: said.extend(lines))
    found = _numerically(results, Refinable(results.plan.file.problem, 0.2, fails=True))
    assert found.distorted
    assert said[-1] == "There it has no answer: Newton's method has failed."


def test_chains_are_not_run_about_one_of_several_modes(plan):
    report: Any = SimpleNamespace(other_mode="There is another mode.")
    prepared = Prepared(plan().numerical, None, lambda chains: None, report)
    with pytest.raises(RunFailedError, match=r"There is another mode\. .*--init prior samples all"):
        pipeline._attempt(plan(), object.__new__(Record), prepared)


class _Doubtful:
    """Results that contradict the adaptation; it notes what is done with them."""

    tolerance = 1e-6

    def __init__(self):
        self.done = []

    def write(self):
        self.done.append("draws")

    def draw_figures(self, verdict):
        assert verdict == "DOUBTFUL"
        self.done.append("figures")


class _Record(Record):
    """It keeps in memory what a record writes."""

    def __init__(self):
        self.alarms, self.last, self.content = [], "", {}

    def __setitem__(self, name, value):
        pass

    def alarm(self, text):
        self.alarms.append(text)

    def say(self, *texts):
        pass

    def status(self, text):
        self.last = text


def test_the_first_draws_are_kept_where_a_second_adaptation_fails(plan, monkeypatch):
    asked = plan()
    asked = dataclasses.replace(
        asked, settings=dataclasses.replace(asked.settings, operator="fine-tuned")
    )
    assert asked.settings.adapts
    prepared, results, record = (
        Prepared(asked.numerical, None, lambda n: None),
        _Doubtful(),
        _Record(),
    )

    def fails(*args):
        raise RunFailedError("nothing could be solved")

    monkeypatch.setattr(pipeline, "make_operator", lambda *args: prepared)
    monkeypatch.setattr(pipeline, "_attempt", lambda *args: (results, False))
    monkeypatch.setattr(pipeline, "_again", fails)
    monkeypatch.setattr(pipeline, "keep_adapted", lambda *args: results.done.append("operator"))

    def judged(*args, interrupted):
        results.done.append("verdict")
        return Verdict(State.DOUBTFUL, ("they disagree",), (), ())

    monkeypatch.setattr(pipeline, "judged", judged)
    found = ["Half of the draws need inner steps."]
    monkeypatch.setattr(pipeline, "contradictions", lambda results: list(found))
    monkeypatch.setattr(pipeline, "without_remedy", lambda *_: None)
    monkeypatch.setattr(pipeline, "print_report", lambda found: found.done.append("report"))
    monkeypatch.setattr(pipeline, "conclude", lambda record, *_: record.status("finished") or 0)
    assert pipeline._stages(asked, record, Interrupts()) == 0
    assert results.done == ["operator", "draws", "verdict", "figures", "report"]
    assert record.last == "finished"
    assert any("Half of the draws" in text for text in record.alarms)
    assert any("A second adaptation failed: nothing could be solved" in t for t in record.alarms)

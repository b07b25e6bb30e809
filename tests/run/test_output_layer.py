"""A run whose solves change the output layer alone."""

import itertools
import json
import pathlib
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.operators.random_features import FeatureTrial
from bilo_ppl.pde.collocation import scattered
from bilo_ppl.pde.domain import Box
from bilo_ppl.run import (
    MapSettings,
    SampleSettings,
    estimate_model,
    feature_count,
    features,
    operators,
    sample_model,
)
from bilo_ppl.run.map import pipeline
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample import pipeline as sampling
from bilo_ppl.run.sample.contradictions import may_give_way
from bilo_ppl.run.settings import BadInputError
from bilo_ppl.run.sizes import FILE, OPTION, USUAL, Chosen
from bilo_ppl.validation.accuracy import NOISE_LIMIT, Accuracy, PredictionError

MODEL = pathlib.Path(__file__).parents[2] / "benchmarks" / "gallery" / "source_coefficients.py"


@pytest.fixture(scope="module")
def gaussian():
    """Mean and sd of the five coefficients: the model is linear, its prior and noise Gaussian."""
    data = load_model(MODEL).observations(0)
    J = np.arange(1, 6)
    rows = np.sin(np.pi * np.asarray(data.x) * J) / (J * np.pi) ** 2 / 0.01
    covariance = np.linalg.inv(rows.T @ rows + np.eye(5) / 25)
    return covariance @ rows.T @ (np.asarray(data.y) / 0.01), np.sqrt(np.diag(covariance))


def test_a_run_finds_a_gaussian_posterior(gaussian, tmp_path):
    out = tmp_path / "out"
    settings = SampleSettings(MODEL, fine_tune="output-layer", out=out, quiet=True, samples=500)
    assert sample_model(settings) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["sizes"]["width"] == {"value": 128, "origin": "usual"}
    assert record["sizes"]["points"]["value"] == 512
    trials = [FeatureTrial(**trial) for trial in record["features"]["trials"]]
    best = min(trials, key=lambda trial: trial.score)
    assert all(record["features"][name] == getattr(best, name) for name in ("scale", "ridge"))
    # Of the same shape the one that is taken is nearly the best between the points.
    alike = [np.mean(np.log(t.unseen)) for t in trials if t.stretch == best.stretch]
    assert np.mean(np.log(best.unseen)) < min(alike) + 0.7
    assert not record.get("alarms")
    assert all("GOOD" in c["verdict"] for c in record["certificates"].values())
    mean, sd = gaussian
    for i, found in enumerate(record["summary"].values()):
        assert abs(found["mean"] - mean[i]) < 0.15 * sd[i]
        assert abs(found["sd"] / sd[i] - 1) < 0.12


def test_features_are_tried_first(gaussian, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample_model(SampleSettings(MODEL, out=out, samples=300, warmup=200, chains=2)) == 0
    assert "random features is tried first" in capsys.readouterr().out
    record = json.loads((out / "run.json").read_text())
    assert "pretrain" not in record["cpu_seconds"]
    assert not record.get("alarms")
    mean, sd = gaussian
    found = [entry["mean"] for entry in record["summary"].values()]
    assert np.all(np.abs(found - mean) < 0.25 * sd)


class TrainingError(Exception):
    """Raised where a network would be trained."""


class GivenError(PredictionError):
    """Errors in units of what is allowed, one after the other."""

    def __init__(self, worst):
        self.left = itertools.cycle(worst)

    def between(self, operator, better, theta, values=None):
        return Accuracy(next(self.left) * NOISE_LIMIT, 0.0)


@pytest.mark.parametrize(
    ("worst", "message"),
    [
        ([2.0, 0.1, 0.1, 0.1, 0.1], "the first guess has"),
        ([0.1, 2.0, 0.1, 2.0, 2.0], "do not do at enough prior draws"),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 20.0], "the point estimate has"),
    ],
)
def test_a_network_is_trained_where_features_do_not_do(monkeypatch, tmp_path, worst, message):
    def train(*_):
        raise TrainingError

    monkeypatch.setattr(operators, "prediction_error", lambda _: GivenError(worst))
    # It asks for errors as well.
    monkeypatch.setattr(features, "warn_unless_determined", lambda *_: None)
    monkeypatch.setattr(operators, "pretrained", train)
    with pytest.raises(TrainingError):
        sample_model(SampleSettings(MODEL, out=tmp_path / "out", quiet=True))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert message in record["features_failed"]
    # Nobody is warned of what was only tried.
    assert not record.get("alarms")


@pytest.mark.slow
def test_features_that_the_draws_contradict_give_way_to_a_network(monkeypatch, tmp_path):
    def train(*_):
        raise TrainingError

    monkeypatch.setattr(operators, "pretrained", train)
    monkeypatch.setattr(sampling, "contradictions", lambda found: ["They are wrong."])
    short = {"chains": 1, "warmup": 20, "samples": 40, "certify": False}
    with pytest.raises(TrainingError):
        sample_model(SampleSettings(MODEL, out=tmp_path / "out", quiet=True, **short))


@pytest.mark.parametrize(
    ("dimension", "unknowns", "kind", "adapts", "gives_way"),
    [
        (2, 64, OutputLayer, True, True),
        (2, 4000, OutputLayer, True, False),
        (1, 4000, OutputLayer, True, True),
        (3, 2, OutputLayer, True, False),
        (3, 2, FineTuned, True, True),
        (2, 64, OutputLayer, False, False),
    ],
)
def test_features_stay_where_no_network_would_end(dimension, unknowns, kind, adapts, gives_way):
    plan = Mock(spec=Plan)
    plan.scalars = unknowns
    plan.settings = SimpleNamespace(adapts=adapts, output_layer=False)
    domain = SimpleNamespace(dimension=dimension)
    plan.file = SimpleNamespace(problem=SimpleNamespace(domain=domain))
    assert may_give_way(plan, object.__new__(kind)) == gives_way


@pytest.mark.parametrize("would_end", [True, False])
def test_an_estimate_is_looked_at_before_features_are_kept(monkeypatch, tmp_path, would_end):
    def train(*_):
        raise TrainingError

    monkeypatch.setattr(operators, "pretrained", train)
    monkeypatch.setattr(pipeline, "accuracies_of", lambda *_: [Accuracy(2 * NOISE_LIMIT, 0.0)])
    monkeypatch.setattr(pipeline, "worth_a_network", lambda plan: would_end)
    settings = MapSettings(MODEL, out=tmp_path / "out", quiet=True, seeds=1)
    if would_end:
        with pytest.raises(TrainingError):
            estimate_model(settings)
    else:
        assert estimate_model(settings) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"width": 20},
        {"tol": 1e-5},
        {"rank": 0},
        {"max_inner_steps": 3},
        {"inner": "adam"},
        {"sensitivity": "implicit"},
        {"devices": 2},
        {"fine_tune": "increments"},
        {"adapt": False},
        {"sampler": "bilo-nuts"},
        {"operator": "numerical"},
    ],
)
def test_features_are_not_tried_where_an_option_asks_for_a_network(options):
    assert SampleSettings(MODEL).may_take_features
    assert not SampleSettings(MODEL, **options).may_take_features


def test_features_are_not_tried_in_a_descent_on_all_weights():
    assert MapSettings(MODEL).may_take_features
    assert not MapSettings(MODEL, method="simultaneous").may_take_features


def test_an_estimate_is_that_of_the_gaussian(gaussian, tmp_path):
    out = tmp_path / "out"
    assert estimate_model(MapSettings(MODEL, fine_tune="output-layer", out=out, quiet=True)) == 0
    found = json.loads((out / "map.json").read_text())
    mean, sd = gaussian
    assert np.all(np.abs(found["theta"][0]["b"] - mean) < 0.05 * sd)
    record, page = json.loads((out / "run.json").read_text()), (out / "report.html").read_text()
    assert record["certificate"]["good"]
    assert f"<p>{record['certificate']['text']}</p>" in page
    assert record["certificate"]["text"].startswith("GOOD: solving to a loss of")
    solver, work, reached = record["inner_report"]
    assert solver == "Inner solver: least squares for the output layer."
    assert work.startswith(
        f"Inner solves: {sum(found['inner_steps'])} steps in {sum(found['steps'])} "
    )
    assert f"(tolerance {record['tolerance']['loss']:.3g}); " in reached
    assert reached.endswith("the PDE is solved at 5 of 5 estimates.")
    assert all(f"<p>{line}</p>" in page for line in record["inner_report"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 3}, "--depth cannot be combined"),
        ({"fourier": 8}, "--fourier cannot be combined"),
        ({"inner": "adam"}, "a derivative of its own"),
        ({"operator": "numerical"}, "a derivative of its own"),
        ({"sensitivity": "implicit"}, "a derivative of its own"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(options, message):
    with pytest.raises(BadInputError, match=message):
        SampleSettings(MODEL, fine_tune="output-layer", **options)


def plan_of(points, origin):
    domain = Box((0.0, 0.0), (1.0, 1.0))
    problem = SimpleNamespace(points=scattered(domain, points), domain=domain)
    file = SimpleNamespace(problem=problem)
    sizes = {"width": Chosen(256, origin), "points": Chosen(points, FILE)}
    return Mock(spec=Plan, sizes=sizes, file=file, settings=SimpleNamespace(seed=0))


@pytest.mark.parametrize(
    ("points", "origin", "fixed", "counts"),
    [
        (2600, USUAL, False, [512, 1024]),
        (1024, USUAL, False, [512]),
        (1023, USUAL, False, []),
        (2600, OPTION, False, []),
        (1023, USUAL, True, [512, 1024, 2048]),
        (1023, OPTION, True, []),
    ],
)
def test_features_double_while_points_determine_their_weights(points, origin, fixed, counts):
    """Where the normal matrix is factored once, there are more points for more of them."""
    plan = plan_of(points, origin)
    found, known = (
        [],
        feature_count.Features(SimpleNamespace(points=plan.file.problem.points), [], 256, []),
    )
    while True:
        count = 256 * 2 ** (len(found) + 1)
        given = feature_count._points_for(plan, known, count, fixed)
        if given is None:
            break
        assert len(given) >= 2 * count
        np.testing.assert_array_equal(given[:points], plan.file.problem.points)
        found.append(count)
    assert found == counts


def test_points_that_were_asked_for_stay():
    plan = plan_of(1023, USUAL)
    plan.sizes["points"] = Chosen(1023, OPTION)
    known = feature_count.Features(SimpleNamespace(points=plan.file.problem.points), [], 256, [])
    assert feature_count._points_for(plan, known, 512, True) is None


@pytest.mark.parametrize(
    ("right_from", "fixed", "count"),
    [(1, False, 256), (512, False, 512), (1024, False, 256), (1024, True, 1024), (9999, True, 256)],
)
def test_there_are_more_features_where_they_are_far_too_few(monkeypatch, right_from, fixed, count):
    """The error of u is 0.1 sigma, twice what is allowed, from so many features on, else one sigma.

    Where they cost little, a doubling that has not helped is not the last one.
    """

    class Local(int):
        points = plan_of(2600, USUAL).file.problem.points

    def choose(problem, thetas, *, count, key):
        return Local(count), [FeatureTrial(1.0, [1e-3, 2e-3], [1e-3, 3e-3])]

    def add(local, thetas, *, like, more, key, points):
        assert points is None
        return Local(round((1 + more) * local)), FeatureTrial(
            like.scale, [1e-3, 2e-3], [1e-3, 3e-3]
        )

    def measured(plan, found, tried, error):
        return [Accuracy(0.02, 0.0), Accuracy(0.1 if found.local >= right_from else 1.0, 0.0)]

    monkeypatch.setattr(feature_count, "choose_random_features", choose)
    monkeypatch.setattr(feature_count, "add_features", add)
    monkeypatch.setattr(feature_count, "_measured", measured)
    monkeypatch.setattr(feature_count, "_is_fixed", lambda plan, found: fixed)
    said = []
    record, error = Mock(spec=Record, say=said.append), Mock(spec=PredictionError)
    plan, tried = plan_of(2600, USUAL), [({}, {}), ({}, {})]
    found = feature_count.enough_features(plan, record, tried, error)
    assert found.count == found.local == count
    assert len(said) == {1: 0, 512: 1, 1024: 3 if fixed else 2, 9999: 4}[right_from]
    assert found.worst == (found.accuracies[1], 2e-3)


@pytest.mark.parametrize(("linear", "tolerance"), [(True, 5e-3), (False, 1e-4)])
def test_where_a_solve_is_one_step_draws_may_leave_what_prior_draws_left(
    monkeypatch, linear, tolerance
):
    """The estimate is solved to 1e-5, prior draws to 1e-3: a posterior may be as wide as the prior."""
    monkeypatch.setattr(features, "accuracies_of", lambda *_: [Accuracy(0.9 * NOISE_LIMIT, 0.0)])
    monkeypatch.setattr(features, "jit_once", lambda function: lambda *_: 1e-5)
    problem, known = SimpleNamespace(parameters=("a",)), {"a": 1.0}
    operator = Mock(
        spec=OutputLayer, home=known, problem=problem, loss_tolerance=1e-2, linear=linear
    )
    record = Mock(spec=Record)
    record.__setitem__ = Mock()
    error = Mock(spec=PredictionError)
    found = features.tolerance_at_estimate(record, error, 1.0, operator, {})
    assert found == pytest.approx(tolerance, rel=0.3)

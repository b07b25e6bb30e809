"""Calibration of closed-form models: right ones pass, broken ones fail, nothing is done twice."""

import concurrent.futures
import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from scipy import stats

import bilo_ppl as bilo
from bilo_ppl.validation import calibration, replicate
from models import poisson

X = np.array([[0.25], [0.5]])
KEY = jax.random.key(5)
SIZES = {"replicates": 60, "warmup": 80, "kept": 39, "thin": 4, "progress": False}


def linear(x, theta):
    """u = D x: with a Gaussian prior of D the posterior is Gaussian."""
    return theta["D"] * x[0]


OPERATOR = bilo.ClosedForm(poisson.problem, linear)
POSITIVE = bilo.ClosedForm(poisson.problem, linear, valid=lambda theta: theta["D"] > 0)
TWICE = bilo.ClosedForm(poisson.problem, lambda x, theta: 2 * theta["D"] * x[0])


def model(operator, x, y=None, sigma=0.3):
    D = numpyro.sample("D", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def honest(operator, x, sigma):
    """Where data come from, whatever the noise that the model believes in."""
    return model(operator, x)


def calibrate(kernel=None, operator=OPERATOR, **options):
    return bilo.calibrate(kernel or NUTS(model), KEY, operator, X, **{**SIZES, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calibration") / "replicates"


@pytest.fixture(scope="module")
def right(folder):
    return calibrate(folder=folder)


def test_a_right_model_passes(right):
    assert list(right.ranks) == ["D", "log-likelihood"]
    assert right.ranks["D"].shape == (60,)
    assert right.passes()
    assert np.median([record["effective_draws"] for record in right.records]) > 30
    assert "Calibration of 60 replicates passes" in str(right)


def test_ranks_are_those_of_the_gaussian_posterior(right):
    """A rank is binomial: its mean is the posterior's probability of being below the truth."""
    a = X[:, 0]
    precision = 1 + a @ a / 0.3**2
    below: dict[str, list[float]] = {"D": [], "log-likelihood": []}
    for record in right.records:
        # Truth and data once more.
        key = jax.random.fold_in(jax.random.split(jax.random.fold_in(KEY, record["index"]))[0], 0)
        tape = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace(OPERATOR, X)
        truth, y = float(tape["D"]["value"]), np.asarray(tape["y"]["value"])
        assert truth == pytest.approx(record["truths"]["D"])
        posterior = stats.norm(a @ y / 0.3**2 / precision, precision**-0.5)
        below["D"].append(posterior.cdf(truth))
        # The likelihood falls with the distance from its maximum.
        best = a @ y / (a @ a)
        ends = best - abs(truth - best), best + abs(truth - best)
        below["log-likelihood"].append(posterior.cdf(ends[0]) + posterior.sf(ends[1]))
    for name, fractions in below.items():
        away = right.ranks[name] / right.kept - np.array(fractions)
        assert np.abs(away).mean() < 0.08
        assert abs(away.mean()) < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": 0.1, "generator": honest},
        {"reference": TWICE},
    ],
    ids=["noise", "equation"],
)
def test_a_broken_model_fails(wrong):
    assert not calibrate(**wrong).passes()


def test_a_second_call_does_nothing_again(folder, right, monkeypatch):
    monkeypatch.setattr(calibration, "Replicates", None)
    again = calibrate(folder=folder)
    assert again.records == right.records
    fewer = calibrate(folder=folder, replicates=30)
    assert list(fewer.ranks["D"]) == list(right.ranks["D"][:30])


def test_it_goes_on_from_what_is_there(folder, right, monkeypatch):
    (folder / "replicate-00007.json").unlink()
    done = []
    add = calibration.add_record
    monkeypatch.setattr(
        calibration, "add_record", lambda f, record: (done.append(record["index"]), add(f, record))
    )
    again = calibrate(folder=folder)
    assert done == [7]
    assert [r["ranks"] for r in again.records] == [r["ranks"] for r in right.records]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"thin": 3}, "thin: 4 then, 3 now"),
        ({"operator": POSITIVE}, None),
        ({"reference": TWICE}, None),
        ({"sigma": 0.5}, "arguments of the model, and the reference: of other values"),
    ],
)
def test_a_folder_of_another_calibration_is_refused(folder, right, other, named):
    with pytest.raises(ValueError, match=named or "another calibration"):
        calibrate(folder=folder, **other)


def test_replicates_of_nobody_and_broken_files_are_refused(tmp_path, folder, right):
    (tmp_path / "replicate-00000.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no calibration\.json says what they are of"):
        calibrate(folder=tmp_path)
    path = folder / "replicate-00003.json"
    text = path.read_text()
    path.write_text(text[:10])
    with pytest.raises(ValueError, match="cannot be read"):
        calibrate(folder=folder)
    path.write_text(text)
    assert json.loads(text)["index"] == 3


def test_any_executor_gives_the_same(right):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        found = calibrate(replicates=12, executor=executor, per_job=8)
    assert list(found.ranks["D"]) == list(right.ranks["D"][:12])


def test_a_setting_can_go_to_another_process(monkeypatch, folder):
    kept = []
    monkeypatch.setattr(calibration, "Replicates", lambda setting: kept.append(setting) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibrate()
    setting = pickle.loads(pickle.dumps(kept[0]))
    assert setting.key == kept[0].key
    with pytest.raises(ValueError, match="JAX_ENABLE_X64=0"):
        replicate.Replicates(dataclasses.replace(setting, double=False))


def test_nothing_is_traced_again():
    traced = []

    def counted(operator, x, y=None):
        traced.append(None)
        return model(operator, x, y)

    def count(replicates):
        traced.clear()
        calibrate(NUTS(counted), replicates=replicates, kept=9, warmup=10, thin=1)
        return len(traced)

    assert count(10) == count(20)


def test_truths_without_a_solution_are_drawn_anew():
    found = calibrate(operator=POSITIVE, replicates=20)
    assert all(record["truths"]["D"] > 0 for record in found.records)
    assert 5 < found.total("redrawn") < 45
    nowhere = bilo.ClosedForm(poisson.problem, linear, valid=lambda theta: theta["D"] > 99)
    with pytest.raises(ValueError, match="at none of 1000 truths"):
        calibrate(reference=nowhere)


def test_a_generator_stands_in_for_a_factor_and_vectors_are_ranked_by_entry():
    def with_factor(operator, x, y=None):
        D = numpyro.sample("D", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        u = bilo.solution("u", operator, {"D": D[0]})
        if y is not None:
            numpyro.factor("fit", -0.5 * jnp.sum((y - jnp.array([u(x[1]), D[1]])) ** 2))

    def generator(operator, x):
        D = numpyro.sample("D", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        u = bilo.solution("u", operator, {"D": D[0]})
        noise = jax.random.normal(numpyro.prng_key(), (2,))
        numpyro.deterministic("y", jnp.array([u(x[1]), D[1]]) + noise)

    found = calibrate(NUTS(with_factor), generator=generator)
    assert list(found.ranks) == ["D[0]", "D[1]", "log-likelihood"]
    assert found.passes()
    with pytest.raises(ValueError, match="no site 'y'"):
        calibrate(NUTS(with_factor))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicates": 9}, "replicates=9; the least is 10"),
        ({"kept": 100}, "101 possible ranks"),
        ({"thin": 0}, "thin=0"),
        ({"kernel": NUTS(potential_fn=lambda z: 0.0)}, "made with a model"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(**options)

"""A run whose solves change the output layer alone."""

import json

import numpy as np
import pytest

from bilo_ppl.run import MapSettings, SampleSettings, estimate_model, sample_model
from bilo_ppl.run.settings import BadInputError

MODEL = """
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
import bilo_ppl as bilo

J = np.arange(1, 4)

class Source(bilo.Problem):
    parameters, components = ("b",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)
    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["b"] @ jnp.sin(J * jnp.pi * x[0])
    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw

problem, start = Source(), {"b": np.zeros(3)}
truth = {"b": np.array([3.0, -2.0, 1.0])}

def closed_form(x, theta):
    return (theta["b"] / (J * jnp.pi) ** 2) @ jnp.sin(J * jnp.pi * x[0])

def model(operator, x, y=None, sigma=0.01):
    b = numpyro.sample("b", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
    u = bilo.solution("u", operator, {"b": b})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)

def synthetic_data(seed):
    x = problem.domain.interior_grid(22)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.01 * np.random.default_rng(seed).normal(size=20), "sigma": 0.01}

def reference():
    return bilo.ClosedForm(problem, closed_form)
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "source.py"
    path.write_text(MODEL)
    return path


def gaussian_posterior():
    """Mean and sd of the coefficients: the model is linear, its prior and noise Gaussian."""
    scope: dict = {}
    exec(MODEL, scope)
    data, J = scope["synthetic_data"](0), scope["J"]
    rows = np.sin(np.pi * data["x"] * J) / (J * np.pi) ** 2 / 0.01
    covariance = np.linalg.inv(rows.T @ rows + np.eye(3) / 25)
    return covariance @ rows.T @ (data["y"] / 0.01), np.sqrt(np.diag(covariance))


def test_a_run_finds_a_gaussian_posterior_from_a_start_that_is_trivial(model, tmp_path):
    out = tmp_path / "out"
    settings = SampleSettings(model, fine_tune="output-layer", out=out, quiet=True, samples=500)
    assert sample_model(settings) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["sizes"]["width"] == {"value": 25, "origin": "usual"}
    scores = {
        t["scale"]: np.mean(np.log(np.maximum(t["unseen"], 1e-20)))
        for t in record["features"]["trials"]
    }
    assert record["features"]["scale"] == min(scores, key=scores.__getitem__)
    assert not record.get("alarms")
    assert all("GOOD" in c["verdict"] for c in record["certificates"].values())
    mean, sd = gaussian_posterior()
    for i, found in enumerate(record["summary"].values()):
        assert abs(found["mean"] - mean[i]) < 0.15 * sd[i]
        assert abs(found["sd"] / sd[i] - 1) < 0.12


def test_an_estimate_is_that_of_the_gaussian(model, tmp_path):
    out = tmp_path / "out"
    assert estimate_model(MapSettings(model, fine_tune="output-layer", out=out, quiet=True)) == 0
    found = json.loads((out / "map.json").read_text())
    mean, sd = gaussian_posterior()
    np.testing.assert_allclose(found["theta"][0]["b"], mean, atol=0.02 * sd.min())
    assert json.loads((out / "run.json").read_text())["certificate"]["good"]


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
def test_options_that_do_not_go_with_it_are_refused(model, options, message):
    with pytest.raises(BadInputError, match=message):
        SampleSettings(model, fine_tune="output-layer", **options)

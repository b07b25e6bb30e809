"""A run whose solves change the output layer alone."""

import json
import pathlib

import numpy as np
import pytest

from bilo_ppl.run import MapSettings, SampleSettings, estimate_model, sample_model
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.settings import BadInputError

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
    assert record["sizes"]["width"] == {"value": 25, "origin": "usual"}
    scores = {
        t["scale"]: np.mean(np.log(np.maximum(t["unseen"], 1e-20)))
        for t in record["features"]["trials"]
    }
    assert record["features"]["scale"] == min(scores, key=scores.__getitem__)
    assert not record.get("alarms")
    assert all("GOOD" in c["verdict"] for c in record["certificates"].values())
    mean, sd = gaussian
    for i, found in enumerate(record["summary"].values()):
        assert abs(found["mean"] - mean[i]) < 0.15 * sd[i]
        assert abs(found["sd"] / sd[i] - 1) < 0.12


def test_an_estimate_is_that_of_the_gaussian(gaussian, tmp_path):
    out = tmp_path / "out"
    assert estimate_model(MapSettings(MODEL, fine_tune="output-layer", out=out, quiet=True)) == 0
    found = json.loads((out / "map.json").read_text())
    mean, sd = gaussian
    assert np.all(np.abs(found["theta"][0]["b"] - mean) < 0.05 * sd)
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
def test_options_that_do_not_go_with_it_are_refused(options, message):
    with pytest.raises(BadInputError, match=message):
        SampleSettings(MODEL, fine_tune="output-layer", **options)

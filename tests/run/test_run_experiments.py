"""Runs of model files with several experiments, or whose sites are shaped unlike their theta."""

import json
import pathlib
import textwrap

import numpy as np
import pytest

from bilo_ppl.cli import main
from bilo_ppl.diagnostics import load

TINY = ["--chains", "2", "--warmup", "30", "--samples", "30", "--sampler", "hmc", "--quiet"]

FILE = """
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import bilo_ppl as bilo
from models import poisson

COUNT = 3

class Small(poisson.Poisson):
    points = bilo.interval(0.0, 1.0).grid(21)

problem, start, architecture = Small(), {"D": 1.0}, {"width": 16}
true = np.array([0.9, 1.0, 1.1])

def exact_solution(x, theta):
    return jnp.sin(jnp.pi * x[0]) / theta["D"]

def reference():
    return bilo.ClosedForm(problem, exact_solution)

def model(operator, x, y, sigma=0.05):
    with numpyro.plate("experiments", COUNT):
        D = numpyro.sample("D", dist.LogNormal(0.0, 0.3))
    us = bilo.solutions("u", operator, {"D": D})
    mean = us(x.reshape(COUNT, -1, 1)).reshape(-1)
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y)

def synthetic_data(seed):
    x = np.linspace(0.1, 0.9, 5)
    u = np.sin(np.pi * x) / true[:, None]
    noise = 0.05 * np.random.default_rng(seed).normal(size=u.size)
    return {"x": np.tile(x, COUNT)[:, None], "y": u.ravel() + noise, "sigma": 0.05}
"""

FIRST_ONLY = """
def model(operator, x, y, sigma=0.05):
    D = numpyro.sample("D", dist.LogNormal(0.0, 0.3).expand([COUNT]).to_event(1))
    u = bilo.solution("u", operator, {"D": D[0]})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)
"""
"""A site D of shape (3,), an entry D that is a number."""

REPEATED = """
class Pair(Small):
    def residual(self, u, x, theta):
        return super().residual(u, x, {"D": jnp.mean(theta["D"])})

problem, start = Pair(), {"D": np.ones(2)}

def exact_solution(x, theta):
    return jnp.sin(jnp.pi * x[0]) / jnp.mean(theta["D"])

def model(operator, x, y, sigma=0.05):
    D = numpyro.sample("D", dist.LogNormal(0.0, 0.3))
    u = bilo.solution("u", operator, {"D": D * jnp.ones(2)})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)
"""
"""A site D that is a number, an entry D of shape (2,)."""

MAPPED = """
def model(operator, x, y, sigma=0.05):
    with numpyro.plate("experiments", COUNT):
        D = numpyro.sample("D", dist.LogNormal(0.0, 0.3))
    points = x.reshape(COUNT, -1, 1)
    def one(D, x):
        return jax.vmap(bilo.solution("u", operator, {"D": D}))(x)
    numpyro.sample("y", dist.Normal(jax.vmap(one)(D, points).reshape(-1), sigma), obs=y)
"""

PLATED = """
def model(operator, x, y, sigma=0.05):
    with numpyro.plate("experiments", COUNT):
        D = numpyro.sample("D", dist.LogNormal(0.0, 0.3))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jnp.zeros(len(y)), sigma), obs=y)
"""


@pytest.fixture
def write(folder):
    """Writes a model file, with other definitions below, and gives its name."""

    def written(change=""):
        pathlib.Path("several.py").write_text(FILE + textwrap.dedent(change))
        return "several.py"

    return written


@pytest.mark.parametrize("change", [MAPPED, PLATED], ids=["vmap", "plate"])
@pytest.mark.parametrize("operator", ["numerical", "fine-tuned"])
def test_a_mapped_solution_is_refused_in_the_check(write, capsys, change, operator):
    assert main(["run", write(change), "--operator", operator]) == 2
    message = capsys.readouterr().err
    assert "bilo.solutions" in message
    assert "Traceback" not in message
    assert not pathlib.Path("runs").exists()


def results(change, shape):
    """What a finished run has left: draws of D, and run.json."""
    found = json.loads(pathlib.Path("out/run.json").read_text())
    assert found["status"] == "finished"
    draws = load("out/posterior.nc")["posterior"]["D"].values
    assert draws.shape == (2, 30, *shape)
    return draws, found


@pytest.mark.parametrize(
    ("change", "shape"),
    [("", (3,)), (FIRST_ONLY, (3,)), (REPEATED, ())],
    ids=["several", "first only", "repeated"],
)
def test_a_run_with_a_numerical_operator(write, change, shape):
    arguments = [write(change), "--operator", "numerical", *TINY]
    assert main(["run", *arguments, "--out", "out"]) == 0
    results(change, shape)
    if not change:
        names = {path.stem for path in pathlib.Path("out/figures").iterdir()}
        assert {"solution_0", "solution_1", "solution_2"} <= names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "shape"),
    [("", (3,)), (FIRST_ONLY, (3,)), (REPEATED, ())],
    ids=["several", "first only", "repeated"],
)
def test_a_run_with_an_adapted_operator(write, change, shape):
    assert main(["run", write(change), *TINY, "--warmup", "100", "--out", "out"]) == 0
    draws, found = results(change, shape)
    if not change:
        np.testing.assert_allclose(draws.mean(axis=(0, 1)), [0.9, 1.0, 1.1], atol=0.12)
        assert found["adapt"]["ready"]
        assert found["certificates"]["numerical"]["kl_divergence"] < 0.05


@pytest.mark.slow
def test_estimates_of_several_experiments(write):
    arguments = [write(), "--seeds", "1", "--quiet", "--out", "out"]
    assert main(["map", *arguments]) == 0
    found = json.loads(pathlib.Path("out/map.json").read_text())
    assert found["converged"] == [True]
    np.testing.assert_allclose(found["theta"][0]["D"], [0.9, 1.0, 1.1], atol=0.12)
    assert found["u_relative_error"]["mean"] < 1e-2

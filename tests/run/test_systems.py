"""Whole runs with data of a system from CSV: components, missing values, experiments."""

import json
import pathlib
import re

import numpy as np
import pytest

from bilo_ppl.cli import main
from bilo_ppl.diagnostics.results import load

MODEL = """
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
import bilo_ppl as bilo

class Growth(bilo.Problem):
    parameters, components = ("a",), 2
    component_names = ("prey", "predator")
    domain = bilo.time_interval(0.0, 2.0)
    points = domain.grid(5)
    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - theta["a"] * jnp.array([1.0, 3.0])

problem, start = Growth(), {"a": 1.0}

def model(operator, x, y=None, sigma=0.1, experiment=None):
    sigma = jnp.broadcast_to(jnp.asarray(sigma), (len(x), 2))
    for i in range(2):
        a = numpyro.sample(f"a{i}", dist.Normal(0.0, 100.0))
        u = jax.vmap(bilo.solution(f"u{i}", operator, {"a": a}))(x)
        here = (experiment == i)[:, None]
        with numpyro.handlers.mask(mask=here):
            bilo.observed(f"y{i}", dist.Normal(u, sigma), y)

def synthetic_data(seed):
    x = np.tile(problem.domain.grid(4), (2, 1))
    return {"x": x, "y": x * [1.0, 3.0], "sigma": 0.1, "experiment": ["wet"] * 4 + ["dry"] * 4}

def reference():
    return bilo.ClosedForm(problem, lambda x, theta: theta["a"] * x[0] * jnp.array([1.0, 3.0]))
"""

ROWS = """experiment,predator,sigma_predator,t,prey
wet,3.3,0.5,1,
dry,6.2,0.3,1,2.1
wet,,,0.5,0.7
dry,,,2,3.9
wet,6.1,0.5,2,2.2
"""
"""Of a0 (dry) and a1 (wet); sigma of prey is the model's."""


def by_hand(label):
    """Least squares of the values of an experiment: mean and sd of its rate."""
    rows = [line.split(",") for line in ROWS.splitlines()[1:]]
    slopes, y, sd = [], [], []
    for experiment, predator, noise, t, prey in rows:
        if experiment != label:
            continue
        for value, factor, sigma in ((prey, 1.0, 0.1), (predator, 3.0, noise)):
            if value:
                slopes.append(factor * float(t))
                y.append(float(value))
                sd.append(float(sigma))
    g, y, w = np.array(slopes), np.array(y), np.array(sd) ** -2.0
    return (w * g * y).sum() / (w * g * g).sum(), (w * g * g).sum() ** -0.5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("system.py").write_text(MODEL)
    pathlib.Path("data.csv").write_text(ROWS)
    return tmp_path


COMMON = ["--operator", "numerical", "--quiet", "--data", "data.csv", "--out", "here"]


@pytest.mark.parametrize("optimizer", ["lbfgs", "gauss-newton"])
def test_the_estimate_is_that_of_the_values_that_are_there(folder, optimizer):
    assert main(["map", "system.py", *COMMON, "--optimizer", optimizer]) == 0
    (theta,) = json.loads((folder / "here/map.json").read_text())["theta"]
    np.testing.assert_allclose(theta["a0"], by_hand("dry")[0], rtol=1e-4)
    np.testing.assert_allclose(theta["a1"], by_hand("wet")[0], rtol=1e-4)
    assert (folder / "here/figures/solution.png").exists()


def test_the_posterior_and_its_results(folder, capsys):
    arguments = [*COMMON[:2], *COMMON[3:], "--chains", "1", "--warmup", "300", "--samples", "1000"]
    assert main(["run", "system.py", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "5 observations of 2 values each, 3 of 10 missing" in printed
    assert "2 experiments (dry, wet)" in printed
    idata = load(folder / "here/posterior.nc")
    for name, label in (("a0", "dry"), ("a1", "wet")):
        mean, sd = by_hand(label)
        draws = idata["posterior"][name].values
        assert draws.mean() == pytest.approx(mean, abs=0.3 * sd)
        assert draws.std() == pytest.approx(sd, rel=0.2)
    wet = np.array([[np.nan, 3.3], [np.nan] * 2, [0.7, np.nan], [np.nan] * 2, [2.2, 6.1]])
    np.testing.assert_array_equal(idata["observed_data"]["y1"].values, wet)
    fits = json.loads((folder / "here/run.json").read_text())["fit"]
    assert (fits["y0"]["data"], fits["y1"]["data"]) == (3, 4)
    assert {"solution_u0.png", "solution_u1.png"} <= {
        path.name for path in (folder / "here/figures").iterdir()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            (
                'bilo.observed(f"y{i}", dist.Normal(u, sigma), y)',
                'numpyro.sample(f"y{i}", dist.Normal(u, sigma), obs=y)',
            ),
            "data of 'y0' are missing.*bilo_ppl.observed",
        ),
        ((", experiment=None", ""), r"data\.csv has a column experiment \(dry, wet\)"),
        (('("prey", "predator")', '("prey", "t")'), "component_names has 't'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(folder, capsys, change, message):
    assert change[0] in MODEL
    pathlib.Path("system.py").write_text(MODEL.replace(*change))
    assert main(["run", "system.py", *COMMON]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "here").exists()

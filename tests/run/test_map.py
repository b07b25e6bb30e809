"""``bilo-ppl map``: bad input, whole runs with a closed form, and one with a network."""

import json
import pathlib
import re
import signal

import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.cli import main
from bilo_ppl.estimate import descent
from bilo_ppl.run.map.scores import relative_errors, table
from bilo_ppl.run.model_file import ModelFile

CLOSED_FORM = """
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
import bilo_ppl as bilo

class Linear(bilo.Problem):
    parameters, components = ("a", "b"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(5)
    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - theta["b"]

problem, start, truth = Linear(), {"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 0.5}

def model(operator, x, y=None, sigma=0.1):
    a = numpyro.sample("a", dist.Normal(0.0, 100.0))
    b = numpyro.sample("b", dist.Normal(0.0, 100.0))
    u = bilo.solution("u", operator, {"a": a, "b": b})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)

def synthetic_data(seed, noise=0.1):
    x = problem.domain.grid(20)
    y = 2 + 0.5 * x[:, 0] + noise * np.random.default_rng(seed).normal(size=20)
    return {"x": x, "y": y, "sigma": 0.1}

def reference():
    return bilo.ClosedForm(problem, lambda x, theta: theta["a"] + theta["b"] * x[0])
"""

NUMERICAL = ["closed.py", "--operator", "numerical", "--quiet"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("closed.py").write_text(CLOSED_FORM)
    return tmp_path


def content(path, name="map.json"):
    return json.loads((path / name).read_text())


def least_squares(seed, noise=0.1):
    x = np.linspace(0, 1, 20)
    y = 2 + 0.5 * x + noise * np.random.default_rng(seed).normal(size=20)
    return np.linalg.lstsq(np.stack([np.ones(20), x], axis=1), y, rcond=None)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "seeds is 0; the least is 1"),
        (["--steps", "0"], "steps is 0; the least is 1"),
        (["--noise", "-0.1"], "noise is -0.1; a standard deviation is at least 0"),
        (["--noise", "nan"], "noise is nan"),
        (["--learning-rate", "0"], "learning_rate is 0; it must be positive"),
        (["--method", "simultaneous"], "no weights to descend on"),
        (["--data", "missing.csv"], "there is no data file missing.csv"),
        (["--data", "closed.py", "--noise", "1"], "--noise is for synthetic data"),
    ],
)
def test_bad_arguments_write_nothing(folder, capsys, arguments, message):
    assert main(["map", *NUMERICAL, *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in folder.iterdir()] == ["closed.py"]


def test_the_sensitivity_of_adapted_operators_is_not_offered(capsys):
    with pytest.raises(SystemExit):
        main(["map", "closed.py", "--sensitivity", "partial"])
    assert "invalid choice: 'partial'" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["lbfgs", "gauss-newton"])
def test_simultaneous_descent_has_no_line_search(folder, capsys, optimizer):
    arguments = ["closed.py", "--method", "simultaneous", "--optimizer", optimizer]
    assert main(["map", *arguments]) == 2
    assert "use --optimizer adam" in capsys.readouterr().err


def test_noise_needs_a_model_that_offers_it(folder, capsys):
    text = CLOSED_FORM.replace("seed, noise=0.1", "seed").replace("noise *", "0.1 *")
    pathlib.Path("closed.py").write_text(text)
    assert main(["map", *NUMERICAL, "--noise", "0.2"]) == 2
    assert "synthetic_data has no argument noise" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["lbfgs", "gauss-newton"])
def test_estimates_over_seeds_are_those_of_least_squares(folder, capsys, optimizer):
    arguments = ["closed.py", "--operator", "numerical", "--seeds", "3", "--out", "here"]
    arguments += ["--optimizer", optimizer]
    assert main(["map", *arguments]) == 0
    here = folder / "here"
    found = content(here)
    assert found["seeds"] == [0, 1, 2]
    assert found["status"] == ["converged"] * 3 or all(found["converged"])
    for seed, theta in zip(found["seeds"], found["theta"], strict=True):
        np.testing.assert_allclose([theta["a"], theta["b"]], least_squares(seed), atol=1e-3)
    errors = [abs(least_squares(seed)[0] / 2 - 1) for seed in range(3)]
    np.testing.assert_allclose(found["relative_error"]["a"]["values"], errors, atol=1e-3)
    np.testing.assert_allclose(found["relative_error"]["a"]["mean"], np.mean(errors), atol=1e-3)
    np.testing.assert_allclose(
        found["relative_error"]["a"]["sd"], np.std(errors, ddof=1), atol=1e-3
    )
    assert found["u_relative_error"] is None
    assert len(found["cpu_seconds"]["values"]) == 3
    figures = {path.name for path in (here / "figures").iterdir()}
    assert figures == {"descent.png", "solution.png", "trajectory.png"}
    assert content(here, "run.json")["status"] == "finished"
    assert content(here, "run.json")["arguments"]["seeds"] == 3
    assert "mean" in (here / "map.csv").read_text()
    printed = capsys.readouterr().out
    assert "error a" in printed
    assert "Results: here/map.json" in printed

    assert main(["map", *arguments]) == 2
    assert "holds the results of another run" in capsys.readouterr().err


def test_noise_and_data_seed_are_used(folder):
    arguments = [*NUMERICAL, "--seeds", "1", "--data-seed", "7", "--noise", "0.0", "--out", "here"]
    assert main(["map", *arguments]) == 0
    found = content(folder / "here")
    assert found["seeds"] == [7]
    np.testing.assert_allclose(found["theta"][0]["a"], 2.0, atol=1e-3)
    assert found["relative_error"]["a"]["sd"] is None


def test_data_from_a_file_are_one_data_set(folder):
    x = np.linspace(0, 1, 20)
    rows = "".join(f"{a},{3 - a}\n" for a in x)
    pathlib.Path("data.csv").write_text("x,y\n" + rows)
    assert main(["map", *NUMERICAL, "--data", "data.csv", "--out", "here"]) == 0
    found = content(folder / "here")
    np.testing.assert_allclose([*found["theta"][0].values()], [3.0, -1.0], atol=1e-3)
    assert found["relative_error"] == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_estimates_so_far(folder, monkeypatch, number):
    descend, calls = descent.descend, []

    def interrupting(*args):
        calls.append(None)
        if len(calls) == 3:
            signal.raise_signal(number)
        return descend(*args)

    monkeypatch.setattr(descent, "descend", interrupting)
    # One step a block: on a fast machine the third block would otherwise reach the end.
    monkeypatch.setattr(descent, "BLOCK", 1)
    assert main(["map", *NUMERICAL, "--out", "here"]) == 128 + number
    assert content(folder / "here")["status"] == ["interrupted"]
    assert content(folder / "here", "run.json")["status"] == "interrupted in estimate"
    assert (folder / "here" / "figures" / "solution.png").exists()


def test_errors_of_functions_are_in_l2_and_of_sites_relative():
    class Plane(bilo.Problem):
        parameters, components = ("D",), 1
        domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
        points = domain.grid(11, 2)

    truth = {"D": lambda x: 1.0 + 0 * x[0], "c": 1.0, "other": 2.0}
    file = ModelFile("plane", pathlib.Path(), Plane(), {}, None, None, truth=truth)
    errors = relative_errors(file, {"D": lambda x: 1 + 0.1 * x[0]}, {"D": 0, "c": np.array(1.5)})
    np.testing.assert_allclose(errors["D"], 0.1 * np.sqrt(0.35), rtol=1e-6)
    np.testing.assert_allclose(errors["c"], 0.5)
    assert set(errors) == {"D", "c"}


def test_the_table_has_mean_and_standard_deviation():
    common = {"u_relative_error": None, "steps": 3, "cpu_seconds": 1.0, "status": "converged"}
    scores = [
        {"seed": seed, "theta": {"k": k, "w": [1, 2]}, "relative_error": {"k": k}, **common}
        for seed, k in ((0, 1.0), (1, 3.0))
    ]
    frame = table(scores)
    assert frame.loc["mean", "k"] == 2.0
    np.testing.assert_allclose(frame.loc["sd", "error k"], np.sqrt(2))
    assert "w" not in frame.columns


@pytest.mark.slow
def test_a_network_finds_the_estimate_of_the_numerical_operator(folder):
    common = ["poisson", "--seeds", "2", "--quiet"]
    network = [*common, "--sensitivity", "residual-gradient", "--out", "network"]
    assert main(["map", *network]) == 0
    assert main(["map", *common, "--operator", "numerical", "--out", "exact"]) == 0
    network, exact = content(folder / "network"), content(folder / "exact")
    for a, b in zip(network["theta"], exact["theta"], strict=True):
        np.testing.assert_allclose(a["D"], b["D"], rtol=3e-3)
    assert max(network["u_relative_error"]["values"]) < 5e-3
    assert (folder / "network" / "figures" / "local_operator.png").exists()

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.cli import main
from bilo_ppl.operators.random_features import random_features
from bilo_ppl.run.compare import by_run, by_surrogates
from bilo_ppl.run.compare.by_operators import means
from bilo_ppl.run.compare.outcome import Outcome, Spent
from bilo_ppl.run.compare.processes import Ran
from bilo_ppl.run.compare.scores import exact_posterior, score
from bilo_ppl.run.compare.table import shown, table
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.compare.told import settings_of, times_of
from bilo_ppl.run.report.sections import run_page

SMALL = ["--chains", "2", "--warmup", "200", "--samples", "300"]


def task(method, model="closed.py", **changes):
    sizes = {"chains": 2, "warmup": 200, "samples": 500}
    return Task(method, model, None, 0, None, 0, folder="", **{**sizes, **changes})


def test_methods_run_apart_and_a_failure_is_a_row(folder, capsys):
    """The prior is a Gamma distribution, which pCN cannot propose from."""
    assert main(["compare", "closed.py", "--methods", "numerical,pcn", *SMALL]) == 0
    printed = capsys.readouterr().out
    found = json.loads(pathlib.Path("runs/closed-compare/compare.json").read_text())
    exact, failed = found["rows"]
    assert exact["method"] == "numerical"
    assert abs(exact["mean_off"]["D"]) < 0.3
    assert exact["u_error"] == 0
    assert exact["cpu_seconds"]["sampling"] > 0
    assert "'D' is Gamma" in failed["failed"]
    assert "failed: " in printed
    with np.load("runs/closed-compare/draws.npz") as draws:
        assert draws["numerical/D"].shape == (2, 300)
    assert pathlib.Path("runs/closed-compare/figures/posteriors.png").stat().st_size > 1000
    page = pathlib.Path("runs/closed-compare/report.html").read_text()
    assert "1 of 2 methods have ended." in page
    assert "<p><b>pcn</b>: failed: ValueError: PCN: the prior of &#x27;D&#x27; is Gamma" in page
    assert "D (m^2/s)" in page
    row = f"<td>{exact['mean_off']['D']:.4g}</td><td>{exact['sd_ratio']['D']:.4g}</td>"
    assert page.count("<td>numerical</td>") == 3
    assert row in page
    assert "No verdict" not in page
    assert "<h2>Cost</h2>" in page
    assert "<th>training set</th>" not in page
    # What each method was done with, also where it has failed, and its times.
    assert "<tr><td>warm-up transitions of each</td><td>200</td></tr>" in page
    assert "operator; chains 2, draws 300, warm-up 200, largest tree depth 10.</p>" in page
    assert "<p><b>pcn</b>: preconditioned Crank-Nicolson with the same.</p>" in page
    assert "<th>CPU seconds of</th><th>sampling</th><th>compiling, wall s</th>" in page
    assert f"<td>numerical</td><td>{round(exact['cpu_seconds']['sampling'], 3):.4g}</td>" in page
    assert page.count("<img ") == 1
    # The same from the folder alone.
    assert main(["report", "runs/closed-compare", "--out", "again.html"]) == 0
    assert pathlib.Path("again.html").read_text() == page
    # A second comparison replaces nothing unless it is told to.
    assert main(["compare", "closed.py", "--methods", "numerical", *SMALL]) == 2


def test_a_method_beyond_its_limit_is_a_row(folder, capsys):
    assert main(["compare", "closed.py", "--methods", "numerical", "--limit", "0.1"]) == 1
    assert "over 0.1 s" in capsys.readouterr().out
    record = json.loads(pathlib.Path("runs/closed-compare/run.json").read_text())
    assert record["status"] == "failed: no method has ended"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["closed.py", "--methods", "bilo,magic"], "there is no method magic"),
        (["closed.py", "--methods", ","], "no method given"),
        (["closed.py", "--limit", "0"], "limit is 0"),
        (["closed.py", "--data", "d.csv", "--seeds", "2"], "leave them out"),
        (["closed.py", "--data", "d.csv"], "d.csv"),
        (["closed.py", "--noise", "0.1"], "no argument noise"),
        (["nothing.py"], "there is no model file"),
    ],
)
def test_bad_input_is_refused(folder, capsys, arguments, message):
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not pathlib.Path("runs").exists()


def test_pinn_is_an_alias(folder):
    from bilo_ppl.run import CompareSettings

    chosen = CompareSettings("closed.py", methods="pinn, bilo, pinn-10").chosen
    assert chosen == ["pinn-1", "pinn-10", "pinn-100", "pinn-1000", "bilo"]


def test_scores_are_those_of_known_draws(folder):
    """Draws made from the grid posterior, shifted by half a standard deviation and twice as wide."""
    one = task("numerical")
    exact = exact_posterior(one, None)
    mean, sd = exact.moments("D")
    rng = np.random.default_rng(0)
    samples = {"D": mean + sd * (0.5 + 2 * rng.standard_normal((2, 4000)))}
    outcome = Outcome(means(samples), None, samples, evaluations=7)
    costs = {"cpu_seconds": {"sampling": 2.0}, "compile_seconds": 1.0, "peak_megabytes": 3.0}
    row = score(Ran(one, 1.0, outcome, costs, ""), exact)
    assert row["mean_off"]["D"] == pytest.approx(0.5, abs=0.05)
    assert row["sd_ratio"]["D"] == pytest.approx(2.0, rel=0.03)
    assert row["relative_error"]["D"] == pytest.approx(abs(mean + 0.5 * sd - 1), abs=0.01)
    assert row["total_variation"]["D"] > 0.2
    assert row["ess"] > 4000
    frame = table([row, {"method": "numerical", "seed": 1, "failed": "over 1 s"}])
    assert frame.loc["numerical", "CPU s"] == 2.0
    assert frame.loc["numerical", "notes"] == "1 of 2 failed: over 1 s"
    failed = table([row, {"method": "pcn", "seed": 0, "failed": "why " * 40}])
    text = shown(failed)
    assert f"failed: {'why ' * 8} ..." in text
    assert "training set" not in text
    assert max(map(len, text.splitlines())) < 200


def test_times_are_means_over_data_sets_and_settings_of_the_first():
    ended = {"method": "fno", "compile_seconds": 1.0, "shape": [2, 30]}
    rows = [
        ended | {"cpu_seconds": {"solving": 1.0, "sampling": 3.0}, "wall_seconds": 9.0},
        {"method": "pcn", "failed": "over 1 s"},
        ended | {"cpu_seconds": {"sampling": 4.0}, "wall_seconds": 5.0, "settings": {"rank": 4}},
    ]
    assert times_of(rows) == {
        "fno": {
            "cpu_seconds": {"solving": 0.5, "sampling": 3.5},
            "compile_seconds": 1.0,
            "wall_seconds": 7.0,
        }
    }
    found = settings_of([rows[1], rows[2], rows[0]])
    assert found["pcn"]["settings"] == {}
    assert found["fno"]["settings"] == {"chains": 2, "draws": 30, "rank": 4}


def test_a_comparison_of_an_older_version_has_a_page(tmp_path):
    done = {"numerical": {"CPU s": 1.0, "notes": ""}}
    page = run_page({"status": "finished", "methods": done}, tmp_path, None)
    assert "1 of 1 methods have ended." in page
    assert "Time by stage" not in page
    assert "<h2>Settings" not in page


def test_a_grid_that_is_too_narrow_costs_no_comparison(folder, capsys):
    """The draws by the numerical operator take its place."""
    text = pathlib.Path("closed.py").read_text()
    narrow = text + '\nreference_grid = {"D": jnp.linspace(0.9, 1.0, 5)}\n'
    pathlib.Path("narrow.py").write_text(narrow)
    samples = {"D": np.array([[1.0, 2.0, 3.0, 6.0]])}
    exact = exact_posterior(task("numerical", "narrow.py"), Outcome(means(samples), None, samples))
    assert exact.grid is None
    assert exact.moments("D") == (3.0, pytest.approx(3.5**0.5))
    assert "extend the grid" in capsys.readouterr().err


def test_a_dino_learns_from_prior_draws(folder, monkeypatch):
    """u = sin(pi x) / D; what samples with an operator is tested elsewhere."""
    operators = []

    def sampled(task, operator, **told):
        operators.append(operator)
        return Outcome({}, None, **told)

    monkeypatch.setattr(by_surrogates, "sampled", sampled)
    monkeypatch.setattr(by_surrogates, "COUNT", 60)
    monkeypatch.setattr(by_surrogates, "DINO_STEPS", 600)
    own = task("dino")
    found = by_surrogates.dino(own)
    assert found.training == "60 prior draws, derivatives of each: 1"
    assert found.notes.startswith("test error ")
    assert set(own.spent.cpu) == {"solving", "training"}
    middle = operators[0].field({"D": jnp.array(1.5)})(jnp.array([0.5]))
    assert float(middle) == pytest.approx(1 / 1.5, rel=0.2)


@pytest.mark.parametrize("by_features", [True, False])
def test_the_operator_of_a_run_is_the_one_that_it_sampled_with(tmp_path, by_features):
    asked = task("bilo", "poisson")
    problem, theta, key = asked.file.problem, asked.file.start, jax.random.key(0)
    if by_features:
        local = random_features(problem, theta, count=16, scale=2.0, key=key)
    else:
        local = bilo.LocalOperator(problem, theta, key=key, width=8, depth=2)
    bilo.save_operator(tmp_path / "operator-adapted.eqx", local)
    record = {"features": {"count": 16, "ridge": 1e3}, "adapt": {"tolerance": 1e-3}}
    found = by_run._operator(asked, tmp_path, record)
    assert isinstance(found, bilo.OutputLayer if by_features else bilo.FineTuned)
    assert found.loss_tolerance == 1e-3
    if isinstance(found, bilo.OutputLayer):
        assert found.times_smallest == 1e3


def test_outcomes_survive_the_way_between_processes(tmp_path):
    spent = Spent()
    spent.add("training", 1.5, 0.5)
    samples = {"a": np.arange(6.0).reshape(2, 3), "group/b": np.ones((2, 3, 4))}
    sent = Outcome(means(samples), np.arange(4.0), samples, 1, 2, "three solves", "note")
    sent.write(str(tmp_path), spent, 12.0)
    found, costs = Outcome.read(str(tmp_path))
    assert costs == {
        "cpu_seconds": {"training": 1.5},
        "compile_seconds": 0.5,
        "peak_megabytes": 12.0,
    }
    for name, value in samples.items():
        np.testing.assert_array_equal(found.samples[name], value)
        np.testing.assert_array_equal(found.values[name], value.mean(axis=(0, 1)))
    np.testing.assert_array_equal(found.u, sent.u)
    assert found.diverging == 1
    assert (found.evaluations, found.training, found.notes) == (2, "three solves", "note")

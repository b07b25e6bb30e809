import json
import pathlib
import re
import signal
import textwrap
import types
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.cli import main
from bilo_ppl.diagnostics import load
from bilo_ppl.mcmc import BlockSampler
from bilo_ppl.operators.base import SolveInfo
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample import pipeline
from bilo_ppl.run.sample.contradictions import contradictions, tightening
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.sample.solves import look_closely, over_sites, told
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.tolerance import tolerance_of
from bilo_ppl.validation.accuracy import Accuracy
from bilo_ppl.validation.certificate import Certificate

ROOT = pathlib.Path(__file__).parents[2]

TINY = ["--operator", "numerical", "--sampler", "hmc", "--chains", "2", "--quiet"]


def extended(change):
    """The text of closed.py with other definitions below."""
    return pathlib.Path("closed.py").read_text() + change


def refused(capsys, *arguments, status=2):
    """Run the command, expect an exit status and return the one line of its message."""
    assert main(["run", *arguments]) == status
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err.strip()


def content(folder):
    return json.loads((folder / "run.json").read_text())


# Bad input: a message, exit status 2, and nothing written.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "unknown model 'nowhere'; the short names are: .*poisson"),
        (["missing.py"], "there is no model file missing.py"),
        (["poisson", "--data", "missing.csv"], "there is no data file missing.csv"),
        (["poisson", "--tol", "0"], "tol is 0; .* must be positive"),
        (["poisson", "--tol", "nan"], "tol is nan"),
        (["poisson", "--rank", "65"], "rank 65 is not between 1 and 64.*0 for full"),
        (["poisson", "--rank", "-1"], "rank is -1; the least is 0"),
        (["poisson", "--chains", "0"], "chains is 0; the least is 1"),
        (["poisson", "--samples", "0"], "samples is 0; the least is 1"),
        (["poisson", "--warmup", "-5"], "warmup is -5; the least is 0"),
        (["poisson", "--max-inner-steps", "-1"], "max_inner_steps is -1; the least is 0"),
        (["poisson", "--operator-file", "none.eqx"], "none.eqx"),
        (["poisson", "--operator-file", "closed.py"], "closed.py is not an operator file"),
        (["poisson", "--out", "closed.py"], "closed.py is a file; choose another folder"),
        (["poisson", "--exact"], "--exact needs .* reversible .*, and nuts .* --sampler hmc"),
        (["poisson", "--exact", "--sampler", "hmc", "--reweight"], "nothing to correct"),
        (
            ["poisson", "--exact", "--sampler", "hmc", "--operator", "numerical"],
            "leave one of them",
        ),
        (["poisson", "--reweight", "--no-certify"], "leave out --no-certify"),
    ],
)
def test_bad_arguments(folder, capsys, arguments, message):
    assert re.search(message, refused(capsys, *arguments))
    assert [path.name for path in folder.iterdir()] == ["closed.py"]


def test_bad_data_name_the_line(folder, capsys):
    pathlib.Path("data.csv").write_text("x,y\n0.5,1\n2.5,1\n")
    message = refused(capsys, "poisson", "--data", "data.csv")
    assert "data.csv, line 3: x = 2.5 lies outside the domain [0, 1]" in message


@pytest.mark.parametrize("arguments", [["--sampler", "gibbs"], ["--chains", "two"], []])
def test_argparse_refuses_unknown_values(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", *(["poisson"] if arguments else []), *arguments])
    assert stopped.value.code == 2
    assert "usage: bilo-ppl run" in capsys.readouterr().err


def test_a_model_that_fails_or_infers_nothing_is_refused(folder, capsys):
    change = "\ndef model(operator, x, y, sigma):\n    raise KeyError('rate')\n"
    pathlib.Path("broken.py").write_text(extended(change))
    said = refused(capsys, "broken.py")
    assert re.search(r"fails on these data .*broken.py, line \d+.: KeyError: .*'rate'", said)
    change = "\ndef model(operator, x, y, sigma):\n    pass\n"
    pathlib.Path("empty.py").write_text(extended(change))
    assert "nothing to infer" in refused(capsys, "empty.py")


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("dist.Normal(jax.vmap(u)(x), sigma))", "no likelihood.*Did it forget obs=y"),
        (
            "dist.Normal(jax.vmap(u)(x)[:, None], sigma), obs=y)",
            r"wide.py: the likelihood of 'y' has shape \((\d+), 1\) and its data have shape \(\1,\)",
        ),
    ],
)
def test_a_model_without_likelihood_or_of_another_shape_is_refused(folder, capsys, last, message):
    change = f"""
import jax
import numpyro
import numpyro.distributions as dist

def model(operator, x, y, sigma):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {{"D": D}})
    numpyro.sample("y", {last}
"""
    pathlib.Path("wide.py").write_text(extended(change))
    assert re.search(message, refused(capsys, "wide.py", "--operator", "numerical"))


def test_a_missing_numerical_operator_is_named(folder, capsys):
    pathlib.Path("closed.py").write_text(extended("\nreference = None\n"))
    assert "no numerical operator" in refused(capsys, "closed.py", "--operator", "numerical")
    for options in (["--exact", "--sampler", "hmc"], ["--reweight"]):
        message = refused(capsys, "closed.py", *options)
        assert re.search(f"no numerical operator .*, which {options[0]} needs", message)


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("bilo-ppl ")


# Whole runs.


def test_a_whole_run_and_a_second_one_into_its_folder(folder, capsys):
    arguments = ["poisson", *TINY, "--warmup", "30", "--samples", "41", "--out", "here"]
    assert main(["run", *arguments]) == 0
    here = folder / "here"
    figures = {path.name for path in (here / "figures").iterdir()}
    assert figures == {"posterior.png", "trace.png", "solution.png"}
    assert load(here / "posterior.nc")["posterior"]["D"].shape == (2, 41)
    assert (here / "summary.csv").read_text().startswith("name,mean,sd")

    found = content(here)
    assert found["status"] == "finished"
    assert found["arguments"]["samples"] == 41
    assert {"check", "warmup", "sampling", "exact"} <= set(found["cpu_seconds"])
    assert "pretrain" not in found["cpu_seconds"]
    assert found["versions"]["jax"]
    assert found["distances"]["D"]["exact_mean"] == pytest.approx(0.966, abs=0.01)
    assert 0.3 < found["fit"]["y"]["chi_square"] < 2.5
    assert 0.01 < found["fit"]["y"]["p_value"] < 0.99
    assert str(folder) not in json.dumps(found)

    before = (here / "run.json").read_text()
    message = refused(capsys, *arguments)
    assert "holds the results of another run" in message
    assert "--overwrite" in message
    assert (here / "run.json").read_text() == before


def test_data_that_contradict_the_model_are_warned_of(folder, capsys):
    rows = "\n".join(f"{x},{1 - x},0.05" for x in np.linspace(0.1, 0.9, 9))
    pathlib.Path("data.csv").write_text(f"x,y,sigma\n{rows}\n")
    arguments = [a for a in TINY if a != "--quiet"] + ["--warmup", "30", "--samples", "20"]
    assert main(["run", "closed.py", *arguments, "--data", "data.csv"]) == 0
    printed = capsys.readouterr()
    assert re.search(r"^fit: chi-square \S+ per datum, p = ", printed.out, re.MULTILINE)
    assert "WARNING: data and model contradict each other" in printed.err


@pytest.mark.parametrize(
    ("sampler", "method"), [("nuts", "sequential"), ("bilo-nuts", "vectorized")]
)
def test_samplers_and_chain_methods_agree_with_the_exact_posterior(folder, sampler, method):
    arguments = ["closed.py", *TINY, "--sampler", sampler, "--chain-method", method]
    assert main(["run", *arguments, "--warmup", "200", "--samples", "300"]) == 0
    found = content(folder / "runs" / f"closed-{sampler}")["distances"]["D"]
    assert abs(found["mean_error"]) < 4
    assert abs(found["sd_error"]) < 4 * found["sd_error_se"]


def test_too_few_devices_are_reported_and_the_chains_run_in_sequence(folder, capsys):
    chains = str(jax.local_device_count() + 1)
    arguments = ["closed.py", *TINY, "--chains", chains, "--chain-method", "parallel"]
    arguments.remove("--quiet")
    assert main(["run", *arguments, "--warmup", "20", "--samples", "20"]) == 0
    printed = capsys.readouterr().out
    assert f"{chains} chains in parallel need as many devices, and JAX has" in printed
    assert "chains run one after another" in printed


# Ctrl-C and SIGTERM.


def interrupt_block(monkeypatch, *numbers, by=signal.SIGINT):
    """Raise a signal in blocks of transitions, counted from 1 over the whole run; lengths so far."""
    compiled, lengths = BlockSampler._compiled, []

    def interrupting(self):
        run = compiled(self)

        def block(state, length):
            lengths.append(length)
            if len(lengths) in numbers:
                signal.raise_signal(by)
            return run(state, length)

        return block

    monkeypatch.setattr(BlockSampler, "_compiled", interrupting)
    return lengths


@pytest.mark.parametrize(
    ("number", "by"), [(4, signal.SIGINT), (4, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_a_signal_in_sampling_keeps_the_draws_so_far(folder, monkeypatch, number, by):
    lengths = interrupt_block(monkeypatch, number, by=by)
    arguments = ["closed.py", *TINY, "--warmup", "1", "--samples", "80", "--out", "here"]
    assert main(["run", *arguments]) == 128 + by
    here = folder / "here"
    assert load(here / "posterior.nc")["posterior"]["D"].shape == (2, sum(lengths[1:]))
    assert len(lengths) == number
    assert (here / "summary.csv").exists()
    assert (here / "figures" / "posterior.png").exists()
    found = content(here)
    assert found["status"] == "interrupted in sampling"
    assert {"warmup", "sampling", "figures"} <= set(found["cpu_seconds"])


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_draws(folder, monkeypatch, by):
    interrupt_block(monkeypatch, 1, by=by)
    arguments = ["closed.py", *TINY, "--warmup", "1", "--samples", "40", "--out", "here"]
    assert main(["run", *arguments]) == 128 + by
    found = content(folder / "here")
    assert found["status"] == "interrupted in warmup"
    assert not (folder / "here" / "posterior.nc").exists()


# With a fine-tuned operator.


@pytest.mark.slow
def test_a_small_fine_tuned_run_that_is_contradicted_adapts_again(folder, capsys, monkeypatch):
    """By the default command line: tolerance from the noise, and the exact posterior in the end."""
    pathlib.Path("small.py").write_text(extended('architecture = {"width": 16}\n'))
    once = ["The first attempt is wrong."]
    monkeypatch.setattr(
        pipeline, "contradictions", lambda found: [once.pop()] if once else contradictions(found)
    )
    monkeypatch.setattr(pipeline, "tightening", lambda found: 0.25)
    arguments = ["small.py", "--chains", "2", "--warmup", "200", "--samples", "300"]
    assert main(["run", *arguments, "--fine-tune", "increments", "--out", "here"]) == 0
    printed = capsys.readouterr()
    found = content(folder / "here")
    chosen = found["tolerance"]
    assert 1e-6 < chosen["loss"] < 1e-1
    assert chosen["accuracy"]["noise"] < 0.05
    assert chosen["measured_at"] <= chosen["loss"] / 2
    assert f"Tolerance from the noise: loss {chosen['loss']:.0e}" in printed.out

    assert found["first_attempt"]["contradictions"] == ["The first attempt is wrong."]
    at_mode = found["tolerance_at_mode"]
    assert 1e-6 < at_mode["loss"] < 1e-1
    assert f"Tolerance at the point estimate: loss {at_mode['loss']:.0e}" in printed.out
    assert found["first_attempt"]["tolerance"] == pytest.approx(at_mode["loss"])
    assert found["adapt"]["tolerance"] == pytest.approx(at_mode["loss"] / 4)
    assert "adapt again" in found["cpu_seconds"]
    assert "alarms" not in found

    assert found["adapt"]["fraction_ready"] > 0.9
    assert found["certificates"]["tighter"]["good"]
    assert found["certificates"]["numerical"]["good"]
    assert found["certificates"]["numerical"]["against"] == "the numerical operator"
    assert found["certificates"]["tighter"]["against"].startswith("solving to a loss of")
    distance = found["distances"]["D"]
    assert abs(distance["mean_error"]) < 4
    assert abs(distance["sd_error"]) < 4 * distance["sd_error_se"]


@pytest.mark.parametrize(
    ("inner", "diverging", "error", "expected"),
    [
        ((0, True), 0.0, 0.01, []),
        ((1, True), 0.0, 0.01, ["100% of the draws need inner steps"]),
        ((0, False), 0.0, 0.01, ["At 40 of 40 draws the PDE is not solved"]),
        ((0, True), 0.1, 0.01, ["10% of the transitions diverged"]),
        ((0, True), 0.0, 0.5, ["A tighter solve disagrees: ALARM"]),
    ],
)
def test_what_contradicts_an_adaptation(inner, diverging, error, expected):
    results = object.__new__(Results)
    results.stages = None
    steps, converged = inner
    results.closely = {
        "u": SolveInfo.of(np.full((2, 20), steps), 1e-7, np.full((2, 20), converged))
    }
    flags = np.arange(40).reshape(2, 20) < 40 * diverging
    results.draws = types.SimpleNamespace(statistics={"diverging": flags})
    results.plan = types.SimpleNamespace(settings=types.SimpleNamespace(adapts=True))
    results.operator = object.__new__(bilo.FineTuned)
    certificate = Certificate(
        "solving", 40, 0, 0, 1e-8, error, error**2 / 2, np.exp(-(error**2)), 0.1, {}, {}
    )
    results.certificates = {"tighter": certificate}
    found = contradictions(results)
    assert len(found) == len(expected)
    assert all(a.startswith(b) for a, b in zip(found, expected, strict=True))
    assert tightening(results) == (pytest.approx(0.0025) if error == 0.5 else 1.0)
    # Of an output layer, one step is a solve.
    results.operator = object.__new__(bilo.OutputLayer)
    found = [text for text in contradictions(results) if "inner steps" in text]
    assert not found


def test_a_close_look_is_at_some_draws_of_every_chain():
    def model(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 1.0))
        bilo.solution("u", operator, {"D": D})

    class Noted(bilo.AbstractSolutionOperator):
        problem: bilo.Problem

        def init_state(self):
            return ()

        def solve(self, theta, state):
            # As many steps as theta says; not solved where it is above 700.
            D = theta["D"]
            return (lambda x: 0 * x[0]), state, SolveInfo.of(D.astype(int), D, D <= 700)

    samples = {"D": np.arange(1000.0).reshape(2, 500)}
    operator = Noted(load_model("poisson").problem)
    found = over_sites(look_closely(partial(model, operator), samples, (), {}))
    assert found.steps.shape == (2, 200)
    assert set(found.steps[:, 0]) == {0, 500}
    assert set(found.steps[:, -1]) == {499, 999}
    np.testing.assert_array_equal(found.missed, found.steps > 700)
    missed = f"{np.sum(found.missed)} of 400 draws are not solved"
    assert told(found, operator) == f"399 need inner steps, {missed}"

    class Anew(Noted):
        @property
        def checks_by_solving(self):
            return True

    assert told(found, Anew(operator.problem)) == missed


def test_a_wrong_solution_at_the_first_guess_ends_the_run():
    record = object.__new__(Record)
    record.content, record.settings = {}, SampleSettings("poisson", quiet=True)
    with pytest.raises(RunFailedError, match=r"u right to 1 sigma.*at a loss of 1.0e-07"):
        tolerance_of(record, Accuracy(noise=1.0, size=1e-4), 1e-7)


@pytest.mark.slow
def test_a_fine_tuned_run_and_its_operator_again(folder, capsys):
    common = ["poisson", "--quiet", "--tol", "1e-5", "--samples", "500", "--warmup", "300"]
    assert main(["run", *common, "--out", "first"]) == 0
    found = content(folder / "first")
    assert {"pretrain", "adapt", "warmup", "sampling", "certify"} <= set(found["cpu_seconds"])
    assert found["adapt"]["fraction_ready"] > 0.9
    assert abs(found["distances"]["D"]["mean_error"]) < 4
    assert set(found["certificates"]) == {"tighter", "numerical"}
    assert all(certificate["good"] for certificate in found["certificates"].values())
    assert found["faults"]["diverging"] == 0
    idata = load(folder / "first" / "posterior.nc")
    group = idata["certificate"]
    assert list(group["solution"].values) == ["tighter", "numerical"]
    assert float(group["kl_divergence"].sel(solution="numerical")) < 0.01
    assert np.all(idata["sample_stats"]["inner_loss"].values <= 1e-5)
    assert (folder / "first" / "figures" / "inner_steps.png").exists()

    again = ["--operator-file", "first/operator-adapted.eqx", "--sampler", "bilo-hmc"]
    assert main(["run", *common, *again, "--chains", "2", "--no-certify", "--out", "second"]) == 0
    found = content(folder / "second")
    assert "pretrain" not in found["cpu_seconds"]
    assert abs(found["distances"]["D"]["mean_error"]) < 4

    wrong = refused(capsys, "nonlinear_poisson", "--operator-file", "first/operator.eqx")
    assert "holds an operator of another problem" in wrong


@pytest.mark.slow
def test_a_tolerance_out_of_reach_is_an_error_that_says_what_to_do(folder, capsys):
    message = refused(capsys, "poisson", "--tol", "1e-14", "--quiet", "--out", "here", status=1)
    assert "does not reach the tolerance 1e-14 at the first guess D = 2.0" in message
    assert "larger --tol" in message
    assert content(folder / "here")["status"].startswith("failed: The operator does not reach")
    assert (folder / "here" / "operator.eqx").exists()


@pytest.mark.slow
def test_the_example_of_the_readme_runs(folder):
    text = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n# my_problem\.py\n(.*?)```", text, re.DOTALL).group(1)
    pathlib.Path("my_problem.py").write_text(textwrap.dedent(example))
    tiny = ["--quiet", "--chains", "2", "--warmup", "100", "--samples", "100", "--tol", "1e-5"]
    assert main(["run", "my_problem.py", *tiny]) == 0
    posterior = load(folder / "runs" / "my_problem-nuts" / "posterior.nc")["posterior"]
    assert len(posterior.data_vars) >= 1

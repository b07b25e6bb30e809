"""What a command line asks of the inner solves, as the stages of a run are given it."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.cli import main
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, PartialDerivative, ResidualGradient
from bilo_ppl.run import plan as plans_of_runs
from bilo_ppl.run.map import pipeline as map_pipeline
from bilo_ppl.run.operators import Prepared
from bilo_ppl.run.plan import stand_in, untrained
from bilo_ppl.run.sample import chains
from bilo_ppl.run.sample import pipeline as sample_pipeline
from bilo_ppl.run.settings import RunFailedError

COMMANDS = pytest.mark.parametrize("command", ["run", "map"])


@pytest.fixture
def planned(folder, monkeypatch):
    """``planned("run", "--tol", "1e-4")``: the plan of a command line, which ends with it."""
    plans = []

    def end(plan, record, interrupts):
        plans.append(plan)
        raise RunFailedError("this is all")

    for pipeline in (sample_pipeline, map_pipeline):
        monkeypatch.setattr(pipeline, "make_operator", end)

    def plan(command, *arguments, file="closed.py"):
        assert main([command, file, "--quiet", "--overwrite", *arguments]) == 1
        return plans.pop()

    return plan


def fine_tuned(plan):
    return plan.fine_tuned(untrained(plan))


@COMMANDS
def test_the_tolerance_of_the_command_line_is_that_of_the_solves(planned, command):
    plan = planned(command, "--tol", "3e-5")
    assert not plan.finds_tolerance
    assert plan.tolerance == fine_tuned(plan).loss_tolerance == 3e-5
    assert planned(command).finds_tolerance
    assert not planned(command, "--inner", "adam").finds_tolerance


@COMMANDS
def test_rows_are_spread_over_the_devices_that_are_asked_for(planned, command, monkeypatch, capsys):
    assert planned(command).mesh is None
    assert planned(command, "--devices", "0").mesh is None  # one is all that there is
    capsys.readouterr()
    assert main([command, "closed.py", "--overwrite", "--devices", "3"]) == 2
    said = capsys.readouterr().err
    assert "--devices 3: JAX has 1 here (cpu)" in said
    assert "--xla_force_host_platform_device_count=3" in said
    assert (
        main([command, "closed.py", "--overwrite", "--devices", "2", "--operator", "numerical"])
        == 2
    )
    assert "there is neither" in capsys.readouterr().err
    plan, one, asked = planned(command), bilo.device_mesh(), []
    monkeypatch.setattr(plans_of_runs, "device_mesh", lambda devices: asked.append(devices) or one)
    monkeypatch.setattr(plans_of_runs.jax, "device_count", lambda: 3)
    monkeypatch.setattr(plans_of_runs.jax, "devices", lambda: ["a", "b", "c"])
    for given, mesh in ((1, None), (2, one), (0, one)):
        settings = dataclasses.replace(plan.settings, devices=given)
        assert dataclasses.replace(plan, settings=settings).mesh == mesh
    assert asked == [["a", "b"], ["a", "b", "c"]]


@COMMANDS
def test_the_rank_of_the_command_line_is_that_of_the_increments(planned, command):
    for rank in (0, 3):
        assert fine_tuned(planned(command, "--rank", str(rank))).operator.rank == rank


@pytest.mark.parametrize(
    ("command", "given", "kind"),
    [
        ("run", "partial", PartialDerivative),
        ("run", "implicit", ImplicitDifferentiation),
        ("run", "residual-gradient", ResidualGradient),
        ("map", "implicit", ImplicitDifferentiation),
        ("map", "residual-gradient", ResidualGradient),
    ],
)
def test_the_sensitivity_of_the_command_line_is_that_of_the_solves(planned, command, given, kind):
    plan = planned(command, "--sensitivity", given)
    assert type(plan.sensitivity()) is type(fine_tuned(plan).sensitivity) is kind


@COMMANDS
def test_solver_and_limit_of_the_command_line_are_those_of_the_solves(planned, command):
    solver = fine_tuned(planned(command, "--max-inner-steps", "17")).solver
    assert isinstance(solver, bilo.LevenbergMarquardt)
    assert solver.max_steps == 17
    solver = fine_tuned(planned(command, "--inner", "adam", "--max-inner-steps", "18")).solver
    assert isinstance(solver, bilo.OptaxSolver)
    assert solver.max_steps == 18


@COMMANDS
def test_the_network_has_the_shape_that_the_command_line_gives(planned, command):
    network = fine_tuned(
        planned(command, "--rank", "0", "--width", "5", "--depth", "3", "--fourier", "4")
    ).operator.network
    assert [layer.weight.shape for layer in network.layers] == [(5, 8), (5, 5), (5, 5), (1, 5)]
    # What is not given is as the model file says, and that alone.
    own = 'architecture = {"width": 6, "depth": 1}\n'
    pathlib.Path("closed.py").write_text(pathlib.Path("closed.py").read_text() + own)
    network = fine_tuned(planned(command, "--rank", "0", "--width", "5")).operator.network
    assert [layer.weight.shape for layer in network.layers] == [(5, 1), (1, 5)]


@COMMANDS
@pytest.mark.parametrize(
    "arguments", [["--operator", "numerical"], ["--operator-file", "there.eqx"]]
)
def test_a_shape_without_a_network_to_pretrain_is_refused(folder, capsys, command, arguments):
    assert main([command, "closed.py", "--width", "8", "--depth", "1", *arguments]) == 2
    assert "--width and --depth would shape a network to pretrain" in capsys.readouterr().err


def test_a_network_of_the_model_file_has_its_own_shape(folder, capsys):
    own = """
import equinox, jax
net = equinox.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
architecture = {"network": lambda x, e: net(x) + 0 * e[:1]}
"""
    pathlib.Path("closed.py").write_text(pathlib.Path("closed.py").read_text() + own)
    assert main(["run", "closed.py", "--fourier", "3"]) == 2
    assert "brings a network of its own, which --fourier cannot shape" in capsys.readouterr().err


def test_where_chains_start_is_said_by_the_option_or_else_by_the_model_file(planned):
    def first(*arguments):
        plan = planned("run", *arguments)
        return chains.first_values(plan)

    assert first() == {"D": 2.0}
    pathlib.Path("closed.py").write_text(
        pathlib.Path("closed.py").read_text() + 'init = {"D": 7}\n'
    )
    assert first() == first("--init", "adapted") == {"D": 7.0}
    assert first("--init", "start") == {"D": 2.0}
    assert first("--init", "prior") is None


def test_chains_start_where_adaptation_has_been_whatever_the_model_file_says(planned):
    pathlib.Path("closed.py").write_text(
        pathlib.Path("closed.py").read_text() + 'init = {"D": 7}\n'
    )

    def starts(*arguments):
        plan = planned("run", *arguments)
        adapted = Prepared(stand_in(plan), None, lambda count: {"D": np.full(count, 0.5)})
        return chains.adapted_starts(plan, adapted)

    np.testing.assert_array_equal(starts("--chains", "3")["D"], [0.5, 0.5, 0.5])
    assert starts("--init", "adapted") is not None
    assert starts("--init", "start") is None
    assert starts("--init", "prior") is None


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("{'E': 1.0}", r"init has \['E'\].*The model has D \(\)"),
        ("{'D': [1.0, 2.0]}", r"init has \['D'\]"),
        ("3", "init is 3; it must be a mapping"),
    ],
)
def test_an_init_that_says_nothing_of_the_model_is_refused(folder, capsys, init, message):
    pathlib.Path("closed.py").write_text(pathlib.Path("closed.py").read_text() + f"init = {init}\n")
    assert main(["run", "closed.py", "--operator", "numerical"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not pathlib.Path("runs").exists()


POINTS = """
import jax, numpy as np, numpyro, numpyro.distributions as dist
import jax.numpy as jnp
import bilo_ppl as bilo
from closed import problem, reference, start

def model(operator, x, y=None, sigma=1.0):
    D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    if y is not None:
        numpyro.factor("points", jnp.sum(jnp.log(jax.vmap(u)(x))))

def synthetic_data(seed):
    return {"x": np.array([[0.3], [0.6], [0.7]]), "y": np.zeros(3), "sigma": 1.0}
"""


@COMMANDS
def test_points_whose_likelihood_is_a_factor_have_no_noise(planned, command, monkeypatch):
    monkeypatch.syspath_prepend(".")
    pathlib.Path("points.py").write_text(POINTS)
    plan = planned(command, file="points.py")
    assert not plan.by_values
    wanted = "3 observed points in 1-D, whose likelihood is a factor (synthetic, seed 0)"
    assert plan.described()["data"] == wanted
    plan = planned(command)
    assert plan.by_values
    assert "noise sd" in plan.described()["data"]


DISCRETE = """
import jax.numpy as jnp
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import bilo_ppl as bilo
from closed import *

def model(operator, x, y=None, sigma=1.0):
    D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    u = jax.vmap(bilo.solution("u", operator, {"D": D}))(x)
    LIKELIHOOD

def synthetic_data(seed):
    return {"x": np.array([[0.3], [0.6], [0.7]]), "y": np.array([0.0, 1.0, 1.0]), "sigma": 1.0}
"""


@COMMANDS
@pytest.mark.parametrize(
    ("likelihood", "wanted"),
    [
        ("bilo.observed('y', dist.Bernoulli(logits=u), y)", "3 binary observations in 1-D"),
        ("numpyro.sample('y', dist.Poisson(jnp.exp(u)), obs=y)", "3 observed counts in 1-D"),
    ],
)
def test_data_without_a_noise_have_no_sd_of_one(planned, command, likelihood, wanted, monkeypatch):
    monkeypatch.syspath_prepend(".")
    pathlib.Path("discrete.py").write_text(DISCRETE.replace("LIKELIHOOD", likelihood))
    plan = planned(command, file="discrete.py")
    assert not plan.by_values
    assert plan.described()["data"] == f"{wanted} (synthetic, seed 0)"
    assert not plan.has_noise_sd
    # Without a kind nothing is said that is not known.
    assert plan.observations.described("") == "3 observations in 1-D"


@COMMANDS
@pytest.mark.parametrize(
    ("likelihood", "wanted"),
    [
        ("Gamma(4.0, 4.0 / u)", "3 positive observations in 1-D"),
        ("LogNormal(jnp.log(u), sigma)", "3 positive observations in 1-D"),
        ("Beta(9 * u, 9 * (1 - u))", "3 observed fractions in 1-D"),
        ("Laplace(u, sigma)", "3 observations in 1-D, noise sd 1"),
    ],
)
def test_values_of_another_likelihood_have_no_noise_sd(
    planned, command, likelihood, wanted, monkeypatch
):
    monkeypatch.syspath_prepend(".")
    site = f"numpyro.sample('y', dist.{likelihood}, obs=y)"
    text = DISCRETE.replace("LIKELIHOOD", site).replace("0.0, 1.0, 1.0]", "0.2, 0.3, 0.4]")
    pathlib.Path("positive.py").write_text(text)
    plan = planned(command, file="positive.py")
    assert plan.by_values
    assert plan.has_noise_sd is ("Laplace" in likelihood)
    assert plan.described()["data"] == f"{wanted} (synthetic, seed 0)"

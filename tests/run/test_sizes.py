"""Sizes of a run: options, the model file, and what is usual; what was chosen is said."""

import pathlib

import numpy as np
import pytest

from bilo_ppl.cli import main
from bilo_ppl.run.checks import prepare, untrained
from bilo_ppl.run.map.settings import MapSettings
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.sizes import described

STATELESS = """
import bilo_ppl as bilo
from bilo_ppl.run.model_file import load_model

poisson = load_model("poisson")

class Stateless(bilo.Problem):
    parameters, components, domain = ("D",), 1, poisson.problem.domain
    def residual(self, u, x, theta):
        return poisson.problem.residual(u, x, theta)
    def lift(self, x, raw, theta):
        return poisson.problem.lift(x, raw, theta)

problem, start, model = Stateless(), poisson.start, poisson.model
synthetic_data, architecture = poisson.synthetic_data, {"depth": 1}
"""

OWN = """
import equinox as eqx
import jax

class Own(eqx.Module):
    inner: eqx.nn.MLP
    def __call__(self, x, e):
        return self.inner(x) + 0 * e[:1]

architecture = {"network": Own(eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0)))}
"""


@pytest.fixture
def planned(folder):
    pathlib.Path("stateless.py").write_text(STATELESS)

    def plan(model="closed.py", kind=SampleSettings, **options):
        return prepare(kind(model, overwrite=True, **options), load_model(model))

    return plan


@pytest.mark.parametrize("kind", [SampleSettings, MapSettings])
def test_points_of_an_option_are_in_the_place_of_the_model_files(planned, kind):
    plan = planned(kind=kind, points=26)
    assert plan.sizes["points"] == (26, "as asked for")
    operator = untrained(plan)
    np.testing.assert_allclose(operator.points, np.linspace(0, 1, 51)[::2, None], atol=1e-6)
    assert len(untrained(planned(kind=kind, points=120)).points) == 120
    assert len(untrained(planned(kind=kind)).points) == 51


def test_what_nobody_states_is_as_usual(planned):
    plan = planned("stateless.py", width=20, rank=0)
    assert described(plan.sizes, plan.file) == (
        "Sizes: width 20 (as asked for); depth 1 (of the model file); 51 collocation points, "
        "0 Fourier features (usual for 1 dimension and 1 unknown)."
    )
    operator = untrained(plan)
    assert [layer.weight.shape[0] for layer in operator.network.layers] == [20, 1]
    np.testing.assert_allclose(operator.points, np.linspace(0, 1, 51)[:, None], atol=1e-6)
    assert len(untrained(planned("stateless.py", points=9, rank=0)).points) == 9


def test_a_network_of_the_models_own_has_no_sizes(planned):
    text = pathlib.Path("stateless.py").read_text()
    pathlib.Path("own.py").write_text(text + OWN)
    plan = planned("own.py", points=12, rank=0)
    assert described(plan.sizes, plan.file) == (
        "Sizes: 12 collocation points (as asked for); a network of the model file's own."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--points", "3"], "--points 3 are too few for 1 dimension: give at least 4"),
        (["--points", "0"], "points is 0; the least is 1"),
        (
            ["--points", "9", "--operator", "numerical"],
            "--points would shape a network to pretrain",
        ),
        (["--points", "9", "--operator-file", "x.eqx"], "there is none"),
    ],
)
@pytest.mark.parametrize("command", ["run", "map"])
def test_points_that_cannot_be_meant_are_refused(folder, capsys, command, arguments, message):
    assert main([command, "closed.py", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not pathlib.Path("runs").exists()


def test_points_that_are_no_number_are_refused(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "closed.py", "--points", "many"])
    assert stopped.value.code == 2
    assert "--points: invalid int value: 'many'" in capsys.readouterr().err

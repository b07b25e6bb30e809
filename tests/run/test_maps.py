"""Images of runs in the plane, and what is shown of long vectors."""

import json
import pathlib
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import bilo_ppl as bilo
from bilo_ppl.estimate import Estimate
from bilo_ppl.pde.data import Observations
from bilo_ppl.run import MapSettings, SampleSettings, estimate_model, sample_model
from bilo_ppl.run.map import maps as estimate_maps
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.plane import Plane, plane_of
from bilo_ppl.run.sample import maps
from bilo_ppl.run.sample.table import least_known, shown_table

MODEL = """
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import bilo_ppl as bilo

class Hill(bilo.Problem):
    # u = sin(pi x) sin(pi y) / k with k the mean of twenty numbers; A = k (1 + x).
    parameters, components = ("k",), 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(6, 6)
    positive = ("A",)

    def fields(self, theta):
        return {"A": lambda x: jnp.mean(theta["k"]) * (1 + x[0])}

    def residual(self, u, x, theta):
        source = 2 * jnp.pi**2 * jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])
        return jnp.mean(theta["k"]) * bilo.laplacian(u)(x) + source

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw

problem, start, truth = Hill(), {"k": np.ones(20)}, {"k": np.full(20, 1.5)}

def solved(x, theta):
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1]) / jnp.mean(theta["k"])

def reference():
    return bilo.ClosedForm(problem, solved)

def model(operator, x, y=None, sigma=0.05):
    k = numpyro.sample("k", dist.LogNormal(0.0, 0.5).expand([20]).to_event(1))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)

def synthetic_data(seed):
    x = problem.domain.interior_grid(7, 7)
    y = np.asarray(jax.vmap(lambda x: solved(x, truth))(x))
    return {"x": x, "y": y + 0.05 * np.random.default_rng(seed).normal(size=len(x)), "sigma": 0.05}

units = {"A": "W/m", "x": "m", "u": "K"}

def scores(theta):
    return {"mean of k": jnp.mean(theta["k"])}
"""


@pytest.fixture
def hill(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("hill.py").write_text(MODEL)
    return "hill.py"


def test_a_run_in_the_plane_draws_the_solution_and_what_is_unknown(hill, monkeypatch, capsys):
    drawn = {}

    def plot(x, y, panels, **layout):
        drawn[panels[0].title] = {panel.title: panel for panel in panels}
        assert layout["units"]["x"] == "m"
        return original(x, y, panels, **layout)

    original = maps.plot_maps
    monkeypatch.setattr(maps, "plot_maps", plot)
    sizes = {"chains": 2, "warmup": 60, "samples": 60}
    assert sample_model(SampleSettings(hill, operator="numerical", out="out", **sizes)) == 0
    pngs = {path.stem for path in pathlib.Path("out/figures").glob("*.png")}
    assert pngs == {"posterior_k", "trace", "solution", "field_A"}
    x = np.linspace(0, 1, 51)
    exact = np.sin(np.pi * x[:, None]) * np.sin(np.pi * x[None]) / 1.5
    solution, field = drawn["u, posterior mean"], drawn["A, truth"]
    np.testing.assert_allclose(solution["u, posterior mean"].values, exact, atol=0.05)
    assert 0 < solution["u, posterior sd"].values.max() < 0.05
    misfit = solution["data less mean, in sigma"]
    assert {name: panel.unit for name, panel in solution.items()} == {
        "u, posterior mean": "K",
        "u, posterior sd": "K",
        "data less mean, in sigma": "",
    }
    assert {panel.unit for panel in field.values()} == {"W/m"}
    assert misfit.points.shape == (25, 2)
    assert 0.5 < np.std(misfit.at_points) < 1.6
    wanted = np.tile(1.5 * (1 + np.linspace(0, 1, 101)[:, None]), (1, 101))
    np.testing.assert_allclose(field["A, truth"].values, wanted)
    np.testing.assert_allclose(field["A, posterior mean"].values, wanted, rtol=0.15)
    sd = field["A, posterior sd"].values
    assert sd[-1, 0] / sd[0, 0] == pytest.approx(2)
    assert "Of k the 6 of 20 entries with the fewest effective draws" in capsys.readouterr().out


def test_an_estimate_in_the_plane_has_images_and_scores(hill):
    assert (
        estimate_model(MapSettings(hill, operator="numerical", seeds=1, out="out", quiet=True)) == 0
    )
    pngs = {path.stem for path in pathlib.Path("out/figures").glob("*.png")}
    assert {"field_A", "solution_map", "descent"} <= pngs
    (found,) = json.loads(pathlib.Path("out/map.json").read_text())["scores"]["mean of k"]["values"]
    assert found == pytest.approx(1.5, rel=0.1)
    assert "mean of k" in pathlib.Path("out/map.csv").read_text().splitlines()[0]


def test_a_grid_has_the_shape_of_its_domain():
    plane = Plane(bilo.Box((0.0, 0.0), (4.0, 1.0)), 101)
    assert (len(plane.x), len(plane.y)) == (101, 25)
    values = plane.image(plane.points[:, 0] + 10 * plane.points[:, 1])
    assert values[3, 2] == pytest.approx(plane.x[3] + 10 * plane.y[2])
    mask = np.zeros((8, 6), bool)
    mask[2:6, 2:5] = True
    seen = Plane(bilo.image_domain(mask, spacing=1.0), 41).of(lambda x: 1 + 0 * x[0])
    assert 0 < np.isfinite(seen).mean() < 1


IN_TIME = bilo.space_time(bilo.Box((0.0, 0.0), (2.0, 1.0)), end=3.0)


def test_the_plane_of_space_and_time_is_space_at_the_end():
    plane = Plane(IN_TIME, 41)
    assert plane.points.shape == (len(plane.x) * len(plane.y), 3)
    assert (len(plane.x), len(plane.y), plane.where) == (41, 21, ", t = 3")
    assert set(plane.points[:, 2]) == {3.0}
    assert plane.layout == {"coordinates": ["x", "y"], "equal": True}
    assert list(plane.seen([[0.5, 0.5, 3.0], [0.5, 0.5, 2.0]])) == [True, False]
    # What is drawn over all coordinates is not drawn there.
    plan, _ = planned(IN_TIME, 1, np.zeros(5), IN_TIME.sample(1, 5))
    assert plane_of(plan.file.problem) is None


def planned(domain, components, y, x):
    """A plan, and solutions u = x + 10 component + 100 experiment."""

    class Problem(bilo.Problem):
        parameters = ("k",)

        def fields(self, theta):
            return {}

    Problem.domain, Problem.points, Problem.components = domain, domain.sample(0, 9), components
    Problem.component_names = ("a", "b")[: components * (components > 1)]
    file = SimpleNamespace(problem=Problem(), units={"u": "K", "b": "m"}, truth=None, figures=None)
    settings = SimpleNamespace(accept_unconverged=False, data=None)
    plan = Mock(spec=Plan, file=file, settings=settings, solutions=("u",), numerical=Mock())
    plan.observations, plan.by_values, plan.has_noise_sd = Observations(x, y, 0.5), True, True

    def solutions(points, experiments=None):
        u = np.asarray(points)[:, 0]
        u = u if components == 1 else np.stack([u, u + 10], axis=-1)
        return u if experiments is None else np.stack([u + 100 * e for e in range(experiments)])

    return plan, solutions


CASES = pytest.mark.parametrize(
    ("domain", "components", "experiments", "names"),
    [
        (IN_TIME, 1, None, {"": 0.0}),
        (IN_TIME, 2, None, {"_a": 0.0, "_b": 10.0}),
        (bilo.Box((0.0, 0.0), (1.0, 1.0)), 1, 2, {"_0": 0.0, "_1": 100.0}),
        (bilo.space_time(bilo.interval(0.0, 1.0), end=2.0), 2, None, {"_a": 0.0, "_b": 10.0}),
        (bilo.Box((0.0, 0.0), (1.0, 1.0)), 2, 9, None),
    ],
)


@CASES
@pytest.mark.parametrize("of", ["draws", "estimate"])
def test_components_experiments_and_time_have_images(
    domain, components, experiments, names, of, monkeypatch
):
    x = domain.sample(1, 5)
    x[0, -1] = domain.upper[-1]
    y = np.zeros(5) if components == 1 else np.zeros((5, 2))
    plan, solutions = planned(domain, components, y, x)
    module = maps if of == "draws" else estimate_maps
    shown = []

    def plot(x, y, panels, **layout):
        shown.append(panels)
        return Figure()

    monkeypatch.setattr(module, "plot_maps", plot)
    if of == "draws":
        monkeypatch.setattr(
            maps,
            "solution_draws",
            lambda model, samples, points, *_, **__: np.stack([solutions(points, experiments)] * 2),
        )
        monkeypatch.setattr(maps, "_fields", lambda *_: ())
        drawn, label = dict(maps.draw_maps(plan, Mock(), {})), "solution"
    else:
        estimate = Mock(spec=Estimate, objective=SimpleNamespace(args=(None, x, y, 0.5)))
        estimate.solution = lambda points, site: solutions(points, experiments)
        estimate.experiments.return_value = experiments
        estimate.theta.return_value = {}
        drawn = dict(estimate_maps.draw_estimate_maps(plan, estimate, None))
        label = "solution_map"
    if names is None:
        # Of many experiments the first have images.
        assert len(drawn) == 6 * 2
        assert f"{label}_5_b" in drawn
        return
    assert list(drawn) == [label + name for name in names]
    for (image, *rest), shift in zip(shown, names.values(), strict=True):
        grid = Plane(domain, len(image.values)).x
        np.testing.assert_allclose(image.values, shift + grid[:, None] + 0 * image.values)
        assert image.unit == ("m" if image.title.startswith("b") else "K")
        off = [panel for panel in rest if panel.title.endswith("in sigma")]
        # Of several experiments only the model knows whose the data are.
        assert len(off) == (experiments is None)
        for panel in off:
            seen = x[:1] if domain is IN_TIME else x
            np.testing.assert_allclose(panel.points, seen[:, :2])
            np.testing.assert_allclose(panel.at_points, -(seen[:, 0] + shift) / 0.5)


def test_a_long_table_is_shortened():
    ess = np.r_[np.arange(1000.0, 1020.0), 5.0]
    ess[13] = 1.0
    names = [*(f"a[{i}]" for i in range(20)), "k"]
    table = pd.DataFrame({"mean": 0.0, "ess_bulk": ess, "ess_tail": 2000.0}, index=names)
    text = shown_table(table)
    kept = [line.split()[0] for line in text.splitlines()[1:-1]]
    assert kept == ["a[0]", "a[1]", "a[2]", "a[3]", "a[4]", "a[13]", "k"]
    assert "Of a the 6 of 20 entries" in text
    assert least_known(table, 2) == ["a[13]", "k"]
    assert "Of a" not in shown_table(table.iloc[-3:])
    assert "k (1/day) " in shown_table(table, {"k": "1/day"})

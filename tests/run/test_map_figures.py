"""Figures of a point estimate: where its sections lie, and what their axes are called."""

import pathlib
from types import SimpleNamespace
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import bilo_ppl as bilo
from bilo_ppl.estimate import Estimate
from bilo_ppl.fields import KarhunenLoeve
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.run.map import figures
from bilo_ppl.run.map.scores import relative_errors
from bilo_ppl.run.model_file import ModelFile
from bilo_ppl.run.own_figures import of_estimate
from bilo_ppl.run.plan import Plan

SQUARE = bilo.Box((0.0, 2.0), (1.0, 4.0))
CYLINDER = bilo.space_time(SQUARE, 7.0, start=1.0)


def on(domain):
    class Somewhere(bilo.Problem):
        parameters, components = ("f",), 1
        points = domain.grid(*[3] * domain.dimension)

    Somewhere.domain = domain
    return Somewhere()


@pytest.mark.parametrize(
    ("domain", "axis", "rest", "label", "where"),
    [
        (bilo.interval(0.0, 1.0), 0, {}, "x", ""),
        (bilo.time_interval(0.0, 5.0), 0, {}, "t", ""),
        (SQUARE, 0, {1: 3.0}, "x", "at y = 3"),
        (bilo.space_time(bilo.interval(0.0, 1.0), 6.0), 0, {1: 6.0}, "x", "at t = 6"),
        (CYLINDER, 0, {1: 3.0, 2: 7.0}, "x", "at y = 3, t = 7"),
        (bilo.Box((0.0, 0.0), (6.0, 1.0), time=0), 1, {0: 6.0}, "x", "at t = 6"),
    ],
)
def test_a_section_has_time_at_its_end_and_space_at_its_middle(domain, axis, rest, label, where):
    found = figures.section(on(domain), 11)
    assert (found.label, found.where) == (label, where)
    line = np.linspace(domain.lower[axis], domain.upper[axis], 11)
    np.testing.assert_array_equal(found.s, line)
    np.testing.assert_array_equal(found.points[:, axis], line)
    for other, value in rest.items():
        np.testing.assert_array_equal(found.points[:, other], value)


@pytest.mark.parametrize(
    ("domain", "label", "title"),
    [
        (SQUARE, "x", "at y = 3"),
        (bilo.space_time(bilo.interval(0.0, 1.0), 6.0), "x", "at t = 6"),
        (bilo.time_interval(0.0, 5.0), "t", ""),
    ],
)
def test_the_solution_is_drawn_along_the_section(domain, label, title):
    plan = Mock(
        spec=Plan, file=SimpleNamespace(problem=on(domain), units={"u": "K"}), by_values=True
    )
    x = domain.sample(0, 4)
    estimate = Mock(
        spec=Estimate,
        objective=SimpleNamespace(args=(None, x, x[:, 0], 0.1)),
        solution=lambda points, site: points.sum(axis=1),
    )
    ax = figures._solution(plan, estimate, None, "u")[0]
    section = figures.section(on(domain))
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), section.s)
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), section.points.sum(axis=1))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == (label, "u (K)", title)


@pytest.mark.parametrize(("known", "label"), [(True, "data, 1 sd"), (False, "data")])
@pytest.mark.parametrize("domain", [bilo.time_interval(0.0, 5.0), SQUARE])
def test_bars_are_those_of_a_noise_with_an_sd(domain, known, label):
    file = SimpleNamespace(problem=on(domain), units={})
    plan = Mock(spec=Plan, file=file, by_values=True, has_noise_sd=known)
    x = domain.sample(0, 4)
    estimate = Mock(
        spec=Estimate,
        objective=SimpleNamespace(args=(None, x, x[:, 0], 0.1)),
        solution=lambda points, site: points.sum(axis=1),
    )
    estimate.experiments.return_value = None
    ax = figures._solution(plan, estimate, None, "u")[-1]
    assert label in [text.get_text() for text in ax.get_legend().texts]
    bars = [one for one in ax.collections if len(one.get_segments()) == 4]
    assert len(bars) == known


def test_the_descent_has_whole_steps_and_the_tolerance():
    energy = np.array([3.0, 1.0, 0.5])
    history = SimpleNamespace(steps=3, energy=energy, gradient=energy, inner_loss=energy * 1e-7)
    operators = {
        "u": SimpleNamespace(loss_tolerance=1e-6),
        "v": SimpleNamespace(loss_tolerance=None),
    }
    estimate = Mock(spec=Estimate, history=history, objective=SimpleNamespace(operators=operators))
    axes = figures._descent(estimate)
    for ax in axes:
        ticks = ax.xaxis.get_major_locator().tick_values(0, 2)
        np.testing.assert_array_equal(ticks, np.round(ticks))
    loss, level = axes[1].lines
    np.testing.assert_array_equal(loss.get_ydata(), energy * 1e-7)
    assert (level.get_label(), level.get_ydata()[0]) == ("tolerance 1.0e-06", 1e-6)


def test_networks_and_numerical_solutions_are_in_the_legend_of_the_local_operator(monkeypatch):
    problem = on(bilo.interval(0.0, 1.0))
    file = SimpleNamespace(problem=problem, start={"a": 2.0}, units={"x": "cm"})
    operator = Mock(spec=AbstractSolutionOperator)
    operator.unsolved = lambda theta: lambda x: theta["a"] * x[0]
    monkeypatch.setattr(
        figures, "numerical_solution", lambda _, theta, points: theta["a"] * points[:, 0] + 1
    )
    (ax,) = figures._local(Mock(spec=Plan, file=file), operator, Mock(), ["a"])
    told = {one.get_label(): one for one in ax.get_lines()}
    assert [t.get_text() for t in ax.get_legend().texts] == ["1.8", "2", "2.2", "numerical"]
    for label, end in (("1.8", 1.8), ("2.2", 2.2), ("numerical", 3.2)):
        assert told[label].get_ydata()[-1] == pytest.approx(end)


class Pair(bilo.Problem):
    parameters, components = ("f",), 2
    component_names = ("prey", "predator")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("domain", [bilo.time_interval(0.0, 5.0), SQUARE])
def test_components_have_their_colours_and_missing_data_are_left_out(domain, whole):
    class Here(Pair):
        points = domain.grid(*[3] * domain.dimension)

    Here.domain = domain
    plan = Mock(spec=Plan, file=SimpleNamespace(problem=Here(), units={}), by_values=True)
    x = domain.sample(0, 4)
    y = np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0], [5.0, 6.0]])
    estimate = Mock(
        spec=Estimate,
        objective=SimpleNamespace(args=(None, x, y if whole else y[:, 1], 0.1)),
        solution=lambda points, site: np.stack([points[:, 0], 2 * points[:, 0]], axis=1),
        experiments=lambda site: None,
    )
    ax, *others = figures._solution(plan, estimate, None, "u")
    drawn = {one.get_label(): one for one in ax.get_lines()}
    grid = figures.section(Here()).points[:, 0]
    np.testing.assert_array_equal(drawn["estimate of predator"].get_ydata(), 2 * grid)
    assert drawn["estimate of prey"].get_color() != drawn["estimate of predator"].get_color()
    if not whole:
        # Which component it is only the model knows.
        assert not ax.containers
        assert not others
    elif domain is SQUARE:
        points, _, (bars,) = others[0].containers[1].lines
        np.testing.assert_array_equal(points.get_xdata(), y[:, 1])
        np.testing.assert_array_equal(points.get_ydata(), 2 * x[:, 0])
        np.testing.assert_allclose(np.diff(bars.get_segments()[1][:, 0]), 0.2)
        ends = {one.get_label(): one for one in others[0].get_lines()}["equal"]
        np.testing.assert_array_equal(ends.get_xdata(), [1, 6])
    else:
        points, _, (bars,) = ax.containers[1].lines
        np.testing.assert_array_equal(points.get_ydata(), y[:, 1])
        np.testing.assert_allclose(np.diff(bars.get_segments()[1][:, 1]), 0.2)
        assert points.get_color() == drawn["estimate of predator"].get_color()


def test_an_expansion_over_x_is_drawn_and_compared_in_space_time():
    """It takes a point of one coordinate."""
    problem = on(bilo.space_time(bilo.interval(0.0, 1.0), 6.0))
    field = KarhunenLoeve(jnp.zeros(2))
    file = ModelFile(
        "here", pathlib.Path(), problem, {}, None, None, truth={"f": lambda x: 2.0 * x[0]}
    )
    plan = Mock(spec=Plan, file=file, settings=SimpleNamespace(data=None), by_values=True)
    ax = figures._field(plan, "f", field)
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), 1.0)
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), 2 * np.linspace(0, 1, 201))
    assert ax.get_xlabel() == "x"
    np.testing.assert_allclose(relative_errors(file, {"f": field}, {})["f"], 0.5, rtol=5e-3)


@pytest.mark.parametrize("made", ["figure", "axes", "panels", "name"])
def test_what_a_file_draws_is_a_figure_or_its_axes(made):
    panels = Figure().subplots(1, 2)
    whole = panels[0].figure
    drawn = {"figure": whole, "axes": panels[1], "panels": panels, "name": "figure.png"}[made]
    file = SimpleNamespace(
        figures=lambda solutions, values, data: [("one", drawn)], path="here.py", problem=on(SQUARE)
    )
    plan = Mock(spec=Plan, file=file, solutions=("u",))
    x = SQUARE.sample(0, 4)
    estimate = Mock(
        spec=Estimate,
        objective=SimpleNamespace(args=(None, x, x[:, 0], 0.1)),
        values={"f": 1.0},
        solution=lambda points, site: points.sum(axis=1),
    )
    if made == "name":
        with pytest.raises(TypeError, match=r"here.py: figures, under the name 'one': .* not str"):
            list(of_estimate(plan, estimate))
    else:
        assert list(of_estimate(plan, estimate)) == [("one", whole)]

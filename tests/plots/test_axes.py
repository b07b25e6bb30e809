"""What all figures share: they draw where they are told to, say what is what, and know units."""

import numpy as np
import pytest
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import bilo_ppl as bilo
from bilo_ppl import plots
from bilo_ppl.plots._style import axes_for
from bilo_ppl.plots.figure_file import figure_of

RNG = np.random.default_rng(0)
A = 1 + RNG.normal(size=(2, 40))
X = np.linspace(0.0, 1.0, 5)
PLANE = bilo.image_domain(np.ones((4, 3)))
U = RNG.random((2, 12))
UNITS = {"a": "1/day", "b": "mg", "t": "day", "x": "cm", "y": "mm", "u": "K"}


def pair(axes, **more):
    return plots.plot_pairs({"a": A, "b": A**2}, {"a": 1.0}, axes=axes, **more)


CALLS = {
    "posterior": ((1, 1), lambda ax: plots.plot_posterior(A, "a", truth=1.0, units=UNITS, ax=ax)),
    "trace": ((2, 1), lambda axes: plots.plot_trace({"a": A, "b": A}, 3, units=UNITS, axes=axes)),
    "inner steps": ((2, 1), lambda axes: plots.plot_inner_steps(A > 1, A**2, 0.5, axes=axes)),
    "pairs": ((2, 2), lambda axes: pair(axes, units=UNITS)),
    "ranks": ((2, 1), lambda axes: plots.plot_ranks(np.arange(40) % 20, "a", 19, axes=axes)),
    "replicas": (
        (1, 1),
        lambda ax: plots.plot_replicas(A[0], A[:, None] + A, "a", units=UNITS, ax=ax),
    ),
    "intervals": (
        (1, 1),
        lambda ax: plots.plot_intervals(A[..., None], "a", [1.0], units=UNITS, ax=ax),
    ),
    "solution band": (
        (1, 1),
        lambda ax: plots.plot_solution_band(
            X,
            RNG.random((9, 5)),
            (X, X, 0.1),
            (X, X),
            coordinate="t",
            noise=0.1,
            units=UNITS,
            ax=ax,
        ),
    ),
    "maps": (
        (1, 2),
        lambda axes: plots.plot_maps(
            X,
            X,
            [plots.Panel("u", np.outer(X, X), points=[[0.2, 0.4]], unit="K")] * 2,
            units=UNITS,
            axes=axes,
        ),
    ),
    "images": (
        (1, 2),
        lambda axes: plots.plot_images(
            PLANE,
            [plots.ImagePanel("u", U[0], [0.5, 2.0], [U[0] > 0.5, U[0] > 2], unit="K")] * 2,
            units=UNITS,
            axes=axes,
        ),
    ),
    "density": (
        (1, 3),
        lambda axes: plots.plot_density(
            PLANE,
            U,
            [0.5],
            PLANE.centres,
            U.T > 0.5,
            names=("first", "second"),
            units=UNITS,
            axes=axes,
        ),
    ),
}
ONE = [name for name, (shape, _) in CALLS.items() if shape == (1, 1)]


def test_every_public_function_is_among_those_tried():
    functions = {name for name in plots.__all__ if name.startswith("plot_")}
    assert functions == {"plot_" + name.replace(" ", "_") for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
def test_axes_that_are_given_are_drawn_into_and_returned(name):
    shape, draw = CALLS[name]
    figure = Figure()
    given = figure.subplots(*shape, squeeze=False)
    spare = figure.add_axes((0, 0, 0.1, 0.1))
    got = draw(given[0, 0] if name in ONE else given)
    assert list(np.ravel(np.array(got, dtype=object))) == list(given.flat)
    assert all(ax.has_data() or not ax.axison for ax in given.flat)
    assert not spare.has_data()
    figure.canvas.draw()


@pytest.mark.parametrize("name", CALLS)
def test_without_axes_a_figure_is_made_and_its_axes_returned(name):
    shape, draw = CALLS[name]
    got = draw(None)
    axes = np.array(got, dtype=object)
    assert axes.size == shape[0] * shape[1]
    assert isinstance(figure_of(got), Figure)
    shown = [ax for ax in axes.flat if ax.axison]
    assert shown[-1].get_xlabel()
    assert shown[0].get_ylabel() or name == "pairs"


@pytest.mark.parametrize("name", sorted(set(CALLS) - set(ONE)))
def test_another_number_of_axes_is_refused(name):
    shape, draw = CALLS[name]
    count = shape[0] * shape[1]
    with pytest.raises(ValueError, match=f"axes are needed, and {count + 1} given"):
        draw(Figure().subplots(1, count + 1))


def test_what_is_no_axes_is_refused():
    with pytest.raises(ValueError, match="one Matplotlib axes are needed, and 1 given"):
        axes_for(Figure(), (1, 1), "plot_posterior")


def labels(axes):
    return {text.get_text() for ax in axes if ax.get_legend() for text in ax.get_legend().texts}


@pytest.mark.parametrize("name", CALLS)
def test_what_has_a_colour_of_its_own_is_in_a_legend(name):
    drawn = list(np.ravel(np.array(CALLS[name][1](None), object)))
    wanted = {
        "posterior": {"truth 1"},
        "trace": {"chain 0", "chain 1", "warm-up"},
        "inner steps": {"chain 0", "chain 1", "tolerance 0.5"},
        "pairs": {"draws", "truth"},
        "ranks": {"ranks", "99% of uniform ranks", "their mean"},
        "replicas": {"5 to 95 %", "median", "data"},
        "intervals": {"5 to 95 %", "25 to 75 %", "median", "truth", "zero"},
        "solution band": {"y: 5 to 95 %", "u: 5 to 95 %", "median", "truth", "data, 1 sd"},
        "maps": {"data"},
        "images": {"0.5", "mask 1"},
        "density": {"0.5", "first", "second"},
    }
    got = labels(drawn)
    assert wanted[name] <= got
    assert not {"2", "mask 2"} & got, "what is not drawn"
    legends = {"ranks": 2, "inner steps": 2, "maps": 2, "images": 2, "density": 2}
    assert sum(ax.get_legend() is not None for ax in drawn) == legends.get(name, 1)


@pytest.mark.parametrize("name", CALLS)
def test_there_is_no_colour_that_nothing_tells(name):
    """A legend does, or, of contours, a bar of colours."""
    drawn = list(np.ravel(np.array(CALLS[name][1](None), object)))
    keys = [ax.get_legend() for ax in drawn if ax.get_legend()]
    told = {c for key in keys for c in colours(key.findobj(), {key.get_frame()})}
    bars = [ax for ax in figure_of(drawn[0]).axes if ax not in drawn]
    told |= {c for bar in bars for c in colours(bar.collections)}
    shown = [a for ax in drawn for a in (*ax.lines, *ax.collections, *ax.patches)]
    assert shown
    assert colours(shown) <= told


def colours(artists, but=()):
    """Of lines, marks and areas with one colour, without their opacity."""
    found = set()
    for artist in set(artists) - set(but):
        if isinstance(artist, Line2D):
            found.add(to_hex(artist.get_markeredgecolor()))
        elif isinstance(artist, Patch):
            found.add(to_hex(artist.get_facecolor()))
        elif isinstance(artist, Collection) and not isinstance(artist, QuadMesh):
            faces, edges = artist.get_facecolor(), artist.get_edgecolor()
            found |= {to_hex(c) for c in (faces if len(faces) else edges)}
    return found


def test_units_stand_in_labels():
    labels = {
        name: {(ax.get_xlabel(), ax.get_ylabel()) for ax in np.ravel(np.array(draw(None), object))}
        for name, (_, draw) in CALLS.items()
    }
    assert labels["posterior"] == {("a (1/day)", "density")}
    assert labels["trace"] == {("", "a (1/day)"), ("draw", "b (mg)")}
    assert ("a (1/day)", "b (mg)") in labels["pairs"]
    assert labels["replicas"] == {("datum", "a (1/day)")}
    assert labels["intervals"] == {("entry of a", "a (1/day)")}
    assert labels["solution band"] == {("t (day)", "u (K)")}
    assert labels["maps"] == {("x (cm)", "y (mm)"), ("x (cm)", "")}
    assert labels["images"] == labels["density"] == {("x (cm)", "y (mm)")}
    for name, count in (("maps", 2), ("images", 2), ("density", 3)):
        axes = figure_of(CALLS[name][1](None)).axes
        assert [ax.get_ylabel() for ax in axes[-count:]] == ["K"] * count


def test_components_have_a_unit_on_the_axis_if_it_is_one_and_else_in_the_legend():
    u = RNG.random((9, 5, 2))
    draw = {"components": ("S", "I"), "name": "u"}
    ax = plots.plot_solution_band(X, u, **draw, units={"S": "people", "I": "people"})
    assert ax.get_ylabel() == "u (people)"
    assert "median of S" in ax.get_legend_handles_labels()[1]
    ax = plots.plot_solution_band(X, u, **draw, units={"S": "people", "I": "1"})
    assert ax.get_ylabel() == "u"
    assert {"median of S (people)", "median of I (1)"} <= set(ax.get_legend_handles_labels()[1])


def test_an_entry_of_a_vector_has_its_unit():
    (ax,) = plots.plot_trace({"v": A[..., None]}, units={"v": "K"})
    assert ax.get_ylabel() == "v[0] (K)"


def test_the_figure_of_axes_in_a_part_of_a_figure_is_the_whole():
    figure = Figure()
    ax = figure.subfigures(1, 2)[1].subplots()
    assert figure_of(plots.plot_posterior(A, "a", ax=ax)) is figure
    with pytest.raises(TypeError, match="needed, not str"):
        figure_of("figure.png")

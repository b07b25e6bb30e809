"""Images in the plane, and intervals of long vectors: what is drawn is what was given."""

import numpy as np
import pytest

from bilo_ppl.plots import Panel, plot_intervals, plot_maps

X, Y = np.linspace(0.0, 2.0, 5), np.linspace(0.0, 1.0, 4)
U = X[:, None] + 10 * Y[None, :]
POINTS = np.array([[0.5, 0.5], [1.5, 0.2], [1.0, 0.9]])


def mesh(ax):
    (found,) = [c for c in ax.collections if type(c).__name__ == "QuadMesh"]
    return found


def test_an_image_has_its_first_coordinate_along_x():
    (ax,) = plot_maps(X, Y, [Panel("u", U)])
    drawn = mesh(ax)
    np.testing.assert_array_equal(np.reshape(drawn.get_array(), (len(Y), len(X))), U.T)
    at = drawn.get_coordinates()
    np.testing.assert_array_equal(at[0, :, 0], X)
    np.testing.assert_array_equal(at[:, 0, 1], Y)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("x", "y", "u")
    assert ax.get_aspect() == 1


def test_values_share_their_colours_and_differences_are_about_zero():
    panels = [
        Panel("one", U),
        Panel("two", U + 5),
        Panel("sd", U / 20, "spread"),
        Panel("off", U - 3, "difference"),
    ]
    one, two, sd, off = plot_maps(X, Y, panels)
    assert mesh(one).get_clim() == mesh(two).get_clim() == (0.0, 17.0)
    assert mesh(sd).get_clim() == (0.0, 0.6)
    low, high = mesh(off).get_clim()
    assert -low == high == pytest.approx(9, rel=0.02)
    # Contours are of values only.
    assert [len(ax.collections) for ax in (one, two, sd, off)] == [2, 2, 1, 1]


def test_points_are_marked_and_coloured_by_what_is_known_there():
    misfit = Panel("misfit", None, "difference", POINTS, [1, -2, 0.5])
    plain, coloured = plot_maps(X, Y, [Panel("u", U, "value", POINTS), misfit], contours=False)
    np.testing.assert_array_equal(plain.collections[-1].get_offsets(), POINTS)
    (marks,) = coloured.collections
    np.testing.assert_array_equal(marks.get_array(), [1, -2, 0.5])
    # A bar of colours for each.
    assert len(plain.figure.axes) == 4


def test_what_is_not_defined_is_left_white():
    holed = np.where(U > 8, np.nan, U)
    drawn = mesh(*plot_maps(X, Y, [Panel("u", holed)]))
    shown = np.ma.filled(np.ma.asarray(drawn.get_array()), np.nan)
    np.testing.assert_array_equal(np.reshape(shown, (len(Y), len(X))), holed.T)
    assert drawn.get_clim() == (0.0, np.nanmax(holed))


def test_space_and_time_have_no_common_unit():
    (ax,) = plot_maps(X, Y, [Panel("u", U)], coordinates=("x", "t"), equal=False)
    assert ax.get_ylabel() == "t"
    assert ax.get_aspect() == "auto"


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "no panels"),
        ([Panel("u", U.T)], r"'u' have shape \(4, 5\); the grid has \(5, 4\)"),
        ([Panel("u", None)], "neither values nor points"),
        ([Panel("u", U, points=np.zeros((3, 1)))], "must be"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        plot_maps(X, Y, panels)


def test_intervals_of_a_vector():
    draws = np.random.default_rng(0).normal(size=(2, 400, 3, 5)) + np.arange(15).reshape(3, 5)
    ax = plot_intervals(draws, "a", np.ones((3, 5)))
    lines = {one.get_label(): one for one in ax.get_lines()}
    np.testing.assert_allclose(lines["median"].get_ydata(), np.arange(15), atol=0.2)
    np.testing.assert_array_equal(lines["truth"].get_ydata(), np.ones(15))
    wide, narrow = (np.array(c.get_segments()) for c in ax.collections)
    np.testing.assert_allclose(wide[:, 1, 1] - wide[:, 0, 1], 3.29, atol=0.35)
    np.testing.assert_allclose(narrow[:, 1, 1] - narrow[:, 0, 1], 1.35, atol=0.25)
    assert "prior, 5 to 95 %" not in ax.get_legend_handles_labels()[1]
    with pytest.raises(ValueError, match="truth of a has shape"):
        plot_intervals(draws, "a", np.ones(3))
    with pytest.raises(ValueError, match="must be"):
        plot_intervals(draws[..., 0, 0], "a")


@pytest.mark.parametrize(("scale", "whole"), [(1.5, True), (1000.0, False)])
def test_a_prior_stands_behind_the_intervals_and_does_not_make_them_small(scale, whole):
    random = np.random.default_rng(0)
    draws, prior = random.normal(size=(2, 400, 4)), scale * random.normal(size=(1, 900, 4))
    low, high = plot_intervals(draws, "a").get_ylim()
    ax = plot_intervals(draws, "a", prior=prior)
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    bars = np.array(handles["prior, 5 to 95 %"].get_segments())
    np.testing.assert_allclose(bars[:, 1, 1], np.quantile(prior, 0.95, axis=(0, 1)))
    bottom, top = ax.get_ylim()
    assert low > bottom >= low - 0.5 * (high - low) - 1e-9
    assert bool(bars[:, 1, 1].max() <= top) is whole
    assert top - bottom <= 2 * (high - low) + 1e-9
    with pytest.raises(ValueError, match="draws of the prior of a have shape"):
        plot_intervals(draws, "a", prior=prior[..., :3])

"""Figures of images: what they show where, and what they refuse."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

import bilo_ppl as bilo
from bilo_ppl.plots import ImagePanel, plot_images
from bilo_ppl.plots.images import LINES


@pytest.fixture(scope="module")
def domain():
    mask = np.ones((6, 4), bool)
    mask[0, 0] = False
    return bilo.image_domain(mask, (1.0, 0.5), (10.0, -1.0))


def test_a_voxel_lies_at_its_place(domain):
    values = np.arange(23.0)
    (ax,) = plot_images(domain, [ImagePanel("numbers", values)])
    (image,) = ax.images
    shown = image.get_array()
    assert shown.shape == (4, 6)
    assert np.isnan(np.ma.filled(shown, np.nan)[0, 0])
    np.testing.assert_array_equal(np.ma.filled(shown, np.nan)[:, 0], [np.nan, 0, 1, 2])
    np.testing.assert_allclose(image.get_extent(), (9.5, 15.5, -1.25, 0.75))
    assert ax.get_title(loc="left") == "numbers"


def test_contours_and_outlines_are_where_the_values_pass(domain):
    x = domain.centres
    panel = ImagePanel(
        "x", x[:, 0] - 10, contours=(2.25, 99.0), masks=(x[:, 0] > 11.6, np.zeros(23))
    )
    axes, _ = plot_images(domain, [panel, panel], anatomy=np.ones((6, 4)))
    assert len(axes.images) == 2
    contour, outline = axes.collections
    assert [one.get_label() for one in axes.lines] == ["2.25", "mask 1"]
    solid, dashed = (one.get_linestyle()[0][1] for one in (contour, outline))
    assert solid is None
    assert len(dashed) == 2
    assert [one.get_linestyle() for one in axes.lines] == ["-", "--"]
    for one, key in zip((contour, outline), axes.lines, strict=True):
        assert to_hex(one.get_edgecolor()[0]) == to_hex(key.get_color())
        assert one.get_path_effects()
    np.testing.assert_allclose(np.unique(contour.get_paths()[0].vertices[:, 0]), 12.25)
    np.testing.assert_allclose(np.unique(outline.get_paths()[0].vertices[:, 0]), 11.5)


def test_lines_are_far_from_all_colours_of_the_map():
    there = colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]
    for colour in LINES:
        assert np.linalg.norm(there - to_rgb(colour), axis=1).min() > 0.3


def test_what_is_no_image_of_the_domain_is_refused(domain):
    with pytest.raises(ValueError, match=r"'a' has values of shape \(24,\).* 23 voxels inside"):
        plot_images(domain, [ImagePanel("a", np.zeros(24))])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        plot_images(domain, [ImagePanel("a", np.zeros(23), masks=[np.zeros(2)])])
    with pytest.raises(ValueError, match="2 names"):
        plot_images(domain, [ImagePanel("a", np.zeros(23), (), [np.zeros(23)], ("b", "c"))])
    with pytest.raises(ValueError, match="3 axes; give a plane"):
        plot_images(bilo.image_domain(np.ones((2, 2, 2))), [])
    with pytest.raises(ValueError, match="no panels"):
        plot_images(domain, [])

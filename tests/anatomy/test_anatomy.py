"""Tissue maps: the phantom, parts of maps, and slices of images as nibabel gives them."""

import sys
import types

import numpy as np
import pytest

from bilo_ppl.anatomy import TissueMaps, brain_phantom, template_slice
from bilo_ppl.anatomy.templates import _slice


def at(maps, x, y):
    return tuple(
        round((p - o) / h) for p, o, h in zip((x, y), maps.origin, maps.spacing, strict=True)
    )


def test_the_phantom_has_both_tissues_a_ventricle_and_an_outside():
    maps = brain_phantom()
    assert maps.white.shape == maps.grey.shape == (85, 85)
    for image in (maps.white, maps.grey, maps.tissue):
        assert image.min() >= 0
        assert image.max() <= 1
    assert maps.white[at(maps, 0, 0)] > 0.99
    assert maps.grey[at(maps, 4, -16)] > 0.95, "the nucleus"
    assert maps.tissue[at(maps, -15, 6)] < 0.01, "the ventricle"
    assert maps.tissue[at(maps, 38, 0)] < 0.01, "beyond the skull"
    assert maps.grey[at(maps, 24, 20)] > 0.5, "the cortex"
    # No edge is narrower than the splines that stand for the images in a residual can follow.
    assert max(np.abs(np.diff(maps.white, axis=axis)).max() for axis in (0, 1)) < 0.5


def test_the_phantom_is_one_formula_at_all_resolutions():
    coarse, fine = brain_phantom(2.0), brain_phantom(1.0)
    np.testing.assert_array_equal(coarse.white, fine.white[::2, ::2])
    np.testing.assert_array_equal(coarse.centres, fine.centres[::2, ::2])
    with pytest.raises(ValueError, match="0 < spacing <= half"):
        brain_phantom(-1.0)


def test_diffusivity_is_that_of_the_tissue():
    white, grey = np.array([[1.0, 0.0, 0.4, 0.0]]), np.array([[0.0, 1.0, 0.4, 0.0]])
    P = TissueMaps(white, grey, (1.0, 1.0), (0.0, 0.0)).diffusivity()
    np.testing.assert_allclose(P, [[1.0, 0.1, 0.55, 0.1]], atol=0.02)


def test_a_part_about_a_point_has_it_as_its_zero():
    maps = TissueMaps(np.eye(7), np.zeros((7, 7)), (2.0, 2.0), (-3.0, 1.0))
    part = maps.around((3.0, 7.0), 4.5)
    assert part.origin == (-4.0, -4.0)
    np.testing.assert_array_equal(part.white, np.eye(7)[1:6, 1:6])
    assert maps.around((-3.0, 1.0), 2.0).origin == (0.0, 0.0)
    with pytest.raises(ValueError, match="outside of the image"):
        maps.around((20.0, 0.0), 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grey": np.zeros((3, 2))}, "grey has shape"),
        ({"white": np.full((2, 3), 1.5)}, "between 0 and 1"),
        ({"white": np.ones((2, 3)), "grey": np.ones((2, 3))}, "at most 1"),
        ({"spacing": (1.0, -1.0)}, "spacing must be positive"),
        ({"origin": (1.0, 2.0, 3.0)}, "origin"),
    ],
)
def test_maps_that_do_not_fit_are_refused(change, message):
    given = {"white": np.zeros((2, 3)), "grey": np.zeros((2, 3)), "spacing": (1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        TissueMaps(**{**given, "origin": (0.0, 0.0), **change})


def image(values, affine):
    return types.SimpleNamespace(dataobj=values, affine=np.array(affine, float))


def test_a_slice_is_in_the_coordinates_of_the_template():
    white, grey = np.zeros((2, 4, 3, 5), np.uint8)
    white[0, 2, 3], grey[1, 2, 3] = 255, 51
    affine = [[-2, 0, 0, 10], [0, 1, 0, -5], [0, 0, 3, -6], [0, 0, 0, 1]]
    maps = _slice(image(white, affine), image(grey, affine), 3.0)
    assert maps.spacing == (2.0, 1.0)
    assert maps.white[at(maps, 10, -3)] == 1.0
    assert maps.grey[at(maps, 8, -3)] == pytest.approx(0.2)
    assert maps.tissue.sum() == pytest.approx(1.2)
    with pytest.raises(ValueError, match="no slice at z = 40 mm; give one between -6 and 6"):
        _slice(image(white, affine), image(grey, affine), 40.0)
    turned = np.array(affine)[[1, 0, 2, 3]]
    with pytest.raises(ValueError, match="not on one grid"):
        _slice(image(white, affine), image(grey, turned), 3.0)


def test_without_nilearn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(ImportError, match=r"bilo-ppl\[brain\]"):
        template_slice()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_template_has_a_brain_of_the_right_size():
    pytest.importorskip("nilearn")
    maps = template_slice(20.0)
    assert maps.spacing == (1.0, 1.0)
    assert 9000 < maps.brain.sum() < 20000, "square millimetres"
    part = maps.around((-25.0, -10.0), 41.0)
    assert part.white.shape == (83, 83)

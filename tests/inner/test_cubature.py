"""Few points with weights that give the sums over all of them."""

import numpy as np
import pytest

from bilo_ppl.inner import cubature
from bilo_ppl.inner.cubature import choose_cubature

X = np.linspace(0, 1, 400)


def smooth(parameters):
    return np.stack([np.exp(-p * X) * np.cos(3 * p * X) for p in parameters])


def test_sums_that_were_never_seen_are_right_too():
    known = smooth(np.linspace(0.5, 2.0, 30))
    points, counts = choose_cubature(known)
    assert len(points) < 30
    assert (counts > 0).all()
    np.testing.assert_allclose(counts.sum(), len(X), rtol=0.01)
    fresh = smooth(np.random.default_rng(0).uniform(0.5, 2.0, 20))
    scale = np.abs(fresh).sum(axis=1)
    np.testing.assert_array_less(
        np.abs(fresh[:, points] @ counts - fresh.sum(axis=1)), 5e-3 * scale
    )


def test_large_and_small_sums_count_alike():
    known = np.concatenate([smooth([1.0]), 1e-6 * X[None] ** 4])
    points, counts = choose_cubature(known)
    np.testing.assert_allclose(known[:, points] @ counts, known.sum(axis=1), rtol=0.02)


def test_many_sums_are_seen_by_random_combinations_of_them():
    many = smooth(np.linspace(0.5, 2.0, 1000))
    points, counts = choose_cubature(many)
    scale = np.abs(many).sum(axis=1)
    np.testing.assert_array_less(np.abs(many[:, points] @ counts - many.sum(axis=1)), 5e-3 * scale)


def test_sums_that_have_nothing_in_common_need_all_points(monkeypatch):
    noise = np.random.default_rng(0).normal(size=(300, len(X)))
    assert choose_cubature(noise) is None
    monkeypatch.setattr(cubature, "ACCURATE", -1.0)
    assert choose_cubature(smooth([0.5, 1.0, 2.0])) is None


@pytest.mark.parametrize("count", [3, 50])
def test_a_problem_of_few_points_keeps_them(count):
    assert choose_cubature(np.random.default_rng(0).normal(size=(60, count))) is None

"""Labels of tissue: their odds, how masks agree, and what is no mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl.anatomy import check_labels, dice, log_odds


def probability(u, c):
    """a(u, c), with k = 10 and s = 0.05."""
    d = u - c
    return 0.5 + 0.5 * np.tanh(10 * d) * (1 - np.exp(-(d**2) / 0.05**2))


def test_log_odds_are_those_of_the_formula():
    u = np.linspace(0.0, 1.0, 41)
    c = 0.35
    a = probability(u, c)
    np.testing.assert_allclose(log_odds(u, c), np.log(a / (1 - a)), rtol=1e-6, atol=1e-12)
    assert float(log_odds(0.35, 0.35)) == 0
    slope = jax.vmap(jax.grad(log_odds))(jnp.array([0.35, 0.4, 0.9]), jnp.full(3, 0.35))
    step = 1e-6
    ends = [log_odds(jnp.array([0.35, 0.4, 0.9]) + s, 0.35) for s in (step, -step)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-6)
    with jax.enable_x64(False):
        single = log_odds(jnp.float32(1.0), jnp.float32(0.0))
        np.testing.assert_allclose(single, 20.0, rtol=1e-5)


def test_dice():
    first, second = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert dice(first, second) == 0.5
    assert dice(first, first) == 1.0
    assert dice(np.zeros(3), np.zeros(3)) == 1.0
    with pytest.raises(ValueError, match=r"\(4,\) and \(3,\)"):
        dice(first, np.zeros(3))


def test_labels_with_missing_ones_are_fine_and_traced_ones_not_looked_at():
    check_labels(np.array([[0.0, 1.0], [1.0, np.nan], [1.0, 0.0]]), ("whole", "core"))
    jax.jit(lambda y: check_labels(y, ("whole",)))(jnp.full((3, 1), 7.0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((4, 3)), "2 at each point, of whole and core"),
        ([[0.0, 0.0], [255.0, 1.0]], "the mask whole has 1 labels such as 255"),
        ([[0.0, 0.5], [1.0, 1.0]], "the mask core has 1 labels such as 0.5"),
        ([[0.0, 0.0], [1.0, 0.0]], "the mask core is empty: all of its 2 labels are 0"),
        ([[1.0, 0.0], [1.0, 1.0]], "the mask whole has no outside"),
    ],
)
def test_what_is_no_mask_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, ("whole", "core"))

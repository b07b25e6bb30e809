"""The operators that a fine-tuned one makes of itself: scouts, and corrections near a theta."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.network.trainable import count_parameters
from bilo_ppl.operators import fine_tuned
from models import heat_initial, poisson

TOLERANCE = 1e-7
HOME = {"D": jnp.array(2.0)}


def made(points=51, width=24, steps=5):
    key = jax.random.key(0)
    local = bilo.LocalOperator(poisson.problem, {"D": 2.0}, key=key, width=width)
    local = local.with_points(poisson.problem.domain.grid(points)).with_lora(2, key=key)
    return bilo.FineTuned(
        local, bilo.LevenbergMarquardt(TOLERANCE, steps), bilo.PartialDerivative()
    )


def test_a_scout_is_made_where_the_points_are_many():
    assert made(points=256).scouting() is None
    fine = made(points=300)
    scout = fine.scouting()
    own = {float(x[0]) for x in fine.operator.points}
    assert len(scout.operator.points) == 256
    assert {float(x[0]) for x in scout.operator.points} <= own
    assert scout.loss_tolerance == pytest.approx(100 * TOLERANCE)
    assert scout.differentiates_exactly
    assert jax.tree.structure(scout.init_state()) == jax.tree.structure(fine.init_state())


def test_a_correction_solves_near_its_theta_by_passes_of_the_rows():
    fine = made()
    near = fine.corrected_near(HOME, 100.0, 20)
    assert near.operator.dtype == jnp.float64
    assert len(near.operator.points) >= 5 * 51
    assert near.loss_tolerance == pytest.approx(TOLERANCE / 100)
    theta = {"D": jnp.array(2.1)}
    field, _, info = jax.jit(lambda: near.solve(theta, near.init_state()))()
    assert info.converged
    assert info.steps < 10
    x = np.linspace(0, 1, 11)[:, None]
    exact = np.sin(np.pi * x[:, 0]) / 2.1
    np.testing.assert_allclose(jax.vmap(field)(x), exact, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "large", "corrects"),
    [(24, [True, False], True), (24, [True, True], False), (6, [True], False)],
)
def test_where_the_rows_are_too_many_increments_correct_or_nothing(
    monkeypatch, width, large, corrects
):
    answers = list(large)
    monkeypatch.setattr(fine_tuned, "is_large", lambda *_: answers.pop(0))
    fine = made(width=width)
    near = fine.corrected_near(HOME, 100.0, 20)
    assert not answers
    assert (near is not None) == corrects
    if near is not None:
        whole = fine.operator.with_lora(0, key=jax.random.key(0))
        assert count_parameters(near.operator.network) < count_parameters(whole.network)


def test_a_correction_follows_a_function_in_theta():
    """The heat equation is linear: from any weights, one step solves for any initial value."""

    def initial(size):
        return {"f": lambda x: size * jnp.sin(jnp.pi * x[0])}

    key = jax.random.key(0)
    problem = heat_initial.HeatInitial(nx=11, nt=9)
    local = bilo.LocalOperator(problem, initial(1.0), key=key, width=16).with_lora(2, key=key)
    solver = bilo.LevenbergMarquardt(TOLERANCE, 5)
    fine = bilo.FineTuned(local, solver, bilo.PartialDerivative())
    near = fine.corrected_near(initial(1.0), 1.0, 20)
    x = np.array([[0.3, 0.5], [0.5, 1.0], [0.8, 0.7]])

    def solved():
        field, _, info = near.solve(initial(-3.0), near.init_state())
        return jax.vmap(field)(x), info.converged

    u, converged = jax.jit(solved)()
    assert converged
    decay = np.exp(-heat_initial.DIFFUSION * np.pi**2 * x[:, 1])
    np.testing.assert_allclose(u, -3.0 * np.sin(np.pi * x[:, 0]) * decay, atol=1e-3)


def test_solves_look_at_few_points_first_and_at_all_where_these_ask_for_steps():
    fine = made(points=600, steps=20)
    few = fine.checked_at_few()
    assert len(few.check_points) == 256
    theta = {"D": jnp.array(2.1)}
    # Not solved: the same steps as on all points.
    wanted, weights, info = fine.solve(theta, fine.init_state())
    _, moved, same = few.solve(theta, few.init_state())
    assert info.steps > 0
    assert same.steps > 0
    # In single precision, and summed in another order: a loss of 5e-9 is right to a few thousandths.
    np.testing.assert_allclose(same.loss, fine.lower_level.at(theta).loss(moved), rtol=2e-2)
    # Solved: no step, and the loss is that at the few points.
    loose = few.to_tolerance(10 * float(info.loss))
    field, kept, seen = loose.solve(theta, weights)
    assert seen.converged
    assert seen.steps == 0
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), kept, weights))
    level = fine.lower_level.with_points(few.check_points).at(theta)
    np.testing.assert_allclose(seen.loss, level.loss(weights), rtol=1e-5)
    assert float(seen.loss) != float(info.loss)
    x = jnp.array([0.3])
    np.testing.assert_allclose(field(x), wanted(x), rtol=1e-5)


def test_what_cannot_be_solved_at_a_few_points_is_not_tried_at_all_of_them():
    few = made(points=600, steps=20).checked_at_few()
    far = {"D": jnp.array(1e-4)}
    # Steps that all points would not forgive: their rows are not finite.
    broken = few.operator.with_points(few.operator.points.at[0].set(jnp.nan))
    few = eqx.tree_at(lambda f: f.operator, few, broken)
    _, _, info = few.solve(far, few.init_state())
    assert not info.converged
    assert np.isfinite(info.loss)
    # One that can be is then solved on all, which shows here.
    near = {"D": jnp.array(2.1)}
    _, _, info = few.solve(near, few.init_state())
    assert not np.isfinite(info.loss)


def test_solves_at_many_points_are_dear():
    assert made(points=300).is_dear
    assert not made(points=51).is_dear


def test_where_all_points_are_few_solves_look_at_all():
    assert made(points=51).checked_at_few().check_points is None

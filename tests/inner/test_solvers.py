"""The inner solvers on a small curve fit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bilo_ppl as bilo
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.linearised import Dense
from bilo_ppl.inner.solvers import AbstractInnerSolver, Chord, advance, solve

T = np.linspace(0.0, 2.0, 9)
EXACT = {"a": 1.5, "b": 0.8}
FAR = {"a": 1.0, "b": 0.5}


def problem(dtype=np.float64):
    """Fit a exp(-b t); zero loss at `EXACT`."""
    t = T.astype(dtype)
    y = (1.5 * np.exp(-0.8 * T)).astype(dtype)

    def rows(weights, item):
        t, y = item
        return {"fit": jnp.atleast_1d(weights["a"] * jnp.exp(-weights["b"] * t) - y)}

    return LeastSquares((RowFamily(rows, (jnp.asarray(t), jnp.asarray(y)), {}),))


def unsolvable():
    """Rows that cannot vanish: the loss is at least 1."""
    one = RowFamily(lambda w, t: {"r": jnp.stack([w["a"], 1.0 + 0 * t])}, jnp.zeros(1), {})
    return LeastSquares((one,))


def at(values, dtype=np.float64):
    return {name: jnp.asarray(value, dtype) for name, value in values.items()}


def levenberg_marquardt(tolerance=1e-8, max_steps=50, **options):
    return bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=max_steps, **options)


def adam(tolerance=1e-8, max_steps=3000):
    return bilo.OptaxSolver(optax.adam(0.02), tolerance=tolerance, max_steps=max_steps)


def solved(solver, weights, dtype=np.float64):
    lower_level = problem(dtype)
    return jax.jit(lambda w: solve(solver, lower_level, w))(weights)


BOTH = pytest.mark.parametrize("make", [levenberg_marquardt, adam])


@BOTH
def test_reaches_the_tolerance_from_a_perturbed_start(make):
    found = solved(make(), at(FAR))
    assert found.converged
    assert found.loss <= 1e-8
    assert 0 < found.steps < make().max_steps
    for name, value in EXACT.items():
        np.testing.assert_allclose(found.value[name], value, atol=2e-3)


@BOTH
def test_takes_no_step_when_the_start_is_good_enough(make):
    start = at({"a": 1.50001, "b": 0.8})
    found = solved(make(), start)
    assert found.converged
    assert found.steps == 0
    assert found.value == start


@BOTH
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_stops_at_the_step_limit(make, limit):
    found = solved(make(tolerance=1e-30, max_steps=limit), at(FAR))
    assert found.steps == limit
    assert not found.converged
    assert (found.value == at(FAR)) == (limit == 0)


@BOTH
@pytest.mark.parametrize("limit", [0, 1, 3, 50])
def test_loss_reported_is_that_of_the_weights_returned(make, limit):
    found = solved(make(max_steps=limit), at(FAR))
    np.testing.assert_allclose(found.loss, problem().loss(found.value), rtol=1e-10)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_weights(make, dtype):
    found = solved(make(tolerance=1e-7), at(FAR, dtype), dtype)
    assert found.converged
    assert found.loss.dtype == found.value["a"].dtype == dtype


@BOTH
def test_batched_solves_stop_one_by_one(make):
    solver = make(tolerance=1e-7)
    starts = {"a": jnp.array([1.0, 1.5, 3.0]), "b": jnp.array([0.5, 0.8, 0.8])}
    together = jax.jit(jax.vmap(lambda w: solve(solver, problem(), w)))(starts)
    assert together.converged.all()
    assert together.steps[1] == 0
    alone = solved(solver, at({"a": 3.0, "b": 0.8}))
    assert together.steps[2] == alone.steps
    np.testing.assert_allclose(together.value["a"][2], alone.value["a"], rtol=1e-10)


def test_adam_is_optaxs_own_loop():
    loss = jax.jit(jax.value_and_grad(problem().loss))
    optimiser, weights = optax.adam(0.02), at(FAR)
    state = optimiser.init(weights)
    for _ in range(5):
        updates, state = optimiser.update(loss(weights)[1], state)
        weights = optax.apply_updates(weights, updates)
    found = solved(adam(max_steps=5), at(FAR))
    assert found.steps == 5
    for name in weights:
        np.testing.assert_allclose(found.value[name], weights[name], rtol=1e-12)


def test_levenberg_marquardt_never_raises_the_loss():
    solver, lower_level = levenberg_marquardt(), problem()
    state = solver.init(lower_level, at({"a": -4.0, "b": 3.0}))
    step = jax.jit(lambda s: solver.step(lower_level, s))
    losses = [float(state.loss)]
    for _ in range(12):
        state = step(state)
        losses.append(float(state.loss))
    assert np.all(np.diff(losses) <= 0)
    assert losses[-1] < 1e-3 * losses[0]


def test_levenberg_marquardt_needs_few_steps_near_the_solution():
    assert solved(levenberg_marquardt(1e-16), at({"a": 1.6, "b": 0.7})).steps <= 5


def test_levenberg_marquardt_takes_the_curve_of_a_valley_into_account(monkeypatch):
    """Rosenbrock's valley, steeper: with straight steps the damping has to stay large."""

    def steps():
        def rows(w, steepness):
            return {"r": jnp.stack([1 - w[0], steepness * (w[1] - w[0] ** 2)])}

        family = RowFamily(rows, jnp.array([300.0]), {})
        found = solve(
            bilo.LevenbergMarquardt(1e-16, 500), LeastSquares((family,)), jnp.array([-1.2, 1.0])
        )
        assert found.converged
        np.testing.assert_allclose(found.value, [1, 1], atol=1e-6)
        return int(found.steps)

    curved = steps()
    monkeypatch.setattr(Dense, "has_factor", False)
    assert curved < 0.6 * steps()


def test_levenberg_marquardt_follows_another_problem_with_the_damping_that_served():
    """A solve that goes on at another theta must not learn its damping anew."""
    solver, first = levenberg_marquardt(), problem()
    timid = solver.init(first, at(FAR))._replace(damping=jnp.asarray(1e2))
    followed, restarted = (
        solver.follow(first, timid),
        solver.step(first, solver.init(first, at(FAR))),
    )
    moved, leapt = (abs(float(s.weights["a"]) - FAR["a"]) for s in (followed, restarted))
    assert 0 < moved < 0.1 * leapt
    assert followed.steps == 1
    np.testing.assert_allclose(followed.loss, first.loss(followed.weights), rtol=1e-12)


def test_levenberg_marquardt_follows_by_the_rows_and_the_loss_of_the_other_problem():
    """Of a former problem only weights and damping count: its rows point elsewhere."""
    solver, lower_level = levenberg_marquardt(), problem()
    here = solver.init(lower_level, at(FAR))
    wanted = solver.follow(lower_level, here)
    assert wanted.loss < here.loss
    for former in ({"loss": 1e-12}, {"loss": 1e12}, {"rows": -here.rows}, {"steps": 7}):
        stale = here._replace(**{name: jnp.asarray(value) for name, value in former.items()})
        jax.tree.map(np.testing.assert_array_equal, solver.follow(lower_level, stale), wanted)


class Careful(AbstractInnerSolver):
    """Gradient steps that are taken back where the loss rises: it follows as solvers do by default."""

    tolerance: float = 1e-8
    max_steps: int = 100

    class State(NamedTuple):
        weights: Any
        loss: Any
        steps: Any

    def init(self, problem, weights):
        return self.State(weights, problem.loss(weights), jnp.array(0))

    def step(self, problem, state):
        slope = jax.grad(problem.loss)(state.weights)
        weights = jax.tree.map(lambda w, g: w - 0.05 * g, state.weights, slope)
        loss = problem.loss(weights)
        kept = jax.tree.map(
            lambda new, old: jnp.where(loss < state.loss, new, old),
            (weights, loss),
            (state.weights, state.loss),
        )
        return self.State(*kept, state.steps + 1)


def test_by_default_a_solver_follows_from_the_loss_of_its_weights_in_the_other_problem():
    solver, lower_level = Careful(), problem()
    former = solver.init(lower_level, at(FAR))._replace(loss=jnp.array(0.0), steps=jnp.array(7))
    after = solver.follow(lower_level, former)
    assert after.steps == 1
    assert after.loss < lower_level.loss(at(FAR))
    np.testing.assert_allclose(after.loss, lower_level.loss(after.weights), rtol=1e-12)


def test_levenberg_marquardt_stops_where_no_step_helps():
    solver = levenberg_marquardt(max_steps=200)
    found = jax.jit(lambda w: solve(solver, unsolvable(), w))(at({"a": 2.0}))
    assert not found.converged
    assert found.steps < 200
    np.testing.assert_allclose(found.loss, 1.0, rtol=1e-6)


@BOTH
def test_loss_that_is_not_finite_ends_the_solve(make):
    found = solved(make(), at({"a": np.nan, "b": 1.0}))
    assert not found.converged
    assert found.steps == 0


@BOTH
def test_advance_in_parts_is_the_whole(make):
    solver, lower_level = make(max_steps=4, tolerance=1e-30), problem()
    state = solver.init(lower_level, at(FAR))
    run = jax.jit(lambda s, n: advance(solver, lower_level, s, n))
    for upto in (1, 3, 100):
        state = run(state, upto)
        assert state.steps == min(upto, 4)
    whole = solved(solver, at(FAR))
    np.testing.assert_allclose(state.weights["a"], whole.value["a"], rtol=1e-12)


@BOTH
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"tolerance": -1e-3}, "tolerance must be positive"),
        ({"tolerance": float("nan")}, "tolerance must be positive, got nan"),
        ({"max_steps": -1}, "max_steps must be at least 0, got -1"),
    ],
)
def test_limits_that_cannot_be_meant(make, limits, message):
    with pytest.raises(ValueError, match=message):
        make(**limits)


def test_a_step_without_a_finite_trial_leaves_the_damping_usable():
    solver = levenberg_marquardt()

    def nowhere(weights, t):
        return {"r": jnp.atleast_1d(jnp.where(weights["a"] == 1.0, 1.0, jnp.nan) * weights["a"])}

    broken = LeastSquares((RowFamily(nowhere, jnp.zeros(1), {}),))
    state = solver.step(broken, solver.init(broken, at(FAR)))
    assert solver.stuck(state)
    assert np.isfinite(state.damping)
    lower_level = problem()
    losses = [float(lower_level.loss(state.weights))]
    for _ in range(6):
        state = solver.follow(lower_level, state)
        losses.append(float(state.loss))
    assert np.isfinite(state.damping)
    assert losses[-1] < 1e-8 < losses[0]


def test_failed_steps_do_not_raise_the_damping_without_bound():
    solver, stuck = levenberg_marquardt(), unsolvable()
    state = solver.init(stuck, at({"a": 0.0}))
    for _ in range(3):
        state = solver.follow(stuck, state)
        assert solver.stuck(state)
    assert state.damping <= 1.0


def linear(slope):
    """Rows that are linear in the weights, with a solution."""
    t = jnp.asarray(T)

    def rows(weights, t):
        return {"line": jnp.atleast_1d(weights["a"] + (slope + t) * weights["b"] - 1.0)}

    return LeastSquares((RowFamily(rows, t, {}),))


def test_a_chord_solves_a_linear_problem_at_once_and_goes_on_below_its_tolerance():
    chord = Chord(linear(0.0), at(FAR), tolerance=1e-2, max_steps=20)
    found = solve(chord, linear(0.0), at(FAR))
    assert found.converged
    assert found.loss < 1e-6
    assert found.steps <= 2


def test_a_chord_converges_for_problems_near_that_of_its_linearisation():
    chord = Chord(linear(0.0), at(FAR), tolerance=1e-12, max_steps=60)
    found = solve(chord, linear(0.3), at(FAR))
    assert found.converged
    far = solve(chord, linear(-30.0), at(FAR))
    assert not far.converged
    assert far.loss <= linear(-30.0).loss(at(FAR)), "a step that raises the loss is undone"
    assert far.steps == 1


def test_a_chord_is_usable_in_single_precision():
    start = at(FAR, np.float32)
    chord = Chord(problem(np.float32), start, tolerance=1e-6, max_steps=20)
    assert solve(chord, problem(np.float32), start).converged


def test_momentum_takes_a_part_of_the_last_step_again_in_follow():
    plain, heavy = levenberg_marquardt(), levenberg_marquardt(momentum=0.5)
    target = linear(0.0)
    first = plain.init(target, at(FAR)), heavy.init(target, at(FAR))
    once = plain.follow(target, first[0]), heavy.follow(target, first[1])
    np.testing.assert_allclose(once[0].weights["a"], once[1].weights["a"], rtol=1e-12)
    assert once[0].last.size == 0
    # The linear problem is solved: without momentum nothing is left to do, with it the step goes on and
    # what it spoils is mended at the same time.
    other = free_along(once[1])
    moved = heavy.follow(other, once[1]).weights["b"] - once[1].weights["b"]
    np.testing.assert_allclose(moved, 0.5 * once[1].last[1], rtol=1e-6)


def free_along(state):
    """Rows that ask for ``a`` alone: b is free."""
    target = state.weights["a"] + 1.0

    def rows(weights, t):
        return {"a": jnp.atleast_1d(weights["a"] - target)}

    return LeastSquares((RowFamily(rows, jnp.zeros(1), {}),))


def test_steps_on_parts_of_the_rows_have_momentum():
    assert levenberg_marquardt().momentum == 0
    assert levenberg_marquardt().for_parts().momentum > 0.5
    optimiser = adam()
    assert optimiser.for_parts() is optimiser, "it has a memory of its own"
    with pytest.raises(ValueError, match=r"momentum=1\.0, not in \[0, 1\)"):
        levenberg_marquardt(momentum=1.0)

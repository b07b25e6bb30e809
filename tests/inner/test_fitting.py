"""Large fits: steps on parts of the rows, judged by all of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bilo_ppl as bilo
from bilo_ppl.inner import fit_by_parts, fitting
from bilo_ppl.inner.arithmetic import step_arithmetic
from bilo_ppl.inner.fitting import fit
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.stepping import AllRows, PartOfRows

X = np.linspace(-1, 1, 2000)


def problem(count=2000, noise=0.0):
    """y = 2 sin(3 x) + 0.5 at points, to be fitted by a sin(b x) + c; ten more rows say c = 0.5."""
    x = jnp.asarray(X[:count])
    scatter = jnp.asarray(np.random.default_rng(0).normal(size=count)) * noise

    def rows(w, item):
        return {"data": jnp.atleast_1d(w[0] * jnp.sin(w[1] * item[0]) + w[2] - item[1])}

    def constant(w, item):
        return {"constant": jnp.atleast_1d(w[2] - item)}

    y = 2 * jnp.sin(3 * x) + 0.5 + scatter
    return LeastSquares(
        (RowFamily(rows, (x, y), {}), RowFamily(constant, jnp.full(10, 0.5), {"constant": 4.0}))
    )


START = jnp.array([1.0, 2.5, 0.0])
SOLVER = bilo.LevenbergMarquardt(tolerance=1e-12, max_steps=40)


def test_a_part_estimates_the_loss_and_keeps_small_families_whole():
    whole = problem()
    parts = [whole.part(jax.random.key(i), 200) for i in range(40)]
    assert {part.count for part in parts} == {209}
    assert parts[0].families[1].count == 10
    losses = np.array([part.loss(START) for part in parts])
    assert losses.std() > 0
    assert abs(losses.mean() - whole.loss(START)) < 4 * losses.std() / np.sqrt(40)
    # One of every stretch: all parts of the interval are there.
    x = np.asarray(parts[0].families[0].items[0])
    assert np.diff(x).max() < 3 * 2 / len(x)
    assert whole.part(jax.random.key(0), 5000).count == whole.count


def test_a_large_fit_is_right_on_all_rows():
    weights, report = fit(SOLVER, lambda _: problem(), START, progress=False, label="")
    assert report.converged
    np.testing.assert_allclose(weights, [2, 3, 0.5], atol=1e-5)
    assert report.loss == pytest.approx(float(problem().loss(weights)), abs=1e-14)
    assert report.terms.keys() == {"data", "constant"}
    again, _ = fit(SOLVER, lambda _: problem(), START, progress=False, label="")
    np.testing.assert_array_equal(weights, again)


def test_after_steps_on_parts_the_loss_is_that_of_all_rows():
    whole = problem(noise=0.3)
    steps = PartOfRows(SOLVER, lambda _: whole, START, jnp.array(0), 100)
    reached = steps(START, None, jnp.array(0), 5)
    assert reached.loss == pytest.approx(float(whole.loss(reached.weights)), rel=1e-10)
    assert reached.loss == pytest.approx(float(sum(reached.terms.values())), rel=1e-10)
    assert abs(reached.state.loss / reached.loss - 1) > 0.01


def test_steps_on_parts_are_compiled_once():
    traced = []

    def rows(_):
        traced.append("rows")
        return problem()

    steps = PartOfRows(SOLVER, rows, START, jnp.array(0), 100)
    reached = steps(START, None, jnp.array(0), 3)
    before = len(traced)
    for length in (3, 5):
        reached = steps(reached.weights, reached.state, jnp.array(0), length)
    assert len(traced) == before


def test_weights_that_are_enough_are_kept_though_others_had_less_loss():
    asked = []

    def enough(weights, loss):
        asked.append((weights, loss))
        return loss > min(loss for _, loss in asked)

    solver = eqx.tree_at(lambda s: s.tolerance, SOLVER, 1e-12)
    noisy = problem(noise=0.3)
    weights, report = fit(solver, lambda _: noisy, START, progress=False, label="", enough=enough)
    last, loss = asked[-1]
    assert loss > min(loss for _, loss in asked)
    np.testing.assert_array_equal(weights, last)
    assert report.loss == loss


def test_a_step_on_a_sample_is_judged_by_other_rows():
    whole = problem(noise=0.3)
    steps = AllRows(SOLVER, lambda _: whole, START, jnp.array(0), 100, 500)
    reached = steps(START, None, jnp.array(0), 5)
    sample, watched = (
        whole.part(jax.random.key(key), count) for key, count in ((0, 100), (1, 500))
    )
    assert reached.own == pytest.approx(float(sample.loss(reached.weights)), rel=1e-10)
    assert reached.loss == pytest.approx(float(watched.loss(reached.weights)), rel=1e-10)
    assert reached.loss == pytest.approx(float(sum(reached.terms.values())), rel=1e-10)
    assert reached.loss != pytest.approx(float(reached.own), rel=1e-3)
    assert int(reached.steps) == 5
    assert not reached.done
    # The next call goes on with the same sample, which is fitted until nothing is gained.
    further = steps(reached.weights, reached.state, jnp.array(0), 35)
    assert further.own <= reached.own
    assert further.over


def test_large_and_small_fits_take_different_steps(monkeypatch):
    used = []
    monkeypatch.setattr(
        fit_by_parts, "PartOfRows", lambda *a: used.append("part") or PartOfRows(*a)
    )
    fit(SOLVER, lambda _: problem(500), START, progress=False, label="")
    assert not used
    fit(SOLVER, lambda _: problem(), START, progress=False, label="")
    assert used


@pytest.mark.parametrize("enough", [None, lambda *_: False])
@pytest.mark.parametrize("too_large", [False, True])
def test_samples_grow_to_all_rows_where_the_noise_of_parts_is_in_the_way(
    monkeypatch, enough, too_large
):
    """Data with noise: the loss on all rows has a floor, below which no part may lead."""
    counts = []

    def noted(*args):
        counts.append(args[4])
        return AllRows(*args)

    monkeypatch.setattr(fit_by_parts, "AllRows", noted)
    monkeypatch.setattr(fit_by_parts, "is_large_system", lambda *_: too_large)
    _, report = fit(
        SOLVER,
        lambda _: problem(noise=0.3),
        START,
        progress=False,
        label="",
        least_gain=0.01,
        enough=enough,
    )
    assert counts == ([] if too_large else [768, 1536, 2010])
    exact, _ = fit(
        bilo.LevenbergMarquardt(1e-12, 60),
        lambda _: _by_all_rows(problem(noise=0.3)),
        START,
        progress=False,
        label="",
    )
    floor = float(problem(noise=0.3).loss(exact))
    assert report.loss < (1.01 if too_large else 1 + 1e-5) * floor
    assert report.history[-1][1] == report.loss


def test_in_the_end_the_loss_is_that_of_all_rows(monkeypatch):
    monkeypatch.setattr(fit_by_parts, "WATCHED", 300)
    noisy = problem(noise=0.3)
    weights, report = fit(SOLVER, lambda _: noisy, START, progress=False, label="", least_gain=0.1)
    assert report.loss == pytest.approx(float(noisy.loss(weights)), rel=1e-10)
    assert report.terms["data"] == pytest.approx(float(noisy.terms(weights)["data"]), rel=1e-10)


def _by_all_rows(whole):
    """The same problem as one item: nothing to take a part of."""
    item = jax.tree.map(lambda leaf: leaf[None], [f.items for f in whole.families])

    def rows(w, items):
        parts = [
            eqx.tree_at(lambda f: f.items, family, part)
            for family, part in zip(whole.families, items, strict=True)
        ]
        return {"all": LeastSquares(tuple(parts)).rows(w)}

    return LeastSquares((RowFamily(rows, item, {}),))


def test_a_first_order_solver_takes_parts_too():
    solver = bilo.OptaxSolver(optimiser=optax.adam(3e-2), tolerance=1e-4, max_steps=200)
    _, report = fit(solver, lambda _: problem(), START, progress=False, label="")
    assert report.loss < 1e-3


class Bar:
    """What a bar would show."""

    def __init__(self, run):
        self.run, self.shown = run, []

    def __call__(self, block, total, **options):
        def watched(length):
            report = block(length)
            self.shown.append((length, report.done, report.most_left))
            return report

        self.total = total
        return self.run(watched, total, **options)


@pytest.mark.parametrize("count", [300, 2000])
@pytest.mark.parametrize("limit", [1, 5])
def test_a_fit_takes_no_more_steps_than_its_bar_has(monkeypatch, count, limit):
    bar = Bar(fitting.run_blocks)
    monkeypatch.setattr(fitting, "run_blocks", bar)
    # From the second chunk on there is nothing to be gained by parts.
    monkeypatch.setattr(fit_by_parts, "SLOW", 0.0)
    solver = bilo.LevenbergMarquardt(tolerance=1e-30, max_steps=limit)
    noisy = problem(count, noise=0.3)
    fit(solver, lambda _: noisy, START, progress=False, label="", stages=[0.0, 1.0])
    taken = [done for _, done, _ in bar.shown]
    assert 0 < sum(taken) <= bar.total
    assert all(done <= length for length, done, _ in bar.shown)


def test_a_sample_takes_no_more_steps_than_are_left():
    noisy = problem(noise=0.3)
    parts = fit_by_parts.FitByParts(SOLVER, lambda _: noisy, START, [0.0], 0.0, None)
    parts.count, parts.sampled = 800, True
    parts.steps = parts._stepping()
    report = parts.block(3)
    assert report.done <= 3
    assert report.most_left == SOLVER.max_steps - report.done


def test_a_fit_says_what_its_steps_cost(monkeypatch):
    asked = []

    def run(block, total, *, work, **options):
        asked.append(work)
        return fitting_run(block, total, work=work, **options)

    fitting_run = fitting.run_blocks
    monkeypatch.setattr(fitting, "run_blocks", run)
    fit(SOLVER, lambda _: problem(300), START, progress=False, label="", parameters=50)
    fit(SOLVER, lambda _: problem(), START, progress=False, label="")
    assert [work.kind for work in asked] == ["step of a fit"] * 2
    assert asked[0].amount == step_arithmetic(310, 3, 50)
    # Of the first part, not of all rows.
    assert asked[1].amount == step_arithmetic(fit_by_parts.PART, 3, 3)

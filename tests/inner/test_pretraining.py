"""Pretraining: the report, extra data, what can go wrong, and interruption."""

import inspect
import signal
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bilo_ppl as bilo
from bilo_ppl.inner import fitting
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.pretraining import data_rows
from bilo_ppl.inner.whole_fit import WholeFit
from models import heat_initial

KEY = jax.random.key(0)


def pretrained(problem, theta=None, *, tolerance=1e-3, max_steps=40, width=8, **options):
    solver = bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=max_steps)
    return bilo.pretrain(
        problem,
        {"D": 1.0} if theta is None else theta,
        **{"key": KEY, "solver": solver, "progress": False, "width": width, **options},
    )


def values(operator, D=1.0, n=11):
    x = np.linspace(0, 1, n)
    u = jax.jit(jax.vmap(operator.field({"D": D})))(x[:, None])
    return x, np.asarray(u)


def test_pretrained_operator_solves_the_equation(small_pretrained):
    x, u = values(small_pretrained.operator)
    np.testing.assert_allclose(u, np.sin(np.pi * x), atol=1e-4)


def test_report(small_pretrained):
    operator, report = small_pretrained
    assert report.converged
    assert report.loss <= report.tolerance == 1e-8
    assert 0 < report.steps <= 200
    assert report.cpu_seconds > 0
    assert report.terms.keys() == {"residual", "residual_gradient"}
    np.testing.assert_allclose(sum(report.terms.values()), report.loss, rtol=1e-6)
    steps, losses = zip(*report.history, strict=True)
    assert steps[0] == 0
    assert steps[-1] == report.steps
    assert list(losses) == sorted(losses, reverse=True)
    assert losses[-1] == report.loss < 1e-6 * losses[0]
    problem = LowerLevel(operator, bilo.ResidualGradient()).at({"D": 1.0})
    np.testing.assert_allclose(
        eqx.filter_jit(problem.loss)(operator.weights), report.loss, rtol=1e-4
    )
    assert "tolerance 1e-08 reached" in str(report)


def test_an_error_that_is_small_enough_ends_training(small_problem):
    told = iter([9.0, 3.0, 0.5, 0.39, 0.39])
    operator, report = pretrained(
        small_problem, tolerance=1e-12, max_steps=60, error=lambda _: next(told)
    )
    assert next(told, None) is None
    assert 0 < report.steps < 60
    assert report.adequate
    assert operator.points.shape == small_problem.points.shape


@pytest.mark.parametrize(("error", "suffices"), [(0.9, True), (1.1, False)])
def test_points_suffice_where_the_error_is_no_larger_than_allowed(small_problem, error, suffices):
    operator, report = pretrained(small_problem, max_steps=5, error=lambda _: error)
    assert report.adequate == suffices
    assert (len(operator.points) == len(small_problem.points)) == suffices


def test_data_are_fitted_beside_the_equation(small_problem):
    """Values that contradict the equation pull the operator away from its solution."""
    x = np.linspace(0.1, 0.9, 5)[:, None]
    y = 2 * np.sin(np.pi * x[:, 0])
    operator, report = pretrained(
        small_problem, data=(x, y), data_weight=1e5, max_steps=30, dtype=np.float64
    )
    assert report.terms.keys() == {"residual", "residual_gradient", "data"}
    u = jax.jit(jax.vmap(operator.field({"D": 1.0})))(x)
    np.testing.assert_allclose(u, y, rtol=0.02)
    np.testing.assert_allclose(report.terms["data"], 1e5 * np.mean((u - y) ** 2), rtol=1e-6)


def test_any_optax_optimiser_will_do(small_problem):
    solver = bilo.OptaxSolver(optax.adam(1e-2), tolerance=1e-9, max_steps=60)
    report = pretrained(small_problem, solver=solver).report
    assert report.steps == 60
    assert report.history[-1][1] < 0.5 * report.history[0][1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.zeros(3), np.zeros(3)), r"points \(3,\) and values \(3,\) do not fit"),
        ((np.zeros((3, 2)), np.zeros(3)), r"points of shape \(n, 1\)"),
        ((np.zeros((3, 1)), np.zeros(4)), "do not fit"),
        ((np.zeros((2, 1)), np.array([1.0, np.nan])), "NaN or infinity"),
        ((np.array([[np.inf], [0.0]]), np.zeros(2)), "NaN or infinity"),
    ],
)
def test_errors_in_the_data(small_operator, data, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(data_rows)(small_operator, {"D": 1.0}, data, 1.0)


def test_errors_in_the_data_come_out_of_pretrain(small_problem):
    with pytest.raises(ValueError, match="do not fit"):
        pretrained(small_problem, data=(np.zeros((3, 1)), np.zeros(4)))


class WithCorners(heat_initial.HeatInitial):
    """The heat equation at all points of the grid."""

    @property
    def points(self):
        return self.domain.grid(self.nx, self.nt)


@pytest.mark.slow
def test_points_where_no_weight_acts_are_named_if_they_hide_the_tolerance():
    """At two corners the residual is -0.01 f'' = 0.02, whatever the weights are."""
    theta = {"f": lambda x: x[0] * (1 - x[0])}
    floor = 2 * 0.02**2 / 25
    with pytest.warns(UserWarning, match=r"2 rows .* depend on no weight.* alone is 3.2e-05"):
        found = pretrained(WithCorners(5, 5), theta, tolerance=floor / 2, max_steps=20)
    assert found.report.loss == pytest.approx(floor, rel=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pretrained(WithCorners(5, 5), theta, tolerance=2 * floor).report.converged
        assert pretrained(heat_initial.HeatInitial(5, 5), theta, tolerance=1e-6).report.converged


def test_the_problem_is_checked_first(small_problem):
    with pytest.raises(ValueError, match="is not finite"):
        pretrained(small_problem, {"D": float("nan")})
    with pytest.raises(ValueError, match=r"missing \['D'\]"):
        pretrained(small_problem, {})


def interrupt_block(monkeypatch, number):
    """Raise SIGINT in a block of a fit, counted from 1."""
    block, done = WholeFit.block, []

    def interrupting(self, length):
        done.append(length)
        if len(done) == number:
            signal.raise_signal(signal.SIGINT)
        return block(self, length)

    monkeypatch.setattr(WholeFit, "block", interrupting)


def test_interruption_and_an_unreached_tolerance_keep_the_operator_and_show(
    small_problem, monkeypatch, capsys
):
    # The first block evaluates the start, the others take two steps each.
    interrupt_block(monkeypatch, 3)
    interrupted = pretrained(small_problem, tolerance=1e-12, max_steps=40, progress=True)
    assert "pretrain: interrupted after 4 steps, loss " in capsys.readouterr().err
    monkeypatch.undo()
    stopped = pretrained(small_problem, tolerance=1e-12, max_steps=4)
    for report in (interrupted.report, stopped.report):
        assert not report.converged
        assert report.steps == 4
        assert "NOT reached" in str(report)
    np.testing.assert_allclose(values(interrupted.operator), values(stopped.operator), rtol=1e-4)
    np.testing.assert_allclose(interrupted.report.loss, stopped.report.loss, rtol=1e-3)
    assert capsys.readouterr().err == ""


def test_interruption_ends_pretraining_also_where_points_would_be_added(small_problem, monkeypatch):
    interrupt_block(monkeypatch, 3)
    found = pretrained(
        small_problem, tolerance=1e-12, max_steps=40, error=lambda operator: 2.0, progress=True
    )
    assert found.report.interrupted
    assert not found.report.adequate
    assert len(found.operator.points) == len(small_problem.points)


def squares(target):
    """Rows w - target of one weight, for the stages of a fit."""
    return LeastSquares((RowFamily(lambda w, item: {"row": (w - item)[None]}, target[None], {}),))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_fit_interrupted_on_the_way_reports_the_last_stage(monkeypatch, number):
    interrupt_block(monkeypatch, number)
    # Chunks of two steps, of which the first of all only evaluates.
    solver = bilo.OptaxSolver(optax.sgd(0.25), tolerance=1e-3, max_steps=40)
    stages = [jnp.array(1.0), jnp.array(2.0), jnp.array(4.0)]
    weights, report = fitting.fit(
        solver, squares, jnp.array(0.0), progress=False, label="fit", stages=stages
    )
    np.testing.assert_allclose(report.loss, (weights - 4.0) ** 2)
    # Blocks: start and step of a stage, in turn; a step goes half of the way.
    assert report.steps == number // 2
    np.testing.assert_allclose(weights, [0.0, 0.5, 0.5, 1.25][number - 1])
    assert len(report.history) == 1


def test_the_stages_of_a_fit_lead_to_the_last():
    solver = bilo.OptaxSolver(optax.sgd(0.25), tolerance=1e-6, max_steps=60)
    stages = [jnp.array(1.0), jnp.array(2.0), jnp.array(4.0)]
    weights, report = fitting.fit(
        solver, squares, jnp.array(0.0), progress=False, label="fit", stages=stages
    )
    # A chunk of three steps, of which the first only evaluates, in each of the stages before the last.
    steps, losses = zip(*report.history, strict=True)
    assert steps[0] == 4
    np.testing.assert_allclose(losses[0], (4 - 1.6875) ** 2)
    assert report.converged
    np.testing.assert_allclose(weights, 4.0, atol=1e-3)
    with_gain = fitting.fit(
        solver, squares, jnp.array(0.0), progress=False, label="fit", least_gain=0.99, stages=stages
    )[1]
    assert len(with_gain.history) == 2, "two steps lower the loss by 15 / 16"

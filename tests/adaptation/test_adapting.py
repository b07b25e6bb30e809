"""Adaptation of a small operator to the posterior of the Poisson problem."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.adaptation import adapting, given, sources
from bilo_ppl.adaptation.adapting import _fraction_ready
from bilo_ppl.adaptation.batches import farthest_points, losses
from bilo_ppl.adaptation.given import FromBatch
from bilo_ppl.adaptation.report import Adapted, AdaptReport
from bilo_ppl.adaptation.sources import FromPosterior
from bilo_ppl.inner import consolidation
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.operators import fine_tuned
from models import poisson

X = np.linspace(0.1, 0.9, 9)[:, None]
Y = np.sin(np.pi * X[:, 0])
SIGMA = 0.05
TOLERANCE = 1e-5
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def fine(small_operator):
    solver = bilo.LevenbergMarquardt(tolerance=TOLERANCE, max_steps=6)
    local = small_operator.with_lora(2, key=jax.random.key(1))
    return bilo.FineTuned(local, solver, bilo.PartialDerivative())


def adapted_to(fine, y=Y, **options):
    options = {"rank": 4, "fit_steps": 40, "draws": 150, "progress": False, **options}
    return bilo.adapt(poisson.model, KEY, fine, X, y, SIGMA, **options)


@pytest.fixture(scope="module")
def adapted(fine):
    return adapted_to(fine)


def exact_log_moments():
    """Mean and sd of log D, by quadrature over u = sin(pi x) / D."""
    z = np.linspace(-0.5, 0.5, 2001)
    D = np.exp(z)
    misfit = ((Y[None] / D[:, None] - Y) ** 2).sum(axis=1) / (2 * SIGMA**2)
    log = 2 * z - D - misfit  # Gamma(2, 1) and the Jacobian of the logarithm
    p = np.exp(log - log.max())
    p /= p.sum()
    mean = p @ z
    return mean, np.sqrt(p @ (z - mean) ** 2)


def test_fresh_thetas_of_the_posterior_need_no_inner_step(fine, adapted):
    operator, report, _ = adapted
    mean, sd = exact_log_moments()
    D = np.exp(mean + sd * np.linspace(-3, 3, 13))
    before, after = (losses(op, {"D": jnp.asarray(D)}) for op in (fine, operator))
    assert (after <= TOLERANCE).all()
    assert (before > TOLERANCE).mean() > 0.5
    assert report.ready
    assert report.fraction_ready >= 0.95
    assert report.rounds == len(report.fits) >= 1
    assert report.fresh > 30
    assert "fresh thetas need no inner step" in str(report)
    assert operator.operator.rank == fine.operator.rank


def test_the_adapted_operator_solves_the_pde(adapted):
    for D in (0.95, 1.0, 1.05):
        u = jax.jit(jax.vmap(adapted.operator.operator.field({"D": D})))(X)
        np.testing.assert_allclose(u, Y / D, atol=2e-3)


def test_the_variances_are_those_of_the_unconstrained_posterior(adapted):
    sd = exact_log_moments()[1]
    assert adapted.inverse_mass_matrix.shape == (1,)
    assert 0.5 * sd < adapted.inverse_mass_matrix[0] ** 0.5 < 2 * sd


def test_the_covariance_is_that_of_the_positions_with_little_taken_off():
    positions = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 500)
    report = tuple.__new__(AdaptReport, ())
    found = Adapted({}, report, positions.var(axis=0), positions, dict).covariance
    np.testing.assert_allclose(found, [[1, 0.88], [0.88, 1]], atol=0.1)
    np.testing.assert_allclose(np.diag(found), positions.var(axis=0))
    # Two positions say nothing of a direction.
    few = Adapted({}, report, np.ones(2), np.array([[0.0, 0.0], [2.0, 2.0]]), dict).covariance
    assert np.linalg.eigvalsh(few).min() > 0.5
    assert Adapted({}, report, None, positions, dict).covariance is None
    # What is known of the mode takes the place of independence.
    known, pair = np.array([[1.0, 0.8], [0.8, 1.0]]), np.array([[0.0, 0.0], [2.0, 2.0]])
    found = Adapted({}, report, np.ones(2), pair, dict, about_mode=known).covariance
    assert 0.75 < found[0, 1] < 1.1


def test_a_covariance_is_positive_definite_also_where_the_variances_are_smaller():
    # Unknowns that depend on each other strongly: a diagonal 10 % smaller is no covariance's.
    report = tuple.__new__(AdaptReport, ())
    along = np.random.default_rng(0).normal(size=200)
    positions = np.stack([along, along + 0.05 * np.random.default_rng(1).normal(size=200)], axis=1)
    variances = 0.9 * positions.var(axis=0)
    mode = np.cov(positions.T)
    found = Adapted({}, report, variances, positions, dict, about_mode=mode).covariance
    np.testing.assert_allclose(np.diag(found), variances)
    assert np.linalg.eigvalsh(found).min() > 0


def test_features_that_stay_are_not_said_to_be_fitted():
    fit = FitReport(1e-3, {}, 0, True, 1e-2, 0.0, [])
    report = AdaptReport(1.0, 2e-3, 1, 40, 8, [fit], 1e-2, True, (), 1.0)
    assert "8 fresh thetas are solved by the features as they are" in str(report)
    assert "no inner step" in str(report._replace(fits=[fit._replace(steps=3)]))


@pytest.mark.parametrize(("large", "part"), [(False, 100), (True, 1.5)])
def test_a_consolidation_ends_far_below_the_tolerance(fine, monkeypatch, large, part):
    """What is left of the loss is what the posterior is wrong by."""
    monkeypatch.setattr(consolidation, "is_large_fit", lambda rows: large)
    _, report = fine.fitted_to(
        {"D": jnp.linspace(0.95, 1.05, 5)}, rank=0, steps=40, key=KEY, progress=False
    )
    assert report.converged
    assert report.loss <= TOLERANCE / part
    assert report.tolerance <= 1.01 * TOLERANCE / part


def test_fits_are_spread_over_the_devices_that_are_given(fine, monkeypatch):
    meshes = []

    def noted(*args, mesh, **options):
        meshes.append(mesh)
        return consolidation.consolidate(*args, mesh=mesh, **options)

    monkeypatch.setattr(fine_tuned, "consolidate", noted)
    thetas, mesh = {"D": np.linspace(0.95, 1.05, 24)}, bilo.device_mesh()
    found = adapted_to(fine, thetas=thetas, count=5, max_rounds=1, mesh=mesh)
    assert meshes == [mesh]
    assert found.report.fits[0].converged


def test_thetas_above_the_tolerance_are_not_ready(fine):
    """However little; and the worst of the operators counts."""
    mixed, good = TOLERANCE * np.array([0.5, 1.0, 1.01, 500.0]), np.full(9, 0.1 * TOLERANCE)
    assert _fraction_ready([fine], [mixed]) == 0.5
    assert _fraction_ready([fine, fine], [good, mixed]) == 0.5
    assert _fraction_ready([fine, fine], [good, good]) == 1.0


def test_an_operator_is_not_ready_where_there_is_another_mode(fine, monkeypatch):
    """However well it solves about the one that was found."""
    monkeypatch.setattr(adapting, "losses", lambda operator, thetas: np.zeros(3))
    monkeypatch.setattr(given, "solvable", lambda operator, thetas: thetas)
    monkeypatch.setattr(FromBatch, "elsewhere", "There is another mode.")
    thetas = {"D": np.linspace(0.95, 1.05, 24)}
    report = adapted_to(fine, thetas=thetas, count=4, fit_steps=1).report
    assert report.fraction_ready == 1
    assert not report.ready
    assert report.thetas == 4 + 1  # and the theta of pretraining


def test_saved_loaded_and_reused_for_other_data(adapted, small_problem, tmp_path):
    """Other noise, another posterior of the same region: still no inner step."""
    path = tmp_path / "adapted.eqx"
    bilo.save_operator(path, adapted.operator.operator)
    local = bilo.load_operator(path, small_problem).with_lora(2, key=KEY)
    operator = eqx.tree_at(lambda f: f.operator, adapted.operator, local)
    other = {"D": jnp.linspace(0.94, 1.06, 9)}
    np.testing.assert_allclose(losses(operator, other), losses(adapted.operator, other), rtol=1e-6)

    @jax.jit
    def steps(D):
        return operator.solve({"D": D}, operator.init_state())[2].steps

    assert max(int(steps(D)) for D in other["D"]) == 0


@pytest.mark.slow
def test_given_thetas_are_fitted_in_part_and_checked_on_the_rest(fine):
    thetas = {"D": np.linspace(0.9, 1.1, 24)}
    operator, report, mass = adapted_to(fine, thetas=thetas, count=6)
    assert mass is None
    assert report.thetas == 6 * report.rounds + 1  # and the theta of pretraining
    assert report.fresh == 24 - 6 * report.rounds
    assert report.ready
    assert (losses(operator, {"D": jnp.asarray(thetas["D"])}) <= TOLERANCE).all()


def test_prior_draws_and_a_budget_that_is_too_small(fine):
    """Gamma(2, 1) is far wider than what one step can fit: the report says so."""
    _, report, _ = adapted_to(
        fine, thetas="prior", count=4, fit_steps=1, max_rounds=5, max_cpu_seconds=0.0
    )
    assert report.rounds == 1
    assert not report.ready
    assert report.fraction_ready < 0.95
    assert report.worst_loss > TOLERANCE
    assert str(report).endswith("; not ready")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ready": 0.0}, "ready=0.0; needed are 0 < ready <= 1"),
        ({"max_rounds": 0}, "max_rounds=0"),
        ({"draws": 5}, "draws=5"),
        ({"spread": 0.5}, "spread=0.5"),
        ({"site": "v"}, "no solution site 'v', only"),
        ({"thetas": {"k": np.ones(3)}}, r"for each of \['D'\]"),
        ({"thetas": {"D": np.ones(3), "k": np.ones(3)}}, "and nothing else"),
        ({"thetas": {"D": 1.0}}, "a batch of equal length"),
        ({"thetas": {"D": np.ones(1)}}, "none is left for the check"),
    ],
)
def test_arguments_that_cannot_be_meant(fine, options, message):
    with pytest.raises(ValueError, match=message):
        adapted_to(fine, **options)


def test_an_operator_without_weights_cannot_be_adapted():
    with pytest.raises(ValueError, match="is a FiniteDifferences, which has no weights to adapt"):
        adapted_to(poisson.reference())


@pytest.mark.parametrize(("nearly", "rounds"), [(False, 3), (True, 6)])
def test_where_only_the_chains_do_not_agree_they_go_on_without_another_fit(
    fine, monkeypatch, nearly, rounds
):
    monkeypatch.setattr(FromPosterior, "settled", property(lambda self: False))
    if not nearly:
        monkeypatch.setattr(sources, "NEARLY", 0.0)
    found = adapted_to(fine, draws=40, max_rounds=3)
    assert found.report.fraction_ready >= 0.95
    assert not found.report.ready
    assert found.report.rounds == len(found.report.fits) == 1
    # As many times the half of 40 transitions of eight chains: warm-up is left out.
    assert found.positions.shape == (8 * rounds * 20, 1)


def test_the_tolerance_may_follow_from_the_solution_at_the_mode(fine):
    """Far tighter than that of the descent, it makes the descent go on from there."""
    asked = []

    def tolerance_at(operator, values):
        asked.append((float(operator.home["D"]), float(values["D"])))
        return 0.05 * TOLERANCE

    adapted = adapted_to(fine, tolerance_at=tolerance_at)
    assert adapted.operator.loss_tolerance == pytest.approx(0.05 * TOLERANCE)
    assert adapted.report.tolerance == pytest.approx(0.05 * TOLERANCE)
    assert len(asked) == 2, "at the first mode, and at the one that is found from there"
    for home, value in asked:
        assert home == pytest.approx(value, rel=1e-5)
        assert np.log(value) == pytest.approx(exact_log_moments()[0], abs=0.02)


def test_a_tolerance_that_is_out_of_reach_is_an_error_that_says_so(fine):
    out_of_reach = eqx.tree_at(
        lambda f: f.solver, fine, bilo.LevenbergMarquardt(tolerance=1e-22, max_steps=6)
    )
    with pytest.raises(ValueError, match="adapt: there is no point estimate to begin with"):
        adapted_to(out_of_reach, draws=20)


def test_a_start_far_away_is_left_and_the_report_says_where_the_posterior_is(fine):
    """Data of D = 3, ten posterior sd from home: exact moments by quadrature, beside the chains'."""
    y = Y / 3.0
    found = adapted_to(fine, y=y, max_rounds=3)
    assert found.report.ready
    z = np.linspace(np.log(1.0), np.log(8.0), 4001)
    misfit = ((Y[None] / np.exp(z)[:, None] - y) ** 2).sum(axis=1) / (2 * SIGMA**2)
    log = 2 * z - np.exp(z) - misfit
    p = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean, sd = p @ z, np.sqrt(p @ (z - p @ z) ** 2)
    assert abs(found.positions.mean() - mean) < 0.5 * sd
    assert found.positions.std() == pytest.approx(sd, rel=0.4)
    D = jnp.asarray(np.exp(mean + sd * np.linspace(-2, 2, 9)))
    assert (losses(found.operator, {"D": D}) <= TOLERANCE).all()
    np.testing.assert_allclose(found.operator.home["D"], np.exp(mean), rtol=0.2)
    starts = found.starts(4)["D"]
    assert starts.shape == (4,)
    assert len(np.unique(starts)) == 4
    assert np.ptp(starts) > 0.5 * sd


@pytest.mark.slow
def test_sites_of_one_operator_are_adapted_together(fine):
    """Two experiments with rates of their own."""

    def two(operator):
        for name, scale in (("first", 1.0), ("second", 1.2)):
            D = numpyro.sample(f"D_{name}", dist.Gamma(2.0, 1.0))
            u = bilo.solution(f"u_{name}", operator, {"D": D})
            y = Y / scale
            numpyro.sample(f"y_{name}", dist.Normal(jax.vmap(u)(X), SIGMA), obs=y)

    found = bilo.adapt(two, KEY, fine, rank=4, fit_steps=40, draws=60, progress=False)
    assert set(found.operators) == {"u_first", "u_second"}
    assert found.report.ready
    D = jnp.asarray([0.95, 1.0, 1.1, 1.2])
    assert (losses(found.operator, {"D": D}) <= TOLERANCE).all()


@pytest.mark.slow
def test_several_operators_are_adapted_each_to_its_own_thetas(fine):
    other = eqx.tree_at(
        lambda f: f.solver, fine, bilo.LevenbergMarquardt(tolerance=2 * TOLERANCE, max_steps=6)
    )

    def two(first, second):
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        for name, operator, factor in (("u", first, 1.0), ("v", second, 1.5)):
            u = bilo.solution(name, operator, {"D": factor * D})
            numpyro.sample(f"y_{name}", dist.Normal(jax.vmap(u)(X), SIGMA), obs=Y / factor)

    found = bilo.adapt(two, KEY, fine, other, rank=4, fit_steps=40, draws=60, progress=False)
    assert found.report.ready
    D = jnp.asarray([0.97, 1.0, 1.03])
    assert (losses(found.operators["u"], {"D": D}) <= TOLERANCE).all()
    assert (losses(found.operators["v"], {"D": 1.5 * D}) <= 2 * TOLERANCE).all()
    with pytest.raises(ValueError, match="have 2 operators; take them from operators"):
        _ = found.operator


def test_farthest_points_spread_over_the_rows():
    rows = np.concatenate([np.zeros((50, 2)), [[4.0, 0.0], [0.0, 3.0], [0.1, 0.0]]])
    chosen = farthest_points(rows, 3)
    np.testing.assert_array_equal(chosen[1:], [50, 51])
    assert len(farthest_points(np.ones((5, 1)), 3)) == 1

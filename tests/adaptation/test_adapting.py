"""Adaptation of a small operator to the posterior of the Poisson problem."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.adaptation.batches import farthest_points, losses
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
    assert "the budget ended before the wanted fraction was reached" in str(report)


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


def test_a_chain_that_cannot_leave_its_start_says_why(fine):
    out_of_reach = eqx.tree_at(
        lambda f: f.solver, fine, bilo.LevenbergMarquardt(tolerance=1e-22, max_steps=6)
    )
    with pytest.raises(ValueError, match=r"could not leave its start.* in 20 transitions"):
        adapted_to(out_of_reach, draws=20)


def test_farthest_points_spread_over_the_rows():
    rows = np.concatenate([np.zeros((50, 2)), [[4.0, 0.0], [0.0, 3.0], [0.1, 0.0]]])
    chosen = farthest_points(rows, 3)
    np.testing.assert_array_equal(chosen[1:], [50, 51])
    assert len(farthest_points(np.ones((5, 1)), 3)) == 1

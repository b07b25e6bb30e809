"""Sites with missing data: the potential, its gradient, and all that counts data."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import potential_energy
from scipy.stats import chi2, norm

import bilo_ppl as bilo
from bilo_ppl.diagnostics import goodness_of_fit
from bilo_ppl.estimate import gauss_newton
from bilo_ppl.estimate.objective import find_rows
from bilo_ppl.ppl.data_sites import check_missing, data_kind, data_mask
from bilo_ppl.ppl.look import look_at


class Decays(bilo.Problem):
    """u' = -r u, v' = -2 r v in time."""

    parameters, components = ("r",), 2
    domain = bilo.time_interval(0.0, 4.0)
    points = domain.grid(5)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) + theta["r"] * jnp.array([1.0, 2.0]) * u(x)


EXACT = bilo.ClosedForm(
    Decays(), lambda x, theta: jnp.exp(-theta["r"] * jnp.array([1.0, 2.0]) * x[0])
)
T = np.array([[0.5], [1.0], [2.0]])
Y = np.array([[0.6, np.nan], [0.35, 0.2], [np.nan, 0.1]])
SIGMA = np.array([0.1, 0.3])
EACH = np.array([[0.1, 9.0], [0.2, 0.3], [9.0, 0.4]])


def model(operator, x, y=None, sigma=0.1):
    r = numpyro.sample("r", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"r": r})
    bilo.observed("y", dist.Normal(jax.vmap(u)(x), sigma), y)


def by_hand(r, sigma):
    """The potential of the four values that are there, one by one."""
    s = np.broadcast_to(sigma, Y.shape)
    terms = [
        norm.logpdf(0.6, np.exp(-0.5 * r), s[0, 0]),
        norm.logpdf(0.35, np.exp(-1.0 * r), s[1, 0]),
        norm.logpdf(0.2, np.exp(-2.0 * r), s[1, 1]),
        norm.logpdf(0.1, np.exp(-4.0 * r), s[2, 1]),
    ]
    return -sum(terms) - norm.logpdf(r)


@pytest.mark.parametrize("sigma", [0.1, SIGMA, EACH], ids=["all", "component", "each"])
def test_the_potential_is_that_of_the_values_that_are_there(sigma):
    def potential(r, y):
        return potential_energy(model, (EXACT, T, y, sigma), {}, {"r": r})

    value, slope = jax.jit(jax.value_and_grad(potential))(0.9, Y)
    np.testing.assert_allclose(value, by_hand(0.9, sigma), rtol=1e-12)
    slopes = (by_hand(0.9 + 1e-5, sigma) - by_hand(0.9 - 1e-5, sigma)) / 2e-5
    np.testing.assert_allclose(slope, slopes, rtol=1e-7)
    np.testing.assert_allclose(potential(0.9, Y), value)


@pytest.mark.parametrize(
    ("distribution", "y"),
    [
        (lambda a: dist.LogNormal(a, 0.3), [0.5, np.nan, 0.25]),
        (lambda a: dist.Gamma(jnp.exp(a), 2.0), [0.5, np.nan, 0.25]),
        (lambda a: dist.Poisson(jnp.exp(a)), [3.0, np.nan, 0.0]),
        (lambda a: dist.StudentT(2.0, a, 0.1), [-0.5, np.nan, 0.25]),
        (lambda a: dist.Beta(jnp.exp(a), 2.0), [0.5, np.nan, 0.25]),
    ],
    ids=["LogNormal", "Gamma", "Poisson", "StudentT", "Beta"],
)
def test_gradients_are_finite_for_other_likelihoods(distribution, y):
    y = np.array(y)

    def loss(a, y):
        with handlers.trace() as sites:
            bilo.observed("y", distribution(a * jnp.ones(3)), y)
        return jnp.sum(sites["y"]["fn"].log_prob(sites["y"]["value"]))

    value, slope = jax.value_and_grad(loss)(0.7, y)
    wanted = distribution(0.7 * jnp.ones(2)).log_prob(y[[0, 2]])
    np.testing.assert_allclose(value, np.sum(wanted), rtol=1e-12)
    assert np.isfinite(slope)


@pytest.mark.parametrize(
    ("distributions", "kind"),
    [
        ([dist.StudentT(2.0, jnp.zeros((3, 2)), 0.1).to_event(1)], "values"),
        ([dist.Bernoulli(logits=jnp.zeros((3, 2))).mask(True)], "binary"),
        ([dist.NegativeBinomial2(jnp.ones(3), 2.0)], "counts"),
        ([dist.Categorical(logits=jnp.zeros((3, 4)))], "categories"),
        ([dist.Poisson(jnp.ones(3)), dist.Bernoulli(jnp.full(3, 0.5))], "discrete"),
        ([dist.Poisson(jnp.ones(3)), dist.Normal(jnp.ones(3), 0.1)], "values"),
        ([dist.Gamma(jnp.ones((3, 2)), 2.0).to_event(1)], "positive"),
        ([dist.LogNormal(jnp.zeros(3), 0.1).mask(True)], "positive"),
        ([dist.Beta(jnp.ones(3), 2.0)], "fractions"),
        ([dist.Gamma(jnp.ones(3), 2.0), dist.Poisson(jnp.ones(3))], "mixed"),
        ([dist.Gamma(jnp.ones(3), 2.0), dist.Normal(jnp.ones(3), 0.1)], "values"),
        ([], "points"),
    ],
)
def test_data_are_named_by_their_distribution(distributions, kind):
    def sites():
        for i, each in enumerate(distributions):
            numpyro.sample(f"y{i}", each, obs=jnp.ones(each.shape()))
        numpyro.factor("process", 0.5)

    assert data_kind(look_at(sites)) == kind


def test_without_data_it_is_drawn_and_vectors_are_refused():
    drawn = handlers.seed(model, 0)
    site = handlers.trace(drawn).get_trace(EXACT, T)["y"]
    assert site["value"].shape == (3, 2)
    assert not site["is_observed"]
    with pytest.raises(ValueError, match=r"'y'.*arrays of shape \(2,\).*without to_event"):
        bilo.observed("y", dist.Normal(np.zeros((3, 2)), 1.0).to_event(1), Y)


def test_the_fit_counts_the_values_that_are_there():
    r = np.array([[0.8, 0.9, 1.1]])
    found = goodness_of_fit(model, {"r": r}, EXACT, T, Y, EACH)["y"]
    u = np.exp(-r[0][:, None, None] * T * [1.0, 2.0])
    sums = np.nansum(((Y - u) / EACH) ** 2, axis=(1, 2))
    assert (found.data, found.draws) == (4, 3)
    assert found.chi_square == pytest.approx(sums.mean() / 4)
    assert found.p_value == pytest.approx(chi2.sf(sums, 4).mean())


def test_a_site_without_any_value_has_no_fit():
    assert goodness_of_fit(model, {"r": np.ones((1, 3))}, EXACT, T, np.full((3, 2), np.nan)) == {}


def test_rows_are_zero_where_values_are_missing():
    site = look_at(model, (EXACT, T, Y, EACH)).observed["y"]
    np.testing.assert_allclose(find_rows(site), np.nan_to_num(Y / EACH).ravel())


def test_estimates_by_least_squares_leave_missing_values_out():
    key = jax.random.key(0)
    found = bilo.find_map(
        model, key, EXACT, T, Y, SIGMA, optimizer=gauss_newton(), init={"r": 0.5}, progress=False
    )
    grid = np.linspace(0.5, 1.5, 10001)
    assert found.converged
    np.testing.assert_allclose(
        found.values["r"], grid[np.argmin([by_hand(r, SIGMA) for r in grid])], atol=2e-4
    )


def test_results_hold_missing_data_as_such():
    draws = np.ones((1, 5))
    idata = bilo.to_arviz(
        bilo.Draws(model, (EXACT, T, Y, SIGMA), {}, {"r": draws}, {}), log_likelihood=True
    )
    np.testing.assert_array_equal(idata["observed_data"]["y"].values, Y)
    assert np.isfinite(idata["log_likelihood"]["y"].values).all()


def test_missing_data_that_count_are_refused_and_others_are_not():
    def plain(operator, x, y, mask):
        u = bilo.solution("u", operator, {"r": numpyro.sample("r", dist.Normal(0.0, 1.0))})
        with handlers.mask(mask=mask):
            numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.1), obs=y)

    bilo.check_model(model, EXACT, T, Y, SIGMA)
    bilo.check_model(plain, EXACT, T, Y, ~np.isnan(Y))
    message = "2 of the 6 data of 'y' are missing.*bilo_ppl.observed"
    with pytest.raises(ValueError, match=message):
        bilo.check_model(plain, EXACT, T, Y, True)
    with pytest.raises(ValueError, match=r"NaN or infinite; missing ones.* bilo_ppl\.observed"):
        bilo.find_map(plain, jax.random.key(0), EXACT, T, Y, True, progress=False)
    with pytest.raises(ValueError, match=r"likelihood of 'y' has shape \(3, 2\)"):
        bilo.check_model(model, EXACT, T, Y[:1], 0.1)
    jax.eval_shape(lambda y: check_missing(look_at(plain, (EXACT, T, y, True))), Y)


@pytest.mark.parametrize(
    ("fn", "mask"),
    [
        (dist.Normal(np.zeros((3, 2)), 1.0), np.ones(())),
        (dist.Normal(np.zeros(2), 1.0).mask(np.array([True, False])).expand([3, 2]), [1, 0]),
        (dist.Normal(np.zeros((3, 2)), 1.0).to_event(1).mask(np.arange(3) > 0), [[0], [1], [1]]),
        (dist.Normal(np.zeros((3, 2)), 1.0).mask(~np.isnan(Y)).to_event(1), ~np.isnan(Y)),
        (dist.Normal(np.zeros((3, 2)), 1.0).mask(False), 0),
    ],
)
def test_masks_are_found_below_what_wraps_them(fn, mask):
    expected = np.broadcast_to(np.asarray(mask, bool), (3, 2))
    np.testing.assert_array_equal(np.broadcast_to(data_mask(fn), (3, 2)), expected)

"""Regions, chains that agree or do not, and thetas of solution sites, with solutions written down."""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.adaptation import region as region_module
from bilo_ppl.adaptation.exploration import CHAINS, Explorer, Visited
from bilo_ppl.adaptation.given import prior_thetas
from bilo_ppl.adaptation.model_sites import ModelSites, find_sites
from bilo_ppl.adaptation.other_modes import _solved, other_mode
from bilo_ppl.adaptation.region import Region, find_region
from models import poisson

OPERATOR = bilo.ClosedForm(poisson.problem, lambda x, theta: theta["D"] * jnp.sin(jnp.pi * x[0]))
"""u is linear in D, so that the posterior under a normal prior is normal."""

MIDDLE = jnp.array([0.5])


def linear(operator, y=2.0):
    D = numpyro.sample("D", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(u(MIDDLE), 0.5), obs=y)


MEAN, SD = 2.0 * 4 / 5, np.sqrt(1 / 5)


def sites_of(model, *args, names=("u",), latent=("D",)):
    _, unravel = ravel_pytree({name: jnp.zeros(()) for name in latent})
    return ModelSites(model, args, {}, (names,), unravel, list(latent), False)


def doubled(prior, y=1.0):
    D = numpyro.sample("D", prior)
    u = bilo.solution("u", OPERATOR, {"D": 2 * D})
    numpyro.sample("y", dist.Normal(u(MIDDLE), 0.1), obs=y)


def test_thetas_are_those_asked_at_the_positions_site_by_site():
    def two(prior):
        D = numpyro.sample("D", prior)
        for name, factor in (("u", 2.0), ("v", 3.0)):
            u = bilo.solution(name, OPERATOR, {"D": factor * D})
            numpyro.sample(f"y_{name}", dist.Normal(u(MIDDLE), 0.1), obs=1.0)

    sites = sites_of(two, dist.LogNormal(0.0, 1.0), names=("u", "v"))
    thetas = sites.thetas(np.array([[0.0], [1.0]]), 0)
    np.testing.assert_allclose(thetas["D"], [2.0, 3.0, 2 * np.e, 3 * np.e])


def test_prior_thetas_have_the_law_of_the_prior():
    sites = sites_of(doubled, dist.Normal(1.0, 0.5))
    thetas = prior_thetas(sites, 0, jax.random.key(0), 4000)
    assert thetas["D"].shape == (4000,)
    assert np.mean(thetas["D"]) == pytest.approx(2.0, abs=0.06)
    assert np.std(thetas["D"]) == pytest.approx(1.0, rel=0.05)


def test_nothing_stands_in_for_an_improper_prior():
    improper = dist.ImproperUniform(constraints.positive, (), ())
    with pytest.raises(ValueError, match="drawn from the prior of 'D', an improper"):
        prior_thetas(sites_of(doubled, improper), 0, jax.random.key(0), 3)


def test_an_operator_that_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="is a ClosedForm, which has no weights to adapt"):
        find_sites(linear, jax.random.key(0), (OPERATOR,), {}, None)


def test_the_region_of_a_normal_posterior_is_that_posterior():
    sites = sites_of(linear, OPERATOR)
    region, operators = find_region(sites, [OPERATOR], jax.random.key(0), progress=False)
    np.testing.assert_allclose(region.mean, [MEAN], atol=1e-2 * SD)
    np.testing.assert_allclose(region.covariance, [[SD**2]], rtol=1e-2)
    assert operators == [OPERATOR]
    draws = region.draw(0, 4000, 3.0)
    assert draws.std() == pytest.approx(3 * SD, rel=0.1)
    assert np.abs(draws - MEAN).max() <= 6 * SD + 0.05
    noted = re.search(r"D = (\S+), U = ", region.note)
    assert noted is not None
    assert float(noted.group(1)) == pytest.approx(MEAN, abs=1e-2 * SD)


def test_where_differences_fail_the_region_is_by_first_derivatives(monkeypatch):
    def fails(*args, **kwargs):
        raise ValueError("laplace: U is not convex.")

    monkeypatch.setattr(region_module, "laplace", fails)
    sites = sites_of(linear, OPERATOR)
    region, _ = find_region(sites, [OPERATOR], jax.random.key(0), progress=False)
    np.testing.assert_allclose(region.mean, [MEAN], atol=1e-2 * SD)
    np.testing.assert_allclose(region.covariance, [[SD**2]], rtol=1e-2)
    assert region.note.endswith("by first derivatives: U is not convex.")


def test_the_point_estimate_is_the_mode_in_the_space_of_the_chains():
    """A log-normal density has its mode at exp(-1), and the density of the logarithm at 0."""

    def positive(operator):
        D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        u = bilo.solution("u", operator, {"D": D})
        numpyro.factor("nothing", 0.0 * u(MIDDLE))

    sites = sites_of(positive, OPERATOR)
    region, _ = find_region(sites, [OPERATOR], jax.random.key(0), progress=False)
    found = re.search(r"D = (\S+), U = (\S+) ", region.note)
    assert found is not None
    assert float(found[1]) == pytest.approx(1.0, rel=1e-2)
    assert float(found[2]) == pytest.approx(region.energy, abs=1e-2)


def explored(model, candidates, draws=400, ceiling=1e3, variances=(SD**2,)):
    explorer = Explorer(sites_of(model, OPERATOR), [OPERATOR], draws)
    return explorer([OPERATOR], candidates, ceiling, np.diag(variances), jax.random.key(1))


def test_chains_have_the_law_of_the_posterior_and_agree():
    candidates = MEAN + SD * np.linspace(-2, 2, 32)[:, None]
    visited = explored(linear, candidates)
    assert visited.positions.shape == (CHAINS, 200, 1)
    assert visited.agree
    assert visited.unsolved == 0
    all_ = visited.of(slice(None))
    assert all_.mean() == pytest.approx(MEAN, abs=0.15 * SD)
    assert all_.std() == pytest.approx(SD, rel=0.15)
    energy = 0.5 * (visited.positions[..., 0] - MEAN) ** 2 / SD**2
    difference = visited.energies - energy
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-9)


class Raised(eqx.Module):
    """u of the operator above, but for u(0) = height."""

    height: Any

    def __call__(self, x, theta):
        return theta["D"] * jnp.sin(jnp.pi * x[0]) + self.height * jnp.cos(jnp.pi * x[0])


def test_later_chains_have_the_energies_of_the_operators_of_their_own_call():
    """Those of the second are higher by 30: from an energy of the first, no chain would move."""

    def higher(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 1.0))
        u = bilo.solution("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(u(MIDDLE), 0.5), obs=2.0)
        numpyro.factor("height", -u(jnp.array([0.0])))

    low, high = (bilo.ClosedForm(poisson.problem, Raised(jnp.array(h))) for h in (0.0, 30.0))
    explorer = Explorer(sites_of(higher, low), [low], 40)
    candidates = MEAN + SD * np.linspace(-2, 2, 32)[:, None]
    for operator in (low, high):
        visited = explorer([operator], candidates, 1e3, np.diag([SD**2]), jax.random.key(1))
        some = visited.positions[:, -1, 0]
        energies = [_energy(higher, D, operator) for D in some]
        np.testing.assert_allclose(visited.energies[:, -1], energies, rtol=1e-9)
        assert abs(visited.of(slice(None)).mean() - MEAN) < SD


def test_chains_in_two_modes_do_not_agree():
    def two_modes(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 2.0))
        u = bilo.solution("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(u(MIDDLE) ** 2, 0.05), obs=1.0)

    visited = explored(two_modes, np.tile([[1.0], [-1.0]], (16, 1)), 80, variances=(1e-3,))
    assert not visited.agree
    assert visited.r_hat.max() > 2


def test_a_narrow_ridge_is_explored_along_it():
    """D + E is known a hundred times better than D - E: no step suits both entries alone."""

    def ridge(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 10.0))
        E = numpyro.sample("E", dist.Normal(0.0, 10.0))
        u = bilo.solution("u", operator, {"D": D})(MIDDLE)
        numpyro.sample("sum", dist.Normal(u + E, 0.01), obs=0.0)
        numpyro.sample("difference", dist.Normal(u - E, 1.0), obs=0.0)

    covariance = 0.25 * np.array([[1, -1], [-1, 1]]) + 0.25e-4
    factor = np.linalg.cholesky(covariance)
    candidates = 1.5 * np.random.default_rng(0).normal(size=(32, 2)) @ factor.T
    explorer = Explorer(sites_of(ridge, OPERATOR, latent=("D", "E")), [OPERATOR], 120)
    along = explorer([OPERATOR], candidates, 1e3, covariance, jax.random.key(1))
    assert along.agree
    np.testing.assert_allclose(np.cov(along.of(slice(None)).T), covariance, atol=0.06)
    alone = explorer([OPERATOR], candidates, 1e3, np.diag(np.diag(covariance)), jax.random.key(1))
    assert not alone.agree


@pytest.mark.parametrize(("depth", "counts"), [(0.0, True), (30.0, False)])
def test_another_mode_is_found_if_it_counts(depth, counts):
    """Modes at D = 1 and -1; the second lies ``depth`` nats higher."""

    def model(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 2.0))
        u = bilo.solution("u", operator, {"D": D})(MIDDLE)
        numpyro.sample("y", dist.Normal(u**2, 0.05), obs=1.0)
        numpyro.factor("tilt", 0.5 * depth * u)

    sites = sites_of(model, OPERATOR)
    for mean, expected in ((1.0, counts), (-1.0, True)):
        region = Region(np.array([mean]), np.array([[1e-3]]), _energy(model, mean), "")
        for seed in range(3):
            found = other_mode(sites, [OPERATOR], region, jax.random.key(seed), progress=False)
            assert (found is not None) == expected
            if found is not None:
                assert found.position == pytest.approx(-mean, abs=0.05)
                assert "more than one mode" in str(found)


EVEN = bilo.ClosedForm(
    poisson.problem, lambda x, theta: jnp.abs(theta["D"]) * jnp.sin(jnp.pi * x[0])
)


class _Misled(bilo.ClosedForm):
    """Descents take another solution than it is, as one that is wrong between the points."""

    def searching(self):
        return EVEN


def test_a_mode_of_wrong_solutions_is_none(capsys):
    def model(operator):
        D = numpyro.sample("D", dist.Normal(0.0, 2.0))
        u = bilo.solution("u", operator, {"D": D})(MIDDLE)
        numpyro.sample("y", dist.Normal(u, 0.05), obs=1.0)

    region = Region(np.array([1.0]), np.array([[1e-3]]), _energy(model, 1.0), "")
    for operator, found in ((EVEN, True), (_Misled(OPERATOR.problem, OPERATOR.formula), False)):
        sites = sites_of(model, operator)
        mode = other_mode(sites, [operator], region, jax.random.key(0), progress=True)
        assert (mode is not None) == found
        # All descents are told in one line.
        (line,) = capsys.readouterr().err.splitlines()
        number = "[1-3]" if found else "none"
        assert re.fullmatch(
            rf"other modes: [1-3] descents?, {number} to another mode \(.* s\)", line
        )


class _Tolerant(bilo.ClosedForm):
    """With a tolerance, as an operator has that is not exact."""

    tolerance: float

    def __init__(self, problem, formula, tolerance):
        super().__init__(problem, formula)
        self.tolerance = tolerance

    @property
    def loss_tolerance(self):
        return self.tolerance


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_whether_a_loss_says_something_does_not_depend_on_its_units(unit):
    solved = _solved(
        [_Tolerant(OPERATOR.problem, OPERATOR.formula, unit), OPERATOR],
        unit * np.array([1.0, 500.0, 5000.0, np.nan]),
    )
    np.testing.assert_array_equal(solved, [True, True, False, False])


def _energy(model, D, operator=OPERATOR):
    return float(potential_energy(model, (operator,), {}, {"D": jnp.array(D)}))


def test_starts_above_the_ceiling_are_left_out():
    near = MEAN + SD * np.linspace(-1, 1, 16)[:, None]
    far = np.full((16, 1), 40.0)
    with_far = explored(linear, np.concatenate([far, near]), 20, ceiling=20.0)
    assert np.abs(with_far.positions).max() < 10


def test_a_model_that_is_nowhere_solved_is_an_error():
    nowhere = bilo.ClosedForm(
        poisson.problem, lambda x, theta: theta["D"] * x[0], valid=lambda theta: theta["D"] > 1e9
    )
    explorer = Explorer(sites_of(linear, nowhere), [nowhere], 20)
    with pytest.raises(ValueError, match="could be solved to a solution at none of 32 positions"):
        explorer([nowhere], np.zeros((32, 1)), 1e3, np.eye(1), jax.random.key(0))


def test_what_is_not_solved_is_counted_and_never_visited():
    half = bilo.ClosedForm(
        poisson.problem,
        lambda x, theta: theta["D"] * jnp.sin(jnp.pi * x[0]),
        valid=lambda theta: theta["D"] < MEAN,
    )
    explorer = Explorer(sites_of(linear, half), [half], 40)
    candidates = MEAN - SD * np.linspace(0.1, 2, 32)[:, None]
    visited = explorer([half], candidates, 1e3, np.diag([SD**2]), jax.random.key(1))
    assert visited.positions.max() < MEAN
    assert 0.1 < visited.unsolved < 0.9


def test_chains_that_never_move_have_no_r_hat():
    still = Visited(np.zeros((CHAINS, 10, 1)), np.zeros((CHAINS, 10)), 0.0)
    assert not still.agree

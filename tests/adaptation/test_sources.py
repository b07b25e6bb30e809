"""Thetas to fit and thetas to check, of chains that are where they are told to be."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from bilo_ppl.adaptation import sources
from bilo_ppl.adaptation.exploration import CHAINS, Visited
from bilo_ppl.adaptation.model_sites import ModelSites
from bilo_ppl.adaptation.region import Region
from bilo_ppl.adaptation.sources import FromPosterior
from models import poisson

OPERATOR = bilo.ClosedForm(poisson.problem, lambda x, theta: theta["D"] * jnp.sin(jnp.pi * x[0]))
REGION = Region(np.array([3.0]), np.array([[0.25]]), 0.0, "")
HALF = CHAINS // 2


def model(operator):
    D = numpyro.sample("D", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(u(jnp.array([0.5])), 0.5), obs=2.0)


def source(spread=1.0, chains=()):
    """A source whose explorer has been where ``chains`` are, one call after the other."""
    _, unravel = ravel_pytree({"D": jnp.zeros(())})
    sites = ModelSites(model, (OPERATOR,), {}, (("u",),), unravel, ["D"], False)
    made = FromPosterior(sites, 20, spread, jax.random.key(0), False)
    made.region, visits = REGION, iter(chains)
    made.explorer = lambda *_: next(visits)  # pyright: ignore[reportAttributeAccessIssue]
    return made


def visited(length=10, unsolved=0.0, shift=0.0):
    """Chain c has been between c and c + 1 / 2."""
    places = shift + np.arange(CHAINS)[:, None] + np.linspace(0.0, 0.5, length)
    return Visited(places[..., None], 100 * places, unsolved)


def to_fit(made):
    (thetas,) = made.to_fit([OPERATOR], None)
    return np.sort(np.asarray(thetas["D"]))


def to_check(made):
    (thetas,) = made.to_check([OPERATOR])
    return np.sort(np.asarray(thetas["D"]))


def test_the_first_thetas_to_fit_are_of_the_widened_region():
    narrow, wide = to_fit(source(spread=1.0)), to_fit(source(spread=2.5))
    assert narrow.std() == pytest.approx(0.5, rel=0.3)
    np.testing.assert_allclose(wide - 3.0, 2.5 * (narrow - 3.0), rtol=1e-5)


def test_thetas_to_check_are_of_other_chains_than_those_to_fit():
    made = source(chains=[visited()])
    checked = to_check(made)
    np.testing.assert_allclose(checked, visited().positions[HALF:].ravel(), rtol=1e-6)
    fitted = to_fit(made)
    np.testing.assert_allclose(fitted, visited().positions[:HALF].ravel(), rtol=1e-6)


def test_thetas_to_fit_of_chains_are_widened_about_their_mean():
    made = source(spread=2.0, chains=[visited()])
    to_check(made)
    places = visited().positions[:HALF].ravel()
    np.testing.assert_allclose(to_fit(made), 2 * places - places.mean(), rtol=1e-5)


def test_chains_go_on_until_there_is_a_fit_and_begin_anew_after_it():
    made = source(chains=[visited(10, 0.3), visited(20, 0.0, 0.25), visited(10), visited(10)])
    assert len(to_check(made)) == 10 * HALF
    joined = to_check(made)
    wanted = [v.positions[HALF:].ravel() for v in (visited(10), visited(20, 0.0, 0.25))]
    np.testing.assert_allclose(joined, np.sort(np.concatenate(wanted)), rtol=1e-6)
    assert made.visited is not None
    assert made.visited.energies.shape == (CHAINS, 30)
    np.testing.assert_allclose(made.visited.energies, 100 * made.visited.positions[..., 0])
    assert made.visited.unsolved == pytest.approx(0.1)
    assert made.positions.shape == (CHAINS * 30, 1)
    # A fit makes another operator, whose posterior the earlier draws need not have.
    to_fit(made)
    assert len(to_check(made)) == 10 * HALF
    assert made.positions.shape == (CHAINS * 10, 1)


def two_modes(operator, tilt):
    """Modes at D = 2 and -2; the second lies ``4 tilt`` nats higher."""
    D = numpyro.sample("D", dist.Normal(0.0, 2.0))
    u = bilo.solution("u", operator, {"D": D})(jnp.array([0.5]))
    numpyro.sample("y", dist.Normal(u**2, 0.2), obs=4.0)
    numpyro.factor("tilt", tilt * u)


@pytest.mark.parametrize(("tilt", "other"), [(-5.0, None), (0.0, -2.0)])
def test_a_better_mode_is_moved_to_and_one_as_good_is_told(monkeypatch, tilt, other):
    """The first descent starts at prior medians, and ends at D = 2 here."""
    first = Region(np.array([2.0]), np.array([[2e-3]]), 4.5 - 2 * tilt, "")
    starts = []

    def found(sites, operators, *, key, progress, init=None):
        starts.append(init)
        there = None if init is None else np.array([float(init["D"])])
        region = first if there is None else Region(there, first.covariance, 0.0, "")
        return region, list(operators)

    monkeypatch.setattr(sources, "find_region", found)
    _, unravel = ravel_pytree({"D": jnp.zeros(())})
    sites = ModelSites(two_modes, (OPERATOR, tilt), {}, (("u",),), unravel, ["D"], False)
    made = FromPosterior(sites, 20, 1.0, jax.random.key(0), False)
    made.begin([OPERATOR])
    if other is None:
        assert made.region.mean == pytest.approx(-2.0, abs=0.1), "the lower mode"
        assert made.elsewhere is None
    else:
        assert starts == [None]
        assert made.region is first
        assert made.elsewhere.position == pytest.approx(other, abs=0.1)
        # Chains that have been there have not missed it.
        both = np.tile([[2.0], [-2.0]], (CHAINS // 2, 10))[..., None]
        made.visited = Visited(both, 0 * both[..., 0], 0.0)
        assert made.elsewhere is None

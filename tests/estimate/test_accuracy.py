"""Does a tighter solve move an estimate? Against the shift that the exact solution makes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.estimate import accuracy, check_estimate, find_map, laplace
from bilo_ppl.estimate.objective import Objective
from models import poisson

DATA = poisson.synthetic_data(1)
ARGS = (DATA["x"], DATA["y"], DATA["sigma"])
KEY = jax.random.key(0)


def estimated(operator, tolerance, scale=1.0):
    local = operator.with_weights(jax.tree.map(lambda w: scale * w, operator.weights))
    fine = bilo.FineTuned(
        local,
        bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=20),
        bilo.ImplicitDifferentiation(),
    )
    return find_map(poisson.model, KEY, fine, *ARGS, init={"D": 1.0}, progress=False)


def exact():
    operator = bilo.ClosedForm(
        poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"]
    )
    return find_map(poisson.model, KEY, operator, *ARGS, init={"D": 1.0}, progress=False)


def test_a_tight_estimate_is_good_and_its_energy_that_of_the_tighter_solve(small_operator):
    found = check_estimate(estimated(small_operator, 1e-8))
    assert found.good
    assert abs(found.energy_change) < 1e-2
    assert found.largest_shift < 0.05
    assert str(found).startswith("GOOD")


def test_a_loose_estimate_is_an_alarm_that_says_how_far_it_is_off(small_operator):
    """With so loose a tolerance the network stays as it is, four percent too large."""
    loose = estimated(small_operator, 1e2, scale=1.01)
    best = exact()
    sd = np.sqrt(laplace(best).covariance[0, 0])
    wanted = float(best.z["D"] - loose.z["D"]) / sd
    assert abs(wanted) > 0.2
    found = check_estimate(loose, factor=1e10)
    assert not found.good
    assert found.shifts is not None
    assert found.shifts["D"] == pytest.approx(wanted, rel=0.3)
    assert "ALARM" in str(found)


def test_the_gauss_newton_hessian_serves_where_all_data_are_gaussian(small_operator, monkeypatch):
    loose = estimated(small_operator, 1e2, scale=1.01)
    found = check_estimate(loose, factor=1e10)
    assert found.shifts is not None
    assert "posterior sd (D) by the Gauss-Newton Hessian." in str(found)
    monkeypatch.setattr(Objective, "is_gaussian", lambda *args: False)
    by_differences = check_estimate(loose, factor=1e10)
    assert by_differences.shifts is not None
    assert "Gauss-Newton" not in str(by_differences)
    assert found.shifts["D"] == pytest.approx(by_differences.shifts["D"], rel=0.2)


def test_counts_have_no_rows_and_need_differences(small_operator, monkeypatch):
    operator = estimated(small_operator, 1e2).objective.operators["u"]
    counts = find_map(counted, KEY, operator, init={"D": 1.0}, progress=False)
    assert not counts.objective.is_gaussian(counts.z, counts.operator_states)

    def fails(*args, **kwargs):
        raise ValueError("laplace: the Hessian of U is noise.")

    monkeypatch.setattr(accuracy, "laplace", fails)
    found = check_estimate(counts)
    assert found.shifts is None
    assert found.note == "the Hessian of U is noise"


def counted(operator):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("n", dist.Poisson(10 * u(jnp.array([0.5]))), obs=jnp.array(9))


def test_without_a_covariance_there_is_a_bound(small_operator):
    good = check_estimate(estimated(small_operator, 1e-8), max_dimension=0)
    assert good.shifts is None
    assert good.good
    loose = estimated(small_operator, 1e2, scale=1.01)
    shift = check_estimate(loose, factor=1e10)
    bounded = check_estimate(loose, factor=1e10, max_dimension=0)
    # The change of all predictions; only a part of it lies along that by the only unknown.
    assert shift.largest_shift <= bounded.largest_shift <= 3 * shift.largest_shift
    assert not bounded.good
    assert not bounded.alarming
    assert "to first order" in str(bounded)


def test_without_gaussian_data_only_the_energy_is_known(small_operator, monkeypatch):
    monkeypatch.setattr(Objective, "is_gaussian", lambda *args: False)
    found = check_estimate(estimated(small_operator, 1e-8), max_dimension=0)
    assert found.bound is None
    assert not found.good
    assert "UNDECIDED" in str(found)
    assert "max_dimension" in str(found)


def test_an_operator_that_cannot_be_tightened_is_named():
    with pytest.raises(ValueError, match=r"check_estimate: .*ClosedForm cannot"):
        check_estimate(exact())

"""A look at a model: what it finds, where values come from, and that nothing is solved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer import init_to_median
from numpyro.infer.reparam import LocScaleReparam

import bilo_ppl as bilo
from bilo_ppl.fields import NetworkField
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import look_at, site_at
from models import poisson

X = jnp.linspace(0.1, 0.9, 3)[:, None]
Y = np.array([0.3, 0.5, 0.4])


class Forbidden(AbstractSolutionOperator):
    """An operator that must not be called."""

    problem: Any = poisson.problem

    def init_state(self):
        return ()

    def solve(self, theta, state):
        raise AssertionError("solved")


U, V = Forbidden(), Forbidden()
GAMMA = dist.Gamma(2.0, 1.0)


def rich(y):
    """Plates, two solutions, data, a factor, a deterministic site: all that NumPyro has."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("sources", 2):
        D = numpyro.sample("D", dist.LogNormal(mean, 0.5), infer={"mark": 1})
    numpyro.deterministic("total", D.sum())
    u = bilo.solution("u", U, {"D": D[0]})
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    v = bilo.solution("v", V, {"D": D[1]})
    numpyro.factor("smooth", -jnp.sum(D**2))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Normal(jax.vmap(u)(X) + jax.vmap(v)(X), sigma), obs=y)


def one(D_prior=GAMMA, name="u"):
    """One latent scalar, one solution."""
    D = numpyro.sample("D", D_prior)
    bilo.solution(name, U, {"D": D})


def test_every_site_is_found_in_order_and_nothing_is_solved():
    look = look_at(rich, (Y,))
    assert list(look.latent) == ["mean", "D", "sigma"]
    assert list(look.observed) == ["smooth", "y"]
    assert list(look.solutions) == ["u", "v"]
    assert look.operators == {"u": U, "v": V}
    assert look.thetas == {"u": {"D": look.values["D"][0]}, "v": {"D": look.values["D"][1]}}
    assert look.solutions["u"].operator is U
    assert look.solutions["v"].theta is look.thetas["v"]


def test_sites_are_numpyros_messages():
    look = look_at(rich, (Y,))
    assert look.latent["D"]["fn"].shape() == look.values["D"].shape == (2,)
    assert look.latent["D"]["infer"] == {"mark": 1}
    np.testing.assert_array_equal(look.observed["y"]["value"], Y)
    np.testing.assert_array_equal(look.observed["y"]["fn"].loc, 0.0)


def test_keyword_arguments_reach_the_model():
    np.testing.assert_array_equal(look_at(rich, kwargs={"y": Y}).observed["y"]["value"], Y)
    assert list(look_at(rich, kwargs={"y": None}).latent) == ["mean", "D", "sigma", "y"]


@pytest.mark.parametrize("number", [jnp.asarray, float, np.float64])
def test_given_values_reach_theta(number):
    values = {"mean": number(0.5), "D": jnp.array([1.5, 2.5]), "total": 9.0, "y": 1 + Y, "none": 0}
    look = look_at(rich, (Y,), values=values)
    assert look.thetas == {"u": {"D": 1.5}, "v": {"D": 2.5}}
    assert look.values["mean"] == 0.5
    assert look.latent["D"]["fn"].base_dist.loc == 0.5
    assert look.missing == ("sigma",)
    np.testing.assert_array_equal(look.observed["y"]["value"], Y)


def test_other_values_are_drawn_from_the_prior_with_the_key():
    first, again, other = (look_at(one, key=jax.random.key(k)).values["D"] for k in (1, 1, 2))
    assert first == again != other
    expected = handlers.trace(handlers.seed(one, jax.random.key(1)))
    with pytest.raises(AssertionError, match="solved"):
        expected()
    assert first == expected.trace["D"]["value"]
    assert look_at(one).values == look_at(one, key=jax.random.key(0)).values
    assert look_at(one).missing == ("D",)


def test_a_strategy_is_asked_for_what_is_not_given():
    asked = []

    def strategy(site):
        asked.append(site["name"])
        assert site["kwargs"]["rng_key"] is not None
        return {"D": jnp.array([3.0, 4.0])}.get(site["name"])

    look = look_at(rich, (Y,), values={"mean": 2.0}, first=strategy)
    assert asked == ["D", "sigma"]
    assert look.thetas == {"u": {"D": 3.0}, "v": {"D": 4.0}}
    assert look.values["mean"] == 2.0
    assert look.missing == ("D", "sigma")
    assert look.values["sigma"] == look_at(rich, (Y,)).values["sigma"]


def test_a_strategy_of_numpyro_works():
    wide = {"D_prior": dist.LogNormal(3.0, 1e-6)}
    look = look_at(one, kwargs=wide, first=init_to_median)
    np.testing.assert_allclose(look.thetas["u"]["D"], np.exp(3.0), rtol=1e-4)


def test_a_value_that_a_handler_in_the_model_set_stays_unless_given():
    fixed = handlers.substitute(one, data={"D": 7.0})
    assert look_at(fixed, first=lambda site: 1.0).thetas == {"u": {"D": 7.0}}
    assert look_at(fixed, values={"D": 5.0}).thetas == {"u": {"D": 5.0}}


def test_improper_priors_have_a_value_inside_their_support():
    def improper():
        positive = dist.ImproperUniform(constraints.positive, (), (2,))
        k = numpyro.sample("k", positive)
        with numpyro.plate("three", 3), handlers.mask(mask=False):
            masked = numpyro.sample(
                "masked", dist.ImproperUniform(constraints.unit_interval, (), ())
            )
        bilo.solution("u", U, {"D": k.sum() + masked.sum()})

    look = look_at(improper, key=jax.random.key(3))
    assert look.values["k"].shape == (2,)
    assert look.values["masked"].shape == (3,)
    assert np.all(look.values["k"] > 0)
    assert look.latent["masked"]["fn"].support(look.values["masked"]).all()
    assert look.values["k"][0] != look.values["k"][1]


def test_an_unknown_function_starts_at_its_first_guess():
    field = NetworkField(poisson.problem.domain, width=3, key=jax.random.key(0))

    def model():
        f = bilo.unknown_function("f", field)
        bilo.solution("u", U, {"D": f(jnp.array([0.5]))})

    look = look_at(model)
    np.testing.assert_array_equal(look.values["f"], bilo.field_weights(field))
    np.testing.assert_allclose(look.thetas["u"]["D"], field(jnp.array([0.5])), rtol=1e-6)
    moved = look_at(model, values={"f": 2.0 + bilo.field_weights(field)})
    assert moved.thetas["u"]["D"] != look.thetas["u"]["D"]


def test_masks_scales_and_subsamples_are_seen():
    def model(y):
        u = bilo.solution("u", U, {"D": numpyro.sample("D", GAMMA)})
        with numpyro.plate("data", 3, subsample_size=2) as kept, handlers.scale(scale=5.0):
            numpyro.sample("y", dist.Normal(jax.vmap(u)(X[kept]), 1.0), obs=y[kept])
        mask = np.array([True, False, True])
        numpyro.sample("partly", dist.Normal(jax.vmap(u)(X), 1.0), obs=y, obs_mask=mask)

    look = look_at(model, (jnp.asarray(Y),))
    assert list(look.latent) == ["D", "partly_unobserved"]
    assert list(look.observed) == ["y", "partly_observed"]
    assert look.observed["y"]["scale"] == 7.5
    assert look.observed["y"]["value"].shape == (2,)
    masked = look.observed["partly_observed"]["fn"]
    np.testing.assert_array_equal(masked.log_prob(Y) == 0, [False, True, False])


def test_sites_of_a_scan_are_found_and_take_given_values():
    def model(y):
        u = bilo.solution("u", U, {"D": numpyro.sample("D", GAMMA)})

        def step(level, y):
            level = numpyro.sample("level", dist.Normal(level, 1.0))
            numpyro.sample("y", dist.Normal(level, 1.0), obs=y)
            return level, None

        scan(step, u(X[0]), y)

    look = look_at(model, (jnp.asarray(Y),))
    assert list(look.latent) == ["D", "level"]
    np.testing.assert_array_equal(look.observed["y"]["value"], Y)
    assert len(np.unique(look.values["level"])) == 3
    given = look_at(model, (jnp.asarray(Y),), values={"level": jnp.arange(3.0)})
    np.testing.assert_array_equal(given.values["level"], [0, 1, 2])
    assert given.missing == ("D",)


def test_a_reparametrised_model_shows_its_new_sites():
    config = {"D": LocScaleReparam(0.0)}
    model = handlers.reparam(lambda: one(dist.Normal(10.0, 2.0)), config=config)
    look = look_at(model, values={"D_decentered": 0.5, "D": 1.0})
    assert list(look.latent) == ["D_decentered"]
    assert look.thetas == {"u": {"D": 11.0}}


def test_handlers_around_the_look_count():
    with bilo.replace_operator(operators={"u": V}), handlers.condition(data={"D": 2.0}):
        look = look_at(one)
    assert look.solutions == {"u": (V, {"D": 2.0}, None)}
    assert list(look.observed) == ["D"]


def test_scoped_names():
    look = look_at(handlers.scope(one, prefix="left"), values={"left/D": 4.0})
    assert look.thetas == {"left/u": {"D": 4.0}}


def test_under_jit_values_may_be_traced_and_are_differentiated():
    @jax.jit
    @jax.value_and_grad
    def theta(D):
        look = look_at(rich, (Y,), values={"D": D})
        return look.thetas["u"]["D"] + 10 * look.thetas["v"]["D"]

    value, slope = theta(jnp.array([1.0, 2.0]))
    assert value == 21.0
    np.testing.assert_array_equal(slope, [1, 10])


def test_under_vmap_values_and_keys_may_be_batched():
    thetas = jax.vmap(lambda D: look_at(one, values={"D": D}).thetas["u"])(jnp.arange(3.0))
    np.testing.assert_array_equal(thetas["D"], [0, 1, 2])
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = jax.vmap(lambda key: look_at(one, key=key).thetas["u"])(keys)
    np.testing.assert_allclose(drawn["D"], [look_at(one, key=key).values["D"] for key in keys])


def test_under_eval_shape_names_and_shapes_are_known():
    found = []
    values = jax.eval_shape(lambda: found.append(look_at(rich, (Y,))) or found[0].values)
    assert values["D"].shape == (2,)
    assert list(found[0].solutions) == ["u", "v"]


def test_rank_promotion_and_validation_do_not_matter():
    """u = 0 is no standard deviation; medians of vectors and draws in plates promote ranks."""

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(3), jnp.ones(3)).to_event(1))
        with numpyro.plate("three", 3):
            D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
        lowest = dist.ImproperUniform(constraints.greater_than(jnp.zeros(3)), (), (3,))
        sigma = numpyro.sample("sigma", lowest)
        u = bilo.solution("u", U, {"D": D[0]})
        numpyro.sample("y", dist.Normal(mean + sigma, u(X[0])), obs=y)

    with jax.numpy_rank_promotion("raise"), numpyro.validation_enabled(True):
        for first in (None, init_to_median):
            look = look_at(model, (jnp.asarray(Y),), first=first)
            assert list(look.latent) == ["mean", "D", "sigma"]
        with pytest.raises(ValueError, match="invalid scale parameter"):
            dist.Normal(0.0, 0.0)
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.zeros(2) + jnp.zeros((2, 2))


def test_a_model_without_solutions_or_sites_is_no_error():
    look = look_at(lambda: None)
    assert look.latent == look.observed == look.solutions == look.thetas == {}
    assert look.missing == ()


def test_a_plate_may_be_entered_again():
    def model():
        for name in ("a", "b"):
            with numpyro.plate("two", 2):
                numpyro.sample(name, dist.Normal())

    assert list(look_at(model).latent) == ["a", "b"]


def twice():
    one()
    bilo.solution("u", V, {"D": 1.0})


def sample_then_solution():
    one(name="D")


def solution_then_data():
    one()
    numpyro.sample("u", dist.Normal(), obs=0.0)


def deterministic_then_solution():
    numpyro.deterministic("u", 1.0)
    one()


def solution_then_plate():
    one()
    numpyro.plate("u", 2)


def two_samples():
    one()
    numpyro.sample("D", dist.Normal())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (twice, "the name 'u' is used twice in the model"),
        (sample_then_solution, "the name 'D' is also that of a sample site.*rename"),
        (solution_then_data, "the name 'u' is also that of a sample site"),
        (deterministic_then_solution, "the name 'u' is also that of a deterministic site"),
        (solution_then_plate, "the name 'u' is also that of a plate site"),
        (two_samples, r"the name 'D' for two sites \(sample, sample\)"),
    ],
)
def test_a_name_of_two_sites_is_an_error(model, message):
    with pytest.raises(ValueError, match=message):
        look_at(model)
    assert list(look_at(one).latent) == ["D"]


def test_a_site_at_given_values():
    values = {"mean": 0.0, "D": jnp.array([1.0, 2.0]), "sigma": 1.0}
    assert site_at(rich, (Y,), {}, values, "v").theta == {"D": 2.0}


@pytest.mark.parametrize(
    ("values", "site", "message"),
    [
        ({"mean": 0.0, "D": jnp.ones(2)}, "u", r"no values for the latent sites \['sigma'\]"),
        ({}, "w", r"no solution site 'w', only \['u', 'v'\]"),
    ],
)
def test_theta_needs_all_values_and_a_solution(values, site, message):
    with pytest.raises(ValueError, match=message):
        site_at(rich, (Y,), {}, values, site)

"""Several experiments by one vectorised solve, against the same model with a site for each."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy

import bilo_ppl as bilo
from bilo_ppl.fields import KarhunenLoeve
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.ppl.handlers import given_solution, without_solving
from bilo_ppl.ppl.look import look_at
from models import poisson

COUNT = 3
X = np.linspace(0.1, 0.9, 4)[:, None]
TIMES = np.stack([X + 0.01 * i for i in range(COUNT)])
Y = np.exp(-X[:, 0])[None] * np.array([[1.0], [1.5], [2.0]])


class Decay(bilo.Problem):
    """u' = -k u, u(0) = a: one rate for all, an amplitude for each experiment."""

    parameters, components = ("k", "a"), 1
    domain = bilo.time_interval(0.0, 1.0)
    points = domain.grid(11)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) + theta["k"] * u(x)

    def lift(self, x, raw, theta):
        return theta["a"] * (1 + x[0] * raw)


def decay(x, theta):
    return theta["a"] * jnp.exp(-theta["k"] * x[0])


EXACT = bilo.ClosedForm(Decay(), decay)
POISSON = bilo.ClosedForm(poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])


class Counting(AbstractSolutionOperator):
    """The solution as a plain function that encloses theta; the state counts the solves."""

    problem: Any = Decay()
    bound: float = 10.0

    def init_state(self):
        return {"solves": jnp.array(0)}

    def solve(self, theta, state):
        converged = theta["a"] <= self.bound
        info = SolveInfo.of(state["solves"] + 1, jax.lax.stop_gradient(theta["a"]), converged)
        return partial(decay, theta=dict(theta)), {"solves": state["solves"] + 1}, info


def together(operator, x=X, y=Y):
    k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("experiments", COUNT):
        a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
    us = bilo.solutions("u", operator, {"k": k, "a": a})
    numpyro.sample("y", dist.Normal(us(x), 0.1), obs=y)


def apart(operator, x=X, y=Y):
    k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("experiments", COUNT):
        a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
    for i in range(COUNT):
        u = bilo.solution(f"u{i}", operator, {"k": k, "a": a[i]})
        points = x if x.ndim == 2 else x[i]
        numpyro.sample(f"y{i}", dist.Normal(jax.vmap(u)(points), 0.1), obs=y[i])


Z = {"k": jnp.array(0.2), "a": jnp.array([0.1, 0.3, -0.2])}


def energy(model, operator, z=Z, x=X):
    """U and its gradient."""
    return jax.jit(jax.value_and_grad(lambda z: potential_energy(model, (operator, x), {}, z)))(z)


@pytest.mark.parametrize("operator", [EXACT, Counting()], ids=["module", "function"])
@pytest.mark.parametrize("x", [X, TIMES], ids=["same points", "points of each"])
def test_potential_and_gradient_are_those_of_a_site_for_each(operator, x):
    (one, slope), (many, slopes) = (energy(m, operator, x=x) for m in (together, apart))
    np.testing.assert_allclose(one, many, rtol=1e-12)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10), slope, slopes)


def test_fine_tuned_experiments_are_those_of_a_site_for_each(tuned):
    thetas = jnp.array([1.0, 1.2, 0.9])
    slopes = []
    for each in (True, False):

        def misfit(D, each=each):
            if each:
                values = [
                    jax.vmap(bilo.solution(f"u{i}", tuned, {"D": D[i]}))(X) for i in range(COUNT)
                ]
                return jnp.sum(jnp.stack(values) ** 2)
            return jnp.sum(bilo.solutions("u", tuned, {"D": D})(X) ** 2)

        slopes.append(jax.jit(jax.value_and_grad(misfit))(thetas))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), *slopes)


def test_values_single_solutions_and_their_number():
    thetas = {"k": 0.5, "a": np.array([1.0, 2.0, 3.0])}
    us = bilo.solutions("u", EXACT, thetas)
    wanted = thetas["a"][:, None] * np.exp(-0.5 * X[:, 0])
    assert len(us) == COUNT
    np.testing.assert_allclose(us(X), wanted)
    np.testing.assert_allclose(us(np.stack([X] * COUNT)), wanted)
    np.testing.assert_allclose([jax.vmap(u)(X) for u in us], wanted)
    np.testing.assert_allclose(us[-1](X[0]), wanted[-1, 0])
    at = jax.jit(jax.vmap(lambda i: us[i](jnp.asarray(X[0]))))(jnp.arange(COUNT))
    np.testing.assert_allclose(at, wanted[:, 0])
    np.testing.assert_allclose(bilo.partial(us[1], 0)(jnp.asarray(X[0])), -0.5 * wanted[1, 0])
    with pytest.raises(IndexError, match="no experiment 3, only 3"):
        us[3]
    for points in (X[0], np.zeros((2, 4, 1)), np.zeros((3, 2, 4, 1))):
        with pytest.raises(ValueError, match=r"must be \(m, d\).* or \(3, m, d\)"):
            us(points)


def test_a_system_has_an_axis_of_components():
    class System(Decay):
        components = 2

    operator = bilo.ClosedForm(System(), lambda x, theta: decay(x, theta) * jnp.array([1.0, 2.0]))
    thetas = {"k": 0.5, "a": jnp.ones(COUNT)}
    assert bilo.solutions("u", operator, thetas)(X).shape == (COUNT, 4, 2)
    with without_solving():
        assert bilo.solutions("u", operator, thetas)(X).shape == (COUNT, 4, 2)


def test_a_vector_for_each_experiment_and_a_function_for_all():
    class Both(bilo.Problem):
        parameters, components = ("f", "b"), 1
        domain = bilo.interval(0.0, 1.0)
        points = domain.grid(5)

    operator = bilo.ClosedForm(Both(), lambda x, theta: theta["f"](x) * theta["b"] @ jnp.ones(2))
    field = KarhunenLoeve(np.array([1.0, 0.5]))
    b = jnp.arange(6.0).reshape(COUNT, 2)

    def values(field):
        return bilo.solutions("u", operator, {"f": field, "b": b})(X)

    wanted = jnp.sum(b, axis=1)[:, None] * jax.vmap(field)(X)[None]
    np.testing.assert_allclose(values(field), wanted)
    gradient = eqx.filter_grad(lambda field: jnp.sum(values(field)))(field)
    wanted = eqx.filter_grad(lambda field: 15.0 * jnp.sum(jax.vmap(field)(X)))(field)
    assert eqx.tree_equal(gradient, wanted, rtol=1e-10)
    look = look_at(lambda: bilo.solutions("u", operator, {"f": field, "b": b}) and None)
    assert look.solutions["u"].batch == COUNT
    assert look.thetas["u"]["f"] is field


def test_states_and_reports_are_those_of_all_experiments():
    def model(a):
        return bilo.solutions("u", Counting(), {"k": 1.0, "a": a})(X[:1])[:, 0]

    a = jnp.array([1.0, 3.0, 2.0])
    handler = bilo.warm_start(model)
    handler(a)
    np.testing.assert_array_equal(handler.states["u"]["solves"], [1, 1, 1])
    assert handler.infos["u"] == SolveInfo.of(3, 3.0, True)
    again = bilo.warm_start(model, states={"u": {"solves": jnp.array([5, 1, 2])}})
    again(a)
    np.testing.assert_array_equal(again.states["u"]["solves"], [6, 2, 3])
    assert again.infos["u"].steps == 6 + 2 + 3


def test_warm_start_of_fine_tuned_experiments_saves_the_steps(tuned):
    @jax.jit
    def two(D):
        def model():
            return bilo.solutions("u", tuned, {"D": D})(X)

        first = bilo.warm_start(model)
        u = first()
        second = bilo.warm_start(model, states=first.states)
        return u, second(), first.infos["u"].steps, second.infos["u"].steps

    u, v, first, second = two(jnp.array([1.5, 1.2, 0.9]))
    assert first > 0
    assert second == 0
    np.testing.assert_allclose(u, v, rtol=1e-12)
    wanted = np.sin(np.pi * X[:, 0]) / np.array([[1.5], [1.2], [0.9]])
    np.testing.assert_allclose(u, wanted, atol=1e-3)


def test_an_unsolved_experiment_is_nan_and_the_site_is_unsolved():
    def model(a):
        return bilo.solutions("u", Counting(bound=2.0), {"k": 1.0, "a": a})(X)

    a = jnp.array([1.0, 3.0, 2.0])
    handler = bilo.warm_start(model)
    np.testing.assert_array_equal(np.isnan(handler(a)).all(axis=1), [False, True, False])
    assert not handler.infos["u"].converged
    assert handler.infos["u"].reason == bilo.StopReason.STEP_LIMIT
    gradient = jax.grad(lambda a: jnp.sum(model(a)))(a)
    assert np.isfinite(gradient).all()
    assert np.isfinite(bilo.warm_start(model, accept_unconverged=True)(a)).all()
    potential = bilo.StatefulPotential(lambda: numpyro.factor("f", jnp.sum(model(a))))
    assert potential({}, {})[0] == np.inf


def test_handlers_act_on_experiments():
    thetas = {"k": 0.0, "a": jnp.ones(COUNT)}

    def model():
        return bilo.solutions("u", EXACT, thetas)

    def double(x, theta):
        return 2 * decay(x, theta)

    replaced = bilo.replace_operator(model, {"u": bilo.ClosedForm(Decay(), double)})
    np.testing.assert_allclose(replaced()(X), 2 * np.ones((COUNT, 4)))
    given = given_solution(model, {"u": lambda x: x[0]})()
    np.testing.assert_allclose(given(X), np.stack([X[:, 0]] * COUNT))
    assert given[1](X[0]) == X[0, 0]
    np.testing.assert_array_equal(without_solving(model)()(X), np.zeros((COUNT, 4)))
    trace = handlers.trace(model).get_trace()
    assert list(trace) == ["u"]
    look = look_at(model)
    assert look.batches == {"u": COUNT}
    np.testing.assert_array_equal(look.thetas["u"]["k"], np.zeros(COUNT))


def samples_of(kernel, chains=1):
    mcmc = MCMC(
        kernel,
        num_warmup=20,
        num_samples=15,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), Counting(), extra_fields=("potential_energy",))
    return mcmc.get_samples(), mcmc.get_extra_fields()["potential_energy"]


@pytest.mark.parametrize("kernel", [NUTS, bilo.BiLONUTS])
def test_energies_of_vectorised_chains_are_those_of_a_site_for_each(kernel):
    samples, energies = samples_of(kernel(together, max_tree_depth=3), chains=2)
    z = {name: jnp.log(value) for name, value in samples.items()}
    assert z["a"].shape == (30, COUNT)
    wanted = jax.vmap(lambda z: potential_energy(apart, (Counting(),), {}, z))(z)
    np.testing.assert_allclose(energies, wanted, rtol=1e-8)


def test_estimates_draws_and_certificates():
    key = jax.random.key(1)
    estimates = [bilo.find_map(m, key, EXACT, progress=False) for m in (together, apart)]
    np.testing.assert_allclose(estimates[0].values["a"], estimates[1].values["a"], rtol=1e-3)
    assert estimates[0].experiments() == COUNT
    np.testing.assert_allclose(estimates[0].theta()["a"], estimates[0].values["a"])
    fitted = estimates[0].solution(X)
    np.testing.assert_allclose(fitted[2], estimates[1].solution(X, "u2"), rtol=1e-3)
    covariances = [bilo.laplace(estimate).covariance for estimate in estimates]
    np.testing.assert_allclose(*covariances, rtol=1e-2, atol=1e-6)
    draws = bilo.laplace(estimates[0]).sample(key, 20).samples
    found = bilo.inner_statistics(together, draws, Counting())
    assert found["u"].steps.shape == found["u"].converged.shape
    assert (found["u"].steps == COUNT).all()
    u = bilo.solution_draws(together, draws, X, EXACT)
    a, k = (np.asarray(draws[name]).reshape(20, -1) for name in ("a", "k"))
    wanted = a[:, :, None] * np.exp(-k[:, :, None] * X[:, 0])
    np.testing.assert_allclose(u, wanted)
    certificate = bilo.certify(together, draws, EXACT, reference=Counting())
    assert certificate.kl_divergence < 1e-10


# Errors.


@pytest.mark.parametrize(
    ("thetas", "message"),
    [
        ({"k": 1.0, "a": 2.0}, r"no leading axis.*needs one axis of experiments in front"),
        (
            {"k": np.ones(2), "a": np.ones(3)},
            r"different lengths.*\{'k': \(2,\), 'a': \(3,\)\}.*only scalars and functions",
        ),
        ({"k": 1.0, "a": np.ones(0)}, r"different lengths|empty"),
        ({"k": 1.0, "a": [abs, abs]}, r"thetas\['a'\] is a list that is no array"),
        ({"k": 1.0}, r"missing \['a'\]"),
        ({"k": 1.0, "a": np.array([1.0, np.nan])}, "is not finite"),
    ],
)
def test_wrong_thetas_are_refused(thetas, message):
    with pytest.raises(ValueError, match=message):
        bilo.solutions("u", EXACT, thetas)


def test_a_local_operator_is_no_solution_operator(small_operator):
    with pytest.raises(TypeError, match="wrap a LocalOperator in FineTuned"):
        bilo.solutions.__wrapped__("u", small_operator, {"D": jnp.ones(2)})


def test_entries_of_other_shapes_than_those_of_pretraining_are_refused(tuned):
    with pytest.raises(
        ValueError, match=r"entry 'D' of theta has shape \(3,\), and \(\) .*solutions"
    ):
        bilo.solution("u", tuned, {"D": jnp.ones(3)})
    with pytest.raises(
        ValueError, match=r"'D' of theta has shape \(3, 2\), and \(3,\).*experiments"
    ):
        bilo.solutions("u", tuned, {"D": jnp.ones((3, 2))})


def mapped(operator, x=X, y=Y):
    """What `solutions` is for, by vmap."""
    with numpyro.plate("experiments", COUNT):
        D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    mean = jax.vmap(lambda D: jax.vmap(bilo.solution("u", operator, {"D": D}))(x))(D)
    numpyro.sample("y", dist.Normal(mean, 0.1), obs=y)


def test_a_solution_inside_a_vmap_is_refused_before_anything_is_solved():
    message = "solution 'u' is inside of a jax.vmap.*bilo.solutions"
    with pytest.raises(ValueError, match=message):
        bilo.check_model(mapped, POISSON, X, Y)
    with pytest.raises(ValueError, match=message):
        bilo.find_map(mapped, jax.random.key(0), POISSON, X, Y, progress=False)
    bilo.check_model(together, EXACT, X, Y)
    jax.vmap(lambda y: look_at(together, (EXACT, X, y)).values)(jnp.stack([Y, Y]))

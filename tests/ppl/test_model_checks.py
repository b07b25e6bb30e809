"""Models whose shapes do not belong together, or that no data enter."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.fields import KarhunenLoeve
from bilo_ppl.ppl.look import look_at
from bilo_ppl.ppl.model_checks import check_likelihood, check_priors
from models import gene_expression, poisson

X = jnp.linspace(0.1, 0.9, 11)[:, None]
Y = np.sin(np.pi * np.asarray(X[:, 0]))
EXACT = bilo.ClosedForm(poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])


def model(operator, x, y, sigma=0.1, scalar=None):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)
    if scalar is not None:
        numpyro.sample("ends", dist.Normal(jax.vmap(u)(x[:2]), sigma), obs=scalar)


def test_likelihood_and_data_of_one_shape_pass():
    bilo.check_model(model, EXACT, X, Y)
    bilo.check_model(model, EXACT, X, Y, np.full(11, 0.1))
    bilo.check_model(model, EXACT, X, Y, scalar=0.0)
    data = gene_expression.synthetic_data(0)
    operator = bilo.ClosedForm(gene_expression.problem, lambda x, theta: theta["lam"])
    bilo.check_model(gene_expression.model, operator, data["x"], data["y"])


@pytest.mark.parametrize(
    ("y", "sigma", "shape"),
    [
        (Y[:, None], 0.1, r"\(11,\) and its data have shape \(11, 1\)"),
        (Y, np.full((11, 1), 0.1), r"\(11, 11\) and its data have shape \(11,\)"),
        (Y[:1], 0.1, r"\(11,\) and its data have shape \(1,\)"),
        (Y[:5], 0.1, r"\(11,\) and its data have shape \(5,\)"),
    ],
)
def test_a_likelihood_of_another_shape_is_refused(y, sigma, shape):
    message = f"likelihood of 'y' has shape {shape}"
    with pytest.raises(ValueError, match=message):
        bilo.check_model(model, EXACT, X, y, sigma)
    with pytest.raises(ValueError, match=message):
        bilo.find_map(model, jax.random.key(0), EXACT, X, y, sigma, progress=False)


def test_a_plate_gives_the_likelihood_its_shape():
    def plated(operator, x, y):
        u = bilo.solution("u", operator, {"D": numpyro.sample("D", dist.Gamma(2.0, 1.0))})
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(u(x[0]), 0.1), obs=y)

    bilo.check_model(plated, EXACT, X, Y)


def test_a_model_without_data_is_refused():
    with pytest.raises(ValueError, match=r"no likelihood.*\['D', 'y'\].*forget obs=y"):
        bilo.check_model(model, EXACT, X, None)

    def penalised(operator):
        field = bilo.unknown_function("f", KarhunenLoeve(np.zeros(2)), prior_sd=1.0)
        bilo.solution("u", operator, {"D": field(0.5)})
        bilo.squared_penalty("smooth", 1.0, lambda x: field(x[0]), np.array([[0.5]]))

    with pytest.raises(ValueError, match="no likelihood"):
        bilo.check_model(penalised, EXACT)


def test_other_data_do_not_hide_that_the_data_are_drawn():
    look = look_at(model, (EXACT, X, None), {"scalar": 0.0})
    check_likelihood(look)
    with pytest.raises(ValueError, match=r"\['D', 'y', 'ends'\].*forget obs=y"):
        check_likelihood(look, Y)


def test_an_improper_prior_of_more_unknowns_than_data_is_refused():
    def flat(operator, count):
        real = dist.constraints.real_vector
        w = numpyro.sample("w", dist.ImproperUniform(real, (), (count,)))
        u = bilo.solution("u", operator, {"D": jnp.exp(w[0])})
        numpyro.factor("prior", 0.0 * w[0])
        numpyro.sample("y", dist.Normal(jax.vmap(u)(X), 0.1), obs=Y)

    check_priors(look_at(flat, (EXACT, 11), {}))
    with pytest.raises(ValueError, match=r"12 unknowns of 'w' have an improper prior, .* 11 data"):
        check_priors(look_at(flat, (EXACT, 12), {}))

"""The Thiele modulus of a catalyst, whose sign the data do not tell (Fogler, chapter 15).

    -u'' + k^2 u = pi^2 sin(pi x)   on [0, 1],   u(0) = u(1) = 0,

with k ~ N(0, 3^2): two modes that touch. Truth k = 2, start 1; 9 values with noise sd 0.25.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Thiele(bilo.Problem):
    parameters, components = ("k",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        source = jnp.pi**2 * jnp.sin(jnp.pi * x[0])
        return bilo.laplacian(u)(x) - theta["k"] ** 2 * u(x) + source

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = Thiele(), {"k": 1.0}, {"k": 2.0}
reference_grid = {"k": np.linspace(-15.0, 15.0, 3001)}


def closed_form(x, theta):
    return jnp.sin(jnp.pi * x[0]) / (1 + (theta["k"] / jnp.pi) ** 2)


def model(operator, x, y=None, sigma=0.25):
    k = numpyro.sample("k", dist.Normal(0.0, 3.0))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(11)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.25 * np.random.default_rng(seed).normal(size=9), "sigma": 0.25}


def reference():
    return bilo.ClosedForm(problem, closed_form)

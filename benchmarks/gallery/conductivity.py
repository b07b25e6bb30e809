"""Heat conduction with a conductivity that grows with temperature (Carslaw and Jaeger, section 1.6).

    ((1 + b T) T')' + q = 0   on [0, 1],   T(0) = 0,   T(1) = 1:

by Kirchhoff's transformation T + b T^2 / 2 is a quadratic in x. Truth (b, q) = (2.5, 4), start (1, 1); 15
values with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Conductivity(bilo.Problem):
    parameters, components = ("b", "q"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(41)

    def residual(self, T, x, theta):
        flux = bilo.divergence(lambda y: (1 + theta["b"] * T(y)) * bilo.grad(T)(y))(x)
        return flux + theta["q"]

    def lift(self, x, raw, theta):
        return x[0] + x[0] * (1 - x[0]) * raw


problem, start, truth = Conductivity(), {"b": 1.0, "q": 1.0}, {"b": 2.5, "q": 4.0}


def closed_form(x, theta):
    b, q = theta["b"], theta["q"]
    transformed = (1 + b / 2) * x[0] + q * x[0] * (1 - x[0]) / 2
    return (jnp.sqrt(1 + 2 * b * transformed) - 1) / b


def model(operator, x, y=None, sigma=0.02):
    b = numpyro.sample("b", dist.LogNormal(0.0, 1.0))
    q = numpyro.sample("q", dist.LogNormal(1.0, 1.0))
    T = bilo.solution("T", operator, {"b": b, "q": q})
    numpyro.sample("y", dist.Normal(jax.vmap(T)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(15)
    T = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": T + 0.02 * np.random.default_rng(seed).normal(size=15), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

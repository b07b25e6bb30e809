"""A reactor with axial dispersion: a boundary layer at the outlet (Logan, Applied Mathematics).

    -eps u'' + u' + 500 k u = 1   on [0, 1],   u(0) = u(1) = 0,

with the dispersion eps and a rate k per second; the residence time is 500 s. The layer at x = 1 is about
eps wide. Truth eps = 0.03, k = 0.002; start (0.06, 0.001); log eps ~ N(log 0.02, 0.7), log k ~
N(log 0.001, 0.7); 25 values with noise sd 0.02.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class BoundaryLayer(bilo.Problem):
    parameters, components = ("eps", "k"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(101)

    def residual(self, u, x, theta):
        transport = -theta["eps"] * bilo.laplacian(u)(x) + bilo.partial(u, 0)(x)
        return transport + 500 * theta["k"] * u(x) - 1

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = BoundaryLayer(), {"eps": 0.06, "k": 0.001}, {"eps": 0.03, "k": 0.002}


def closed_form(x, theta):
    eps, rate = theta["eps"], 500 * theta["k"]
    root = jnp.sqrt(1 + 4 * eps * rate)
    fast, slow = (1 + root) / (2 * eps), -2 * rate / (1 + root)
    layer = (1 - jnp.exp(slow)) / (1 - jnp.exp(slow - fast))
    decay = (1 - layer * jnp.exp(-fast)) * jnp.exp(slow * x[0])
    return (1 - layer * jnp.exp(fast * (x[0] - 1)) - decay) / rate


def model(operator, x, y=None, sigma=0.02):
    eps = numpyro.sample("eps", dist.LogNormal(math.log(0.02), 0.7))
    k = numpyro.sample("k", dist.LogNormal(math.log(0.001), 0.7))
    u = bilo.solution("u", operator, {"eps": eps, "k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(27)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=25), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

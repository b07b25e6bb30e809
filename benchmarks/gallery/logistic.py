"""Logistic growth with unknown rate and capacity (Murray, Mathematical Biology I, section 1.1).

    u' = r u (1 - u / K)   for t in [0, 12] days,   u(0) = 2,

Gause's paramecia in a tube, counted daily with noise sd 2. Truth r = 0.8 per day, K = 60; start (1.6,
120); log r ~ N(0, 0.5), log K ~ N(log 100, 0.5).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Logistic(bilo.Problem):
    parameters, components = ("r", "K"), 1
    domain = bilo.time_interval(0.0, 12.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - theta["r"] * u(x) * (1 - u(x) / theta["K"])

    def lift(self, x, raw, theta):
        return 2 + x[0] * raw


problem, start = Logistic(), {"r": 1.6, "K": 120.0}
truth = {"r": 0.8, "K": 60.0}


def closed_form(x, theta):
    return theta["K"] / (1 + (theta["K"] / 2 - 1) * jnp.exp(-theta["r"] * x[0]))


def model(operator, x, y=None, sigma=2.0):
    r = numpyro.sample("r", dist.LogNormal(0.0, 0.5))
    K = numpyro.sample("K", dist.LogNormal(math.log(100.0), 0.5))
    u = bilo.solution("u", operator, {"r": r, "K": K})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    t = np.arange(1.0, 13.0)
    u = 60 / (1 + 29 * np.exp(-0.8 * t))
    return {
        "x": t[:, None],
        "y": u + 2.0 * np.random.default_rng(seed).normal(size=12),
        "sigma": 2.0,
    }


def reference():
    return bilo.ClosedForm(problem, closed_form)

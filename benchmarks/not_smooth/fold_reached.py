"""Combustion at its limit (Bratu's equation): data that do not exclude the turning point.

    u'' + c exp(u) = 0   on [0, 1],   u(0) = u(1) = 0.

There are two solutions for c < 3.5138, none beyond, and du/dc grows without limit towards the turning
point. Truth c = 3.4 on the lower branch, start 2, log c ~ N(log 2.5, 0.5^2); 10 sensors with
noise sd 0.2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Bratu(bilo.Problem):
    parameters, components = ("c",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["c"] * jnp.exp(u(x))

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = Bratu(), {"c": 2.0}, {"c": 3.4}
TURN = 1.1996786402577339
"""Where 8 b^2 / cosh(b)^2, which is c, is largest."""


def closed_form(x, theta):
    low, high = jnp.zeros_like(theta["c"] * 1.0), jnp.full_like(theta["c"] * 1.0, TURN)
    for _ in range(60):  # the lower branch by bisection
        b = (low + high) / 2
        below = 8 * b**2 / jnp.cosh(b) ** 2 < theta["c"]
        low, high = jnp.where(below, b, low), jnp.where(below, high, b)
    return 2 * jnp.log(jnp.cosh(low) / jnp.cosh(low * (1 - 2 * x[0])))


def model(operator, x, y=None, sigma=0.2):
    c = numpyro.sample("c", dist.LogNormal(np.log(2.5), 0.5))
    u = bilo.solution("u", operator, {"c": c})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(12)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.2 * np.random.default_rng(seed).normal(size=len(x)), "sigma": 0.2}

"""Groundwater between two canals under recharge (Bear, Hydraulics of Groundwater, section 5-2).

    (h h')' + r = 0   on [0, 1],   h(0) = a,   h(1) = 1

in the width of the strip and the head at its right end: the recharge over the conductivity, r, and the
head at the left end, a, are unknown. Truth r = 1, a = 1.3; start (0.3, 1); log r ~ N(-1, 1), a ~ N(1,
0.5); nine wells with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Strip(bilo.Problem):
    parameters, components = ("r", "a"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        def flux(y):
            return u(y) * bilo.partial(u, 0)(y)

        return bilo.partial(flux, 0)(x) + theta["r"]

    def lift(self, x, raw, theta):
        return theta["a"] * (1 - x[0]) + x[0] + x[0] * (1 - x[0]) * raw


problem, start = Strip(), {"r": 0.3, "a": 1.0}
truth = {"r": 1.0, "a": 1.3}


def closed_form(x, theta):
    s, a = x[0], theta["a"]
    return jnp.sqrt(a**2 + (1 - a**2) * s + theta["r"] * s * (1 - s))


def model(operator, x, y=None, sigma=0.02):
    r = numpyro.sample("r", dist.LogNormal(-1.0, 1.0))
    a = numpyro.sample("a", dist.Normal(1.0, 0.5))
    u = bilo.solution("u", operator, {"r": r, "a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(11)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=9), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

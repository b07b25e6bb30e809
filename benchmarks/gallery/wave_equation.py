"""A vibrating string with unknown wave speed c (Strauss, Partial Differential Equations, 4.1).

    u_tt = c^2 u_xx   for x in [0, 1], t in [0, 2],   u = 0 at both ends,
    u(x, 0) = sin(pi x) + sin(2 pi x) / 2,   u_t(x, 0) = 0.

Truth c = 1.2, start 0.8, log c ~ N(0, 0.5); 5 places at 8 times, noise sd 0.1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


def initial(x):
    return jnp.sin(jnp.pi * x[0]) + jnp.sin(2 * jnp.pi * x[0]) / 2


class Wave(bilo.Problem):
    parameters, components = ("c",), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 2.0)
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        return bilo.partial(u, 1, 1)(x) - theta["c"] ** 2 * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return initial(x) + x[0] * (1 - x[0]) * x[1] ** 2 * raw


problem, start = Wave(), {"c": 0.8}
truth = {"c": 1.2}
reference_grid = {"c": np.linspace(1.15, 1.25, 401)}


def closed_form(x, theta):
    first = jnp.sin(jnp.pi * x[0]) * jnp.cos(theta["c"] * jnp.pi * x[1])
    second = jnp.sin(2 * jnp.pi * x[0]) * jnp.cos(2 * theta["c"] * jnp.pi * x[1])
    return first + second / 2


def model(operator, x, y=None, sigma=0.1):
    c = numpyro.sample("c", dist.LogNormal(0.0, 0.5))
    u = bilo.solution("u", operator, {"c": c})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.arange(1, 6) / 6, np.linspace(0.25, 2.0, 8))
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.1 * np.random.default_rng(seed).normal(size=40), "sigma": 0.1}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""A source that ends at an unknown place z, written as a jump.

    -u'' = 10 for x < z, 0 for x > z   on [0, 1],   u(0) = u(1) = 0.

At a point the residual does not change with z until z passes it. Truth z = 0.4, start 0.6, z uniform on
[0, 1]; 10 sensors with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Source(bilo.Problem):
    parameters, components = ("z",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(101)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + jnp.where(x[0] < theta["z"], 10.0, 0.0)

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = Source(), {"z": 0.6}, {"z": 0.4}


def closed_form(x, theta):
    z = theta["z"]
    inside = (10 * z - 5 * z**2) * x[0] - 5 * x[0] ** 2
    return jnp.where(x[0] < z, inside, 5 * z**2 * (1 - x[0]))


def model(operator, x, y=None, sigma=0.02):
    z = numpyro.sample("z", dist.Uniform(0.0, 1.0))
    u = bilo.solution("u", operator, {"z": z})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(12)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=len(x)), "sigma": 0.02}

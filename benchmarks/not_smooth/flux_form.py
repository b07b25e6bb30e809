"""Two materials that meet at an unknown place z, as a system for u and its flux q.

    q = a u',   q' = -10   on [0, 1],   u(0) = u(1) = 0,   a = 1 / (1 - 0.75 s),

with s from 0 to 1 within about 0.04 of z, as wide as points can see. Truth z = 0.4, start 0.6, z uniform
on [0, 1]; the data, 10 sensors with noise sd 0.02, are of the jump from 1 to 4.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

WIDTH = 0.01


class TwoMaterials(bilo.Problem):
    parameters, components = ("z",), 2
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(201)

    def residual(self, u, x, theta):
        slope = bilo.partial(u, 0)(x)
        resistance = 1 - 0.75 * jax.nn.sigmoid((x[0] - theta["z"]) / WIDTH)
        return jnp.stack([resistance * u(x)[1] - slope[0], slope[1] + 10.0])

    def lift(self, x, raw, theta):
        return jnp.stack([x[0] * (1 - x[0]) * raw[0], raw[1]])


problem, start, truth = TwoMaterials(), {"z": 0.6}, {"z": 0.4}


def closed_form(x, theta):
    z = theta["z"]
    c = (15 * z**2 + 5) / (3 * z + 1)
    right = (c * (x[0] - 1) - 5 * (x[0] ** 2 - 1)) / 4
    return jnp.stack([jnp.where(x[0] < z, c * x[0] - 5 * x[0] ** 2, right), c - 10 * x[0]])


def model(operator, x, y=None, sigma=0.02):
    z = numpyro.sample("z", dist.Uniform(0.0, 1.0))
    u = bilo.solution("u", operator, {"z": z})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x)[:, 0], sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(12)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth)[0])(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=len(x)), "sigma": 0.02}

"""Two materials that meet at an unknown place z, written as one equation.

    (a u')' = -10   on [0, 1],   u(0) = u(1) = 0,   a = 1 for x < z, 4 for x > z.

u has a kink at z, where the flux a u' is continuous; no collocation point sees that. Truth z = 0.4, start
0.6, z uniform on [0, 1]; 10 sensors with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class TwoMaterials(bilo.Problem):
    parameters, components = ("z",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(101)

    def residual(self, u, x, theta):
        def flux(y):
            return jnp.where(y[0] < theta["z"], 1.0, 4.0) * bilo.grad(u)(y)

        return bilo.divergence(flux)(x) + 10.0

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = TwoMaterials(), {"z": 0.6}, {"z": 0.4}


def closed_form(x, theta):
    z = theta["z"]
    c = (15 * z**2 + 5) / (3 * z + 1)
    right = (c * (x[0] - 1) - 5 * (x[0] ** 2 - 1)) / 4
    return jnp.where(x[0] < z, c * x[0] - 5 * x[0] ** 2, right)


def model(operator, x, y=None, sigma=0.02):
    z = numpyro.sample("z", dist.Uniform(0.0, 1.0))
    u = bilo.solution("u", operator, {"z": z})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(12)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=len(x)), "sigma": 0.02}

"""A heated wall of two layers that meet at z = 0.4 (Carslaw and Jaeger, section 3.7).

    k u'' + 1 = 0   in each layer, with k = k1 and k2,   u(0) = u(1) = 0,

u and k u' going through z without a jump: the network sees |x - z| beside x. Truth (k1, k2) = (0.5, 2),
start (1, 1); 11 values with noise sd 0.005.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

Z, ASIDE = 0.4, 1e-6


class TwoLayers(bilo.Problem):
    parameters, components, positive = ("k1", "k2"), 1, ("k1", "k2")
    domain = bilo.interval(0.0, 1.0)
    points = bilo.masked(domain.grid(51), lambda p: abs(p[0] - Z) > 1e-9)

    def inputs(self, x, theta):
        return jnp.concatenate([self.domain.normalise(x), 2 * jnp.abs(x - Z) - 0.6])

    def residual(self, u, x, theta):
        return jnp.where(x[0] < Z, theta["k1"], theta["k2"]) * bilo.laplacian(u)(x) + 1

    def conditions(self, u, theta):
        right, left = (bilo.partial(u, 0)(jnp.array([Z + side])) for side in (ASIDE, -ASIDE))
        return {"flux": (theta["k2"] * right - theta["k1"] * left)[None]}

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = TwoLayers(), {"k1": 1.0, "k2": 1.0}, {"k1": 0.5, "k2": 2.0}


def closed_form(x, theta):
    k1, k2, y = theta["k1"], theta["k2"], 1 - x[0]
    # The flux is top - x, which is as large as the temperatures on both sides ask for.
    top = (Z**2 / k1 + (1 - Z**2) / k2) / 2 / (Z / k1 + (1 - Z) / k2)
    left, right = (top * x[0] - x[0] ** 2 / 2) / k1, ((1 - top) * y - y**2 / 2) / k2
    return jnp.where(x[0] < Z, left, right)


def model(operator, x, y=None, sigma=0.005):
    k1, k2 = (numpyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("k1", "k2"))
    u = bilo.solution("u", operator, {"k1": k1, "k2": k2})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(13)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.005 * np.random.default_rng(seed).normal(size=11), "sigma": 0.005}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""A wall that generates heat, cooled at one side (Incropera, Heat and Mass Transfer, section 3.5).

    u'' + q = 0   on [0, 1],   u(0) = 0,   u'(1) + h u(1) = 0,

with the generation q and the Biot number h of the Robin condition unknown; all without dimension. Truth
q = 5, h = 2; start (10, 6); log q ~ N(1, 1), log h ~ N(0, 1); 11 values with noise sd 0.05.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Wall(bilo.Problem):
    parameters, components = ("q", "h"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["q"]

    def conditions(self, u, theta):
        end = jnp.array([1.0])
        cooling = bilo.partial(u, 0)(end) + theta["h"] * u(end)
        return {"cooling": jnp.reshape(cooling, (1,))}

    def lift(self, x, raw, theta):
        return x[0] * raw


problem, start = Wall(), {"q": 10.0, "h": 6.0}
truth = {"q": 5.0, "h": 2.0}


def closed_form(x, theta):
    slope = theta["q"] * (1 + theta["h"] / 2) / (1 + theta["h"])
    return slope * x[0] - theta["q"] * x[0] ** 2 / 2


def model(operator, x, y=None, sigma=0.05):
    q = numpyro.sample("q", dist.LogNormal(1.0, 1.0))
    h = numpyro.sample("h", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"q": q, "h": h})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = np.linspace(0.0, 1.0, 12)[1:, None]
    u = 10 / 3 * x[:, 0] - 5 / 2 * x[:, 0] ** 2
    return {"x": x, "y": u + 0.05 * np.random.default_rng(seed).normal(size=11), "sigma": 0.05}


def reference():
    return bilo.ClosedForm(problem, closed_form)

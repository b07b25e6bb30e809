"""A cooling rod in SI units (Incropera, Heat and Mass Transfer, example 3.9).

    u'' = m^2 u   on [0, 0.1] m,   m^2 = 4 h / (398 W/(m K) 0.005 m),
    u(0) = T,   398 u'(0.1) + h u(0.1) = 0   (convection at the tip),

u in K above the air, in copper 5 mm thick, with a heat transfer coefficient h in W/(m^2 K). Truth h =
100, T = 75; start (40, 50); log h ~ N(4, 1), T ~ N(60, 20^2); 10 values with noise sd 0.5 K.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Fin(bilo.Problem):
    parameters, components = ("h", "T"), 1
    domain = bilo.interval(0.0, 0.1)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - 4 * theta["h"] / (398.0 * 0.005) * u(x)

    def conditions(self, u, theta):
        tip = jnp.array([0.1])
        heat = 398.0 * bilo.partial(u, 0)(tip) + theta["h"] * u(tip)
        return {"tip": jnp.reshape(heat, (1,))}

    def lift(self, x, raw, theta):
        return theta["T"] + x[0] * raw


problem, start, truth = Fin(), {"h": 40.0, "T": 50.0}, {"h": 100.0, "T": 75.0}


def closed_form(x, theta):
    m = jnp.sqrt(4 * theta["h"] / (398.0 * 0.005))
    ratio, rest = theta["h"] / (m * 398.0), m * (0.1 - x[0])
    whole = jnp.cosh(m * 0.1) + ratio * jnp.sinh(m * 0.1)
    return theta["T"] * (jnp.cosh(rest) + ratio * jnp.sinh(rest)) / whole


def model(operator, x, y=None, sigma=0.5):
    h = numpyro.sample("h", dist.LogNormal(4.0, 1.0))
    T = numpyro.sample("T", dist.Normal(60.0, 20.0))
    u = bilo.solution("u", operator, {"h": h, "T": T})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = np.linspace(0.01, 0.1, 10)[:, None]
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.5 * np.random.default_rng(seed).normal(size=10), "sigma": 0.5}


def reference():
    return bilo.ClosedForm(problem, closed_form)

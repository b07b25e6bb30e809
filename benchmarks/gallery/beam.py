"""A cantilever with unknown stiffness and weight at its tip (Timoshenko, Strength of Materials I).

    S u'''' = 0.5 N/m   on [0, 1] m,   u(0) = u'(0) = 0,   u''(1) = 0,   S u'''(1) + P = 0,

with the bending stiffness S in N m^2 and the weight P in N; u is a few millimetres, in m. Truth S = 5,
P = 0.1; start (10, 0.2); log S ~ N(1, 1), log P ~ N(-2, 1); 10 values with noise sd 0.0002 m.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Beam(bilo.Problem):
    parameters, components = ("S", "P"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(31)

    def residual(self, u, x, theta):
        return theta["S"] * bilo.partial(u, 0, 0, 0, 0)(x) - 0.5

    def conditions(self, u, theta):
        tip = jnp.array([1.0])
        moment = theta["S"] * bilo.partial(u, 0, 0)(tip)
        shear = theta["S"] * bilo.partial(u, 0, 0, 0)(tip) + theta["P"]
        return {"moment": jnp.reshape(moment, (1,)), "shear": jnp.reshape(shear, (1,))}

    def lift(self, x, raw, theta):
        return x[0] ** 2 * raw


problem, start, truth = Beam(), {"S": 10.0, "P": 0.2}, {"S": 5.0, "P": 0.1}


def closed_form(x, theta):
    own = 0.5 * (6 - 4 * x[0] + x[0] ** 2) / 24
    return x[0] ** 2 * (own + theta["P"] * (3 - x[0]) / 6) / theta["S"]


def model(operator, x, y=None, sigma=2e-4):
    S = numpyro.sample("S", dist.LogNormal(1.0, 1.0))
    P = numpyro.sample("P", dist.LogNormal(-2.0, 1.0))
    u = bilo.solution("u", operator, {"S": S, "P": P})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = np.linspace(0.1, 1.0, 10)[:, None]
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 2e-4 * np.random.default_rng(seed).normal(size=10), "sigma": 2e-4}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""Where is the heater, and how strong? A plate with cold edges (Incropera, chapter 4).

    -(u_xx + u_yy) = q exp(-|(x, y) - (a, b)|^2 / 0.02)   on the unit square,   u = 0 around it,

q ~ LogNormal(3, 0.5), a and b ~ Normal(0.5, 0.2). Truth q = 30, a = 0.35, b = 0.6; start q = 20 in the
middle; 25 thermometers with noise sd 0.01.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Heater(bilo.Problem):
    parameters, components = ("q", "a", "b"), 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))

    def residual(self, u, x, theta):
        distance = (x[0] - theta["a"]) ** 2 + (x[1] - theta["b"]) ** 2
        return bilo.laplacian(u)(x) + theta["q"] * jnp.exp(-distance / 0.02)

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw


problem, start = Heater(), {"q": 20.0, "a": 0.5, "b": 0.5}
truth = {"q": 30.0, "a": 0.35, "b": 0.6}

WAVES = np.pi * np.arange(1, 25)
NODES = np.linspace(0.0, 1.0, 201)


def amplitudes(place):
    """Of the sine series of exp(-(x - place)^2 / 0.02): the trapezoidal rule."""
    bell = jnp.exp(-((NODES - place) ** 2) / 0.02)
    return 2 * (jnp.sin(WAVES[:, None] * NODES) @ bell) * (NODES[1] - NODES[0])


def closed_form(x, theta):
    along = amplitudes(theta["a"]) * jnp.sin(WAVES * x[0])
    across = amplitudes(theta["b"]) * jnp.sin(WAVES * x[1])
    return theta["q"] * along @ (1 / (WAVES[:, None] ** 2 + WAVES**2)) @ across


def model(operator, x, y=None, sigma=0.01):
    q = numpyro.sample("q", dist.LogNormal(3.0, 0.5))
    a = numpyro.sample("a", dist.Normal(0.5, 0.2))
    b = numpyro.sample("b", dist.Normal(0.5, 0.2))
    u = bilo.solution("u", operator, {"q": q, "a": a, "b": b})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(7, 7)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.01 * np.random.default_rng(seed).normal(size=len(x)), "sigma": 0.01}


def reference():
    return bilo.ClosedForm(problem, closed_form)

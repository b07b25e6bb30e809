"""A damped string with unknown wave speed and damping (Strauss, Partial Differential Equations, 4.1).

    u_tt + d u_t = c^2 u_xx   for x in [0, 1], t in [0, 2],   u = 0 at both ends,
    u(x, 0) = sin(pi x),   u_t(x, 0) = 0.

Truth c = 1, d = 0.6; start (1.5, 1.5); log c ~ N(0, 0.5), log d ~ N(0, 1); 5 places at 8 times, noise
sd 0.05.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class DampedWave(bilo.Problem):
    parameters, components = ("c", "d"), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 2.0)
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        inertia = bilo.partial(u, 1, 1)(x) + theta["d"] * bilo.partial(u, 1)(x)
        return inertia - theta["c"] ** 2 * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) + x[0] * (1 - x[0]) * x[1] ** 2 * raw


problem, start = DampedWave(), {"c": 1.5, "d": 1.5}
truth = {"c": 1.0, "d": 0.6}


def closed_form(x, theta):
    """For damping below the critical one, d < 2 pi c."""
    c, d, t = theta["c"], theta["d"], x[1]
    w = jnp.sqrt((jnp.pi * c) ** 2 - d**2 / 4)
    motion = jnp.cos(w * t) + d / (2 * w) * jnp.sin(w * t)
    return jnp.sin(jnp.pi * x[0]) * jnp.exp(-d * t / 2) * motion


def model(operator, x, y=None, sigma=0.05):
    c = numpyro.sample("c", dist.LogNormal(0.0, 0.5))
    d = numpyro.sample("d", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"c": c, "d": d})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.arange(1, 6) / 6, np.linspace(0.25, 2.0, 8))
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.05 * np.random.default_rng(seed).normal(size=40), "sigma": 0.05}


def reference():
    return bilo.ClosedForm(problem, closed_form, valid=lambda th: th["d"] < 2 * jnp.pi * th["c"])

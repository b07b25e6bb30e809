"""Diffusion with unknown D, a manufactured solution (LeVeque, Finite Difference Methods, chapter 9).

    u_t = D u_xx + f   for x and t in [0, 1],   u = 0 at both ends,   u(x, 0) = sin(pi x),

with f such that u = exp(-t) sin(pi x) for D = 0.2. Truth D = 0.2, start 0.6, log D ~ N(-1, 1); 5 places
at 5 times, noise sd 0.05.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


def source(x):
    return (0.2 * jnp.pi**2 - 1) * jnp.exp(-x[1]) * jnp.sin(jnp.pi * x[0])


class Diffusion(bilo.Problem):
    parameters, components = ("D",), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        return bilo.partial(u, 1)(x) - theta["D"] * bilo.partial(u, 0, 0)(x) - source(x)

    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) + x[0] * (1 - x[0]) * x[1] * raw


problem, start = Diffusion(), {"D": 0.6}
truth = {"D": 0.2}
reference_grid = {"D": np.linspace(0.15, 0.26, 441)}


def closed_form(x, theta):
    rate, t = theta["D"] * jnp.pi**2, x[1]
    forced = (0.2 * jnp.pi**2 - 1) * (jnp.exp(-t) - jnp.exp(-rate * t)) / (rate - 1)
    return jnp.sin(jnp.pi * x[0]) * (jnp.exp(-rate * t) + forced)


def model(operator, x, y=None, sigma=0.05):
    D = numpyro.sample("D", dist.LogNormal(-1.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.arange(1, 6) / 6, np.linspace(0.2, 1.0, 5))
    u = np.exp(-x[:, 1]) * np.sin(np.pi * x[:, 0])
    return {"x": x, "y": u + 0.05 * np.random.default_rng(seed).normal(size=25), "sigma": 0.05}


def reference():
    return bilo.ClosedForm(problem, closed_form)

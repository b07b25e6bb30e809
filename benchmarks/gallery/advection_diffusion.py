"""Advection and diffusion between absorbing ends (Farlow, lessons 8 and 15).

    u_t + c u_x = D u_xx  for x in [0, 1], t in [0, 0.5], u = 0 at both ends, u(x, 0) = sin(pi x)^3,

with the velocity c and the diffusivity D unknown. Truth c = 0.8, D = 0.05; start (0.4, 0.1); log c ~
N(-0.5, 0.7), log D ~ N(-3, 0.7); 8 places at 4 times, noise sd 0.02. With u = exp(a x - b t) w this is
the heat equation for w, which has a sine series.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class AdvectionDiffusion(bilo.Problem):
    parameters, components = ("c", "D"), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 0.5)
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        transport = bilo.partial(u, 1)(x) + theta["c"] * bilo.partial(u, 0)(x)
        return transport - theta["D"] * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) ** 3 + x[0] * (1 - x[0]) * x[1] * raw


problem, start, truth = AdvectionDiffusion(), {"c": 0.4, "D": 0.1}, {"c": 0.8, "D": 0.05}


def closed_form(x, theta):
    a, n = theta["c"] / (2 * theta["D"]), np.arange(1, 61)

    def integral(p):  # of exp(-a x) cos(p pi x) over [0, 1]
        return a * (1 - (-1.0) ** p * jnp.exp(-a)) / (a**2 + (p * np.pi) ** 2)

    b = 0.75 * (integral(1 - n) - integral(1 + n)) - 0.25 * (integral(3 - n) - integral(3 + n))
    exponent = a * x[0] - theta["D"] * (a**2 + (n * np.pi) ** 2) * x[1]
    return jnp.sum(b * jnp.sin(n * np.pi * x[0]) * jnp.exp(exponent))


def model(operator, x, y=None, sigma=0.02):
    c = numpyro.sample("c", dist.LogNormal(-0.5, 0.7))
    D = numpyro.sample("D", dist.LogNormal(-3.0, 0.7))
    u = bilo.solution("u", operator, {"c": c, "D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.linspace(0.1, 0.9, 8), np.linspace(0.125, 0.5, 4))
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=32), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

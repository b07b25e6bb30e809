"""The Brusselator with diffusion (Hairer and Wanner, Solving ODEs II, section IV.10).

    u_t = D u_xx + 1 + u^2 v - (B + 1) u,   v_t = D v_xx + B u - u^2 v   for x in [0, 1], t in [0, 2],
    u = 1 and v = B at both ends,   u(x, 0) = 1 + sin(2 pi x), v(x, 0) = B.
Truth B = 3, D = 0.02; start (2, 0.05); both ~ LogNormal(-1, 1.5); 5 places at 4 times, noise sd 0.1.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from _ode import RungeKutta, diffusing


class Brusselator(bilo.Problem):
    parameters, components = ("B", "D"), 2
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 2.0)
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        spread = theta["D"] * bilo.partial(u, 0, 0)(x)
        return bilo.partial(u, 1)(x) - spread - jnp.stack(reaction(u(x), theta))

    def lift(self, x, raw, theta):
        initial = jnp.stack([1 + jnp.sin(2 * jnp.pi * x[0]), theta["B"]])
        return initial + x[0] * (1 - x[0]) * x[1] * raw


def reaction(w, theta):
    u, v, B = *w, theta["B"]
    return 1 + u**2 * v - (B + 1) * u, B * u - u**2 * v


problem, start, truth = Brusselator(), {"B": 2.0, "D": 0.05}, {"B": 3.0, "D": 0.02}


def model(operator, x, y=None, sigma=0.1):
    theta = {name: numpyro.sample(name, dist.LogNormal(-1.0, 1.5)) for name in ("B", "D")}
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.arange(1, 6) / 6, np.linspace(0.5, 2.0, 4))
    u = np.asarray(jax.vmap(reference().solve(truth, ())[0])(x))
    return {"x": x, "y": u + 0.1 * np.random.default_rng(seed).normal(size=u.shape), "sigma": 0.1}


def reference():
    ends, wave = lambda theta: (1.0, theta["B"]), lambda x: (np.sin(2 * np.pi * x), 0 * x)
    rate, first, read = diffusing(reaction, ends, wave, count=24)
    return RungeKutta(problem, rate, lambda theta: first, steps=400, read=read)

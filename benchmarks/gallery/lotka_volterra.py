"""Lotka-Volterra equations with four unknown rates (Murray, Mathematical Biology I, section 3.1).

    u' = a u - b u v,   v' = d u v - c v   for t in [0, 8],   u(0) = 2, v(0) = 1,

prey u and predators v, both counted at 20 times. Truth a = 1, b = 0.6, c = 1.2, d = 0.4; start (0.6, 1,
0.8, 0.7); every rate ~ LogNormal(0, 0.7); noise sd 0.1.
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
from _ode import RungeKutta, integrated

INITIAL = np.array([2.0, 1.0])


class LotkaVolterra(bilo.Problem):
    parameters, components = ("a", "b", "c", "d"), 2
    domain = bilo.time_interval(0.0, 8.0)
    points = domain.grid(81)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - jnp.stack(rate(x[0], u(x), theta))

    def lift(self, x, raw, theta):
        return INITIAL + x[0] * raw


def rate(t, state, theta):
    u, v = state
    return (theta["a"] - theta["b"] * v) * u, (theta["d"] * u - theta["c"]) * v


problem, start = LotkaVolterra(), {"a": 0.6, "b": 1.0, "c": 0.8, "d": 0.7}
truth = {"a": 1.0, "b": 0.6, "c": 1.2, "d": 0.4}


def model(operator, x, y=None, sigma=0.1):
    theta = {name: numpyro.sample(name, dist.LogNormal(0.0, 0.7)) for name in problem.parameters}
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    t = np.linspace(0.4, 8.0, 20)
    noise = 0.1 * np.random.default_rng(seed).normal(size=(20, 2))
    return {"x": t[:, None], "y": integrated(rate, truth, INITIAL, t) + noise, "sigma": 0.1}


def reference():
    return RungeKutta(problem, rate, lambda theta: INITIAL, steps=400)

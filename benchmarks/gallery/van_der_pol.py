"""Van der Pol's oscillator with unknown damping mu and stiffness k (Strogatz, Nonlinear Dynamics, 7.1).

    u'' - mu (1 - u^2) u' + k u = 0   for t in [0, 8],   u(0) = 1, u'(0) = 0.

Truth mu = 1.2, k = 1; start (0.5, 1.5); both ~ LogNormal(0, 0.5); 20 values of u with noise sd 0.1.
"""

import pathlib
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from _ode import RungeKutta, integrated

INITIAL = np.array([1.0, 0.0])


class VanDerPol(bilo.Problem):
    parameters, components = ("mu", "k"), 1
    domain = bilo.time_interval(0.0, 8.0)
    points = domain.grid(81)

    def residual(self, u, x, theta):
        damping = theta["mu"] * (1 - u(x) ** 2) * bilo.partial(u, 0)(x)
        return bilo.partial(u, 0, 0)(x) - damping + theta["k"] * u(x)

    def lift(self, x, raw, theta):
        return 1 + x[0] ** 2 * raw


def rate(t, state, theta):
    u, v = state
    return v, theta["mu"] * (1 - u**2) * v - theta["k"] * u


problem, start, truth = VanDerPol(), {"mu": 0.5, "k": 1.5}, {"mu": 1.2, "k": 1.0}


def model(operator, x, y=None, sigma=0.1):
    theta = {name: numpyro.sample(name, dist.LogNormal(0.0, 0.5)) for name in problem.parameters}
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    t = np.linspace(0.4, 8.0, 20)
    u = integrated(rate, truth, INITIAL, t)
    noise = 0.1 * np.random.default_rng(seed).normal(size=20)
    return {"x": t[:, None], "y": u[:, 0] + noise, "sigma": 0.1}


def reference():
    return RungeKutta(problem, rate, lambda theta: INITIAL, steps=400)

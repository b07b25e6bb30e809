"""Michaelis-Menten kinetics with unknown Vmax and Km (Murray, Mathematical Biology I, section 6.2).

    u' = -V u / (K + u)   for t in [0, 15],   u(0) = 10,

the concentration of a substrate, with noise sd 0.2 at 15 times. V and K are strongly correlated. Truth
V = 1, K = 3; start (2, 6); log V ~ N(0, 0.7), log K ~ N(1, 0.7).
"""

import pathlib
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import lambertw

import bilo_ppl as bilo

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from _ode import RungeKutta


class MichaelisMenten(bilo.Problem):
    parameters, components = ("V", "K"), 1
    domain = bilo.time_interval(0.0, 15.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) + theta["V"] * u(x) / (theta["K"] + u(x))

    def lift(self, x, raw, theta):
        return 10 + x[0] * raw


def rate(t, state, theta):
    return (-theta["V"] * state[0] / (theta["K"] + state[0]),)


problem, start = MichaelisMenten(), {"V": 2.0, "K": 6.0}
truth = {"V": 1.0, "K": 3.0}


def model(operator, x, y=None, sigma=0.2):
    V = numpyro.sample("V", dist.LogNormal(0.0, 0.7))
    K = numpyro.sample("K", dist.LogNormal(1.0, 0.7))
    u = bilo.solution("u", operator, {"V": V, "K": K})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    t = np.arange(1.0, 16.0)
    u = 3 * lambertw(10 / 3 * np.exp((10 - t) / 3)).real  # the closed form at the truth
    noise = 0.2 * np.random.default_rng(seed).normal(size=15)
    return {"x": t[:, None], "y": u + noise, "sigma": 0.2}


def reference():
    return RungeKutta(problem, rate, lambda theta: [10.0], steps=300)

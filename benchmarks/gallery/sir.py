"""The SIR model with unknown infection and recovery rates (Murray, Mathematical Biology I, 10.2).

    S' = -beta S I,   I' = beta S I - gamma I   for t in [0, 14] days,   S(0) = 762/763, I(0) = 1/763,

influenza in a school; the part in bed, I, is reported daily with noise sd 0.01. Truth beta = 1.66, gamma
= 0.44 per day; start (1.1, 0.3); log beta ~ N(0, 1), log gamma ~ N(-1, 1).
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

INITIAL = np.array([762.0, 1.0]) / 763


class SIR(bilo.Problem):
    parameters, components = ("beta", "gamma"), 2
    domain = bilo.time_interval(0.0, 14.0)
    points = domain.grid(71)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - jnp.stack(rate(x[0], u(x), theta))

    def lift(self, x, raw, theta):
        return INITIAL + x[0] * raw


def rate(t, state, theta):
    new = theta["beta"] * state[0] * state[1]
    return -new, new - theta["gamma"] * state[1]


problem, start, truth = SIR(), {"beta": 1.1, "gamma": 0.3}, {"beta": 1.66, "gamma": 0.44}
units = {"t": "days", "beta": "1/day", "gamma": "1/day"}


def model(operator, x, y=None, sigma=0.01):
    beta = numpyro.sample("beta", dist.LogNormal(0.0, 1.0))
    gamma = numpyro.sample("gamma", dist.LogNormal(-1.0, 1.0))
    u = jax.vmap(bilo.solution("u", operator, {"beta": beta, "gamma": gamma}))(x)
    numpyro.sample("y", dist.Normal(u[:, 1], sigma), obs=y)


def synthetic_data(seed):
    t, noise = np.arange(1.0, 15.0), 0.01 * np.random.default_rng(seed).normal(size=14)
    y = integrated(rate, truth, INITIAL, t)[:, 1] + noise
    return {"x": t[:, None], "y": y, "sigma": 0.01}


def reference():
    return RungeKutta(problem, rate, lambda theta: INITIAL, steps=560)

"""Elimination of a drug in three patients (one compartment; Gelman et al., Bayesian Data Analysis, 19).

    c' = exp(-t) - k c   for t in [0, 12] hours,   c(0) = 0,

with a rate k for each patient, from a population: k_i ~ LogNormal(mu, tau), mu ~ N(-1, 1), tau ~
HalfNormal(0.5). Truth k = 0.25, 0.4, 0.6; start 1; a column of y for each patient, noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Elimination(bilo.Problem):
    parameters, components = ("k",), 1
    domain = bilo.time_interval(0.0, 12.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) + theta["k"] * u(x) - jnp.exp(-x[0])

    def lift(self, x, raw, theta):
        return x[0] * raw


problem, start = Elimination(), {"k": 1.0}
truth = {"k1": 0.25, "k2": 0.4, "k3": 0.6}


def closed_form(x, theta):
    """Bateman's function; (exp(-k t) - exp(-t)) / (1 - k), also near k = 1."""
    z = (1 - theta["k"]) * x[0]
    small = jnp.abs(z) < 1e-5
    ratio = jnp.where(small, 1 + z / 2, jnp.expm1(z) / jnp.where(small, 1.0, z))
    return x[0] * jnp.exp(-x[0]) * ratio


def model(operator, x, y=None, sigma=0.02):
    mu = numpyro.sample("mu", dist.Normal(-1.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(0.5))
    for i in (1, 2, 3):
        k = numpyro.sample(f"k{i}", dist.LogNormal(mu, tau))
        u = bilo.solution(f"u{i}", operator, {"k": k})
        column = None if y is None else y[:, i - 1]
        numpyro.sample(f"y{i}", dist.Normal(jax.vmap(u)(x), sigma), obs=column)


def synthetic_data(seed):
    t = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0])[:, None]
    k = np.array([0.25, 0.4, 0.6])
    u = (np.exp(-k * t) - np.exp(-t)) / (1 - k)
    return {"x": t, "y": u + 0.02 * np.random.default_rng(seed).normal(size=(8, 3)), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""Newton's law of cooling with an unknown noise level (Boyce and DiPrima, section 2.3).

    u' = -k (u - A)   for t in [0, 60] min,   u(0) = 90 degrees,

a cup of coffee in a room of unknown temperature A, read every four minutes by a thermometer of unknown
precision. Truth k = 0.05 per min, A = 20, noise sd 1; start k = 0.1, A = 30; log k ~ N(-2.5, 1), A ~
N(25, 10^2), noise sd ~ HalfNormal(5).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Cooling(bilo.Problem):
    parameters, components = ("k", "A"), 1
    domain = bilo.time_interval(0.0, 60.0)
    points = domain.grid(61)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) + theta["k"] * (u(x) - theta["A"])

    def lift(self, x, raw, theta):
        return 90 + x[0] * raw


problem, start = Cooling(), {"k": 0.1, "A": 30.0}
truth = {"k": 0.05, "A": 20.0, "noise": 1.0}


def closed_form(x, theta):
    return theta["A"] + (90 - theta["A"]) * jnp.exp(-theta["k"] * x[0])


def model(operator, x, y=None, sigma=1.0):
    """Without sigma: the noise level is a latent site."""
    k = numpyro.sample("k", dist.LogNormal(-2.5, 1.0))
    A = numpyro.sample("A", dist.Normal(25.0, 10.0))
    noise = numpyro.sample("noise", dist.HalfNormal(5.0))
    u = bilo.solution("u", operator, {"k": k, "A": A})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), noise), obs=y)


def synthetic_data(seed):
    t = np.linspace(4.0, 60.0, 15)
    u = 20 + 70 * np.exp(-0.05 * t)
    return {"x": t[:, None], "y": u + np.random.default_rng(seed).normal(size=15), "sigma": 1.0}


def reference():
    return bilo.ClosedForm(problem, closed_form)

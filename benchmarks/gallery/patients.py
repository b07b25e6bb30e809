"""Six patients, few data: a hierarchy written without a funnel (Betancourt and Girolami, 2015).

    c' = exp(-t) - k c   for t in [0, 12] hours,   c(0) = 0,

as in hierarchy.py, with k_i = exp(mu + tau z_i), z_i ~ N(0, 1), mu ~ N(-1, 1), tau ~ HalfNormal(0.5).
The rates differ by little (truth 0.35 to 0.5), and the posterior of tau reaches 0. Start k = 1; a column
of three values for each patient, noise sd 0.04.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from hierarchy import Elimination, closed_form

import bilo_ppl as bilo

RATES = np.array([0.35, 0.38, 0.4, 0.42, 0.45, 0.5])

problem, start = Elimination(), {"k": 1.0}
truth = {f"k{i + 1}": rate for i, rate in enumerate(RATES)}


def model(operator, x, y=None, sigma=0.04):
    mu = numpyro.sample("mu", dist.Normal(-1.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(0.5))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([len(RATES)]).to_event(1))
    rates = jnp.exp(mu + tau * z)
    for i in range(len(RATES)):
        u = bilo.solution(f"u{i + 1}", operator, {"k": rates[i]})
        column = None if y is None else y[:, i]
        numpyro.sample(f"y{i + 1}", dist.Normal(jax.vmap(u)(x), sigma), obs=column)


def synthetic_data(seed):
    t = np.array([1.0, 3.0, 8.0])[:, None]
    u = (np.exp(-RATES * t) - np.exp(-t)) / (1 - RATES)
    y = u + 0.04 * np.random.default_rng(seed).normal(size=u.shape)
    return {"x": t, "y": y, "sigma": 0.04}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""A drug in blood and tissue (Gibaldi and Perrier, Pharmacokinetics, chapter 2: two compartments).

    c' = -(e + i) c + o d,   d' = i c - o d   for t in [0, 12] hours,   c(0) = 10, d(0) = 0,

with the rates of elimination e, into the tissue i, and out of it o, unknown, and the blood c alone seen.
Truth e = 0.3, i = 0.5, o = 0.4 per hour; start 0.2, 0.2, 0.2; the logarithms N(-1, 1); 12 samples with
noise sd 0.2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Body(bilo.Problem):
    parameters, components = ("e", "i", "o"), 2
    domain = bilo.interval(0.0, 12.0)
    points = domain.grid(61)

    def residual(self, u, x, theta):
        c, d = u(x)
        into, out = theta["i"] * c, theta["o"] * d
        return bilo.partial(u, 0)(x) - jnp.stack([out - into - theta["e"] * c, into - out])

    def lift(self, x, raw, theta):
        return jnp.array([10.0, 0.0]) + x[0] * raw


problem, start = Body(), {"e": 0.2, "i": 0.2, "o": 0.2}
truth = {"e": 0.3, "i": 0.5, "o": 0.4}


def closed_form(x, theta):
    e, i, o = theta["e"], theta["i"], theta["o"]
    half, t = (e + i + o) / 2, x[0]
    root = jnp.sqrt(half**2 - e * o)
    fast, slow = jnp.exp(-(half + root) * t), jnp.exp(-(half - root) * t)
    c = ((half + root - o) * fast - (half - root - o) * slow) / (2 * root)
    return 10 * jnp.stack([c, i * (slow - fast) / (2 * root)])


def model(operator, x, y=None, sigma=0.2):
    theta = {name: numpyro.sample(name, dist.LogNormal(-1.0, 1.0)) for name in "eio"}
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x)[:, 0], sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(13)[1:]
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))[:, 0]
    return {"x": x, "y": u + 0.2 * np.random.default_rng(seed).normal(size=12), "sigma": 0.2}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""Twenty coefficients of an initial value of the heat equation (Stuart, Acta Numerica, 2010).

    u_t = 0.01 u_xx   for x and t in [0, 1],   u = 0 at both ends,
    u(x, 0) = sum_j a_j sqrt(2) sin(j pi x) / (j pi),   j = 1, ..., 20: a Brownian bridge,

linear in a, so that the posterior is Gaussian, and as wide as the prior for large j. The truth is a draw
from the prior a_j ~ N(0, 1), the start its mean 0; 15 places at t = 0.1 and 1, noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

J = np.arange(1, 21)


def initial(x, theta):
    return theta["a"] @ (np.sqrt(2) * jnp.sin(J * jnp.pi * x[0]) / (J * jnp.pi))


class HeatInitial(bilo.Problem):
    parameters, components = ("a",), 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
    points = domain.grid(51, 31)

    def residual(self, u, x, theta):
        return bilo.partial(u, 1)(x) - 0.01 * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return initial(x, theta) + x[0] * (1 - x[0]) * x[1] * raw


problem, start = HeatInitial(), {"a": np.zeros(20)}
truth = {"a": np.random.default_rng(2010).normal(size=20)}


def closed_form(x, theta):
    return initial(x, {"a": theta["a"] * jnp.exp(-0.01 * (J * jnp.pi) ** 2 * x[1])})


def model(operator, x, y=None, sigma=0.02):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.arange(1, 16) / 16, [0.1, 1.0])
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=30), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

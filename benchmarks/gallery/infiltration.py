"""Water that seeps to a water table (Warrick, Soil Water Dynamics, chapter 4; conductivity of Gardner).

    (exp(b p) (p' + 1))' = 0   on [0, 1],   p(0) = 0,   exp(b p) (p' + 1) = q at 1,

for the pressure head p over the height, with b of the soil and the rate of infiltration q, in units of
the saturated conductivity, unknown. Truth b = 3, q = 0.2; start (1, 0.5); log b ~ N(0.5, 1), q uniform on
(0, 1); eight tensiometers with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Soil(bilo.Problem):
    parameters, components = ("b", "q"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def flux(self, u, theta):
        return lambda y: jnp.exp(theta["b"] * u(y)) * (bilo.partial(u, 0)(y) + 1)

    def residual(self, u, x, theta):
        return bilo.partial(self.flux(u, theta), 0)(x)

    def conditions(self, u, theta):
        return {"rain": jnp.reshape(self.flux(u, theta)(jnp.array([1.0])) - theta["q"], (1,))}

    def lift(self, x, raw, theta):
        return x[0] * raw


problem, start = Soil(), {"b": 1.0, "q": 0.5}
truth = {"b": 3.0, "q": 0.2}


def closed_form(x, theta):
    b, q = theta["b"], theta["q"]
    return jnp.log(q + (1 - q) * jnp.exp(-b * x[0])) / b


def model(operator, x, y=None, sigma=0.02):
    b = numpyro.sample("b", dist.LogNormal(0.5, 1.0))
    q = numpyro.sample("q", dist.Uniform(0.0, 1.0))
    u = bilo.solution("u", operator, {"b": b, "q": q})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(9)[1:]
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=8), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""The density of an Ornstein-Uhlenbeck process (Risken, The Fokker-Planck Equation, section 5.3).

    p_t = (k (x - m) p)_x + D p_xx   for x in [-4, 4], t in [0, 2],   p = N(1.5, 0.3^2) at t = 0,

and p = 0 at both ends, where it is 1e-6 at most at the truth k = 1, m = 0, D = 0.3. log k ~ N(0, 0.7),
m ~ N(0, 1), log D ~ N(-1, 0.7); start k = 0.5, m = -0.5, D = 0.5; 45 values with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


def normal(x, mean, variance):
    return jnp.exp(-((x - mean) ** 2) / (2 * variance)) / jnp.sqrt(2 * jnp.pi * variance)


class Drift(bilo.Problem):
    parameters, components = ("k", "m", "D"), 1
    domain = bilo.space_time(bilo.interval(-4.0, 4.0), 2.0)

    def residual(self, u, x, theta):
        k, m, D = (theta[name] for name in self.parameters)
        flux = k * u(x) + k * (x[0] - m) * bilo.partial(u, 0)(x)
        return bilo.partial(u, 1)(x) - flux - D * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return normal(x[0], 1.5, 0.09) + (1 - x[0] ** 2 / 16) * x[1] * raw


problem, start = Drift(), {"k": 0.5, "m": -0.5, "D": 0.5}
truth = {"k": 1.0, "m": 0.0, "D": 0.3}


def closed_form(x, theta):
    left = jnp.exp(-theta["k"] * x[1])
    variance = 0.09 * left**2 + theta["D"] / theta["k"] * (1 - left**2)
    return normal(x[0], theta["m"] + (1.5 - theta["m"]) * left, variance)


def model(operator, x, y=None, sigma=0.02):
    k = numpyro.sample("k", dist.LogNormal(0.0, 0.7))
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    D = numpyro.sample("D", dist.LogNormal(-1.0, 0.7))
    u = bilo.solution("u", operator, {"k": k, "m": m, "D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    grid = np.meshgrid(np.linspace(-2.0, 2.0, 15), [0.5, 1.0, 2.0], indexing="ij")
    x = np.stack(grid, axis=-1).reshape(-1, 2)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=45), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""A source at an unknown place, seen by one sensor in the middle: two modes (Tarantola).

    -u'' = 20 exp(-(x - z)^2 / (2 0.05^2))   on [0, 1],   u(0) = u(1) = 0,

is read five times at x = 1/2 with noise sd 0.05: z and 1 - z explain the data alike. Truth z = 0.3,
start 0.45, z uniform on [0, 1]. No path of high probability leads from one mode to the other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

WIDTH = 0.05


class TwoPlaces(bilo.Problem):
    parameters, components = ("z",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + 20 * jnp.exp(-((x[0] - theta["z"]) ** 2) / (2 * WIDTH**2))

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start, truth = TwoPlaces(), {"z": 0.45}, {"z": 0.3}
reference_grid = {"z": np.linspace(0.0, 1.0, 2001)}


def closed_form(x, theta):
    def twice_integrated(x):
        s = (x - theta["z"]) / WIDTH
        error = jnp.sqrt(jnp.pi / 2) * jax.scipy.special.erf(s / jnp.sqrt(2.0))
        return 20 * WIDTH**2 * (s * error + jnp.exp(-(s**2) / 2))

    left, right = twice_integrated(0.0), twice_integrated(1.0)
    return left * (1 - x[0]) + right * x[0] - twice_integrated(x[0])


def model(operator, x, y=None, sigma=0.05):
    z = numpyro.sample("z", dist.Uniform(0.0, 1.0))
    u = bilo.solution("u", operator, {"z": z})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = np.full((5, 1), 0.5)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.05 * np.random.default_rng(seed).normal(size=5), "sigma": 0.05}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""Poisson equation with an unknown diffusion coefficient D: the tutorial, with a closed form.

    D u'' = f   on [0, 1],   u(0) = u(1) = 0,   f = -pi^2 sin(pi x),

whose solution is u = sin(pi x) / D. The posterior under D ~ Gamma(2, 1) and Gaussian noise is a
one-dimensional integral.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

D_TRUE = 1.0
SIGMA = 0.2


class Poisson(bilo.Problem):
    parameters = ("D",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return theta["D"] * bilo.laplacian(u)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw

    def boundary(self, theta):
        return np.array([[0.0], [1.0]]), np.zeros(2)


problem = Poisson()
start = {"D": 2.0}


def model(operator, x, y=None, sigma=SIGMA):
    """Noisy values y (n,) of u at the points x (n, 1)."""
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def exact(x):
    """The solution at the truth."""
    return jnp.sin(jnp.pi * x[0]) / D_TRUE


def synthetic_data(seed):
    """Eleven equidistant points, ends included, and noisy values of the solution there."""
    x = problem.domain.grid(11)
    noise = np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": np.sin(np.pi * x[:, 0]) / D_TRUE + SIGMA * noise, "sigma": SIGMA}


truth = {"D": D_TRUE}


def reference():
    """Finite differences; linear, so one Newton step from anywhere solves it."""
    return bilo.FiniteDifferences(
        problem, nodes=401, theta=truth, guess=lambda x: jnp.sin(jnp.pi * x[0])
    )


reference_grid = {"D": np.linspace(0.4, 2.5, 2101)}

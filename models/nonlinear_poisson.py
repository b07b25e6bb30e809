"""Nonlinear Poisson equation with an unknown reaction rate k.

    0.01 u'' + k tanh(u) = f   on [-0.7, 0.7],
    u(-0.7) = sin(-4.2)^3,  u(0.7) = sin(4.2)^3,

with f such that u = sin(6x)^3 solves it for k = 0.7. The reaction is not coercive: there are several
solutions, and the branch through sin(6x)^3 folds near k = 0.506. The inverse problem, six noisy
values of u and log k ~ N(0, 1), comes from the B-PINN literature (Yang, Meng, Karniadakis, 2021).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

DIFFUSION = 0.01
K_TRUE = 0.7
SIGMA = 0.1


def exact(x):
    """The solution at k = 0.7."""
    return jnp.sin(6 * x[0]) ** 3


def forcing(x):
    """Right-hand side f, the same for every k."""
    s, c = jnp.sin(6 * x[0]), jnp.cos(6 * x[0])
    return DIFFUSION * (216 * s * c**2 - 108 * s**3) + K_TRUE * jnp.tanh(s**3)


class NonlinearPoisson(bilo.Problem):
    parameters = ("k",)
    components = 1
    domain = bilo.interval(-0.7, 0.7)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return DIFFUSION * bilo.laplacian(u)(x) + theta["k"] * jnp.tanh(u(x)) - forcing(x)

    def lift(self, x, raw, theta):
        ends = math.sin(6 * 0.7) ** 3 * x[0] / 0.7  # the boundary values are odd in x
        return ends + (x[0] + 0.7) * (x[0] - 0.7) * raw

    def boundary(self, theta):
        ends = np.array([[-0.7], [0.7]])
        return ends, np.sin(6 * ends[:, 0]) ** 3


problem = NonlinearPoisson()
start = {"k": 0.6}


def model(operator, x, y=None, sigma=SIGMA):
    """Noisy values y (n,) of u at the points x (n, 1)."""
    k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    """Six interior points of a uniform grid of eight, and noisy values of the solution there."""
    x = problem.domain.interior_grid(8)
    noise = np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": np.sin(6 * x[:, 0]) ** 3 + SIGMA * noise, "sigma": SIGMA}


truth = {"k": K_TRUE}


def reference():
    """Finite differences on the branch through sin(6x)^3."""
    return bilo.FiniteDifferences(problem, nodes=401, theta=truth, guess=exact)


reference_grid = {"k": np.linspace(0.52, 1.1, 1161)}

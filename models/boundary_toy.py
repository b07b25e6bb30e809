"""A Poisson equation with unknown boundary values: the toy of the Broyden-hypergradient literature.

    u'' = 2   on [0, 1],   u(0) = theta0,   u(1) = theta1,

to be fitted to x^2, of which the optimum is (0, 1); start (1, 2). The solution is
x^2 + (theta1 - theta0 - 1) x + theta0, linear in theta, so that the posterior is Gaussian.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

SIGMA = 0.01


class BoundaryToy(bilo.Problem):
    parameters = ("theta0", "theta1")
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(64)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - 2.0

    def lift(self, x, raw, theta):
        ends = theta["theta0"] * (1 - x[0]) + theta["theta1"] * x[0]
        return ends + x[0] * (1 - x[0]) * raw

    def boundary(self, theta):
        return np.array([[0.0], [1.0]]), jnp.stack([theta["theta0"], theta["theta1"]])


problem = BoundaryToy()
start = {"theta0": 1.0, "theta1": 2.0}


def closed_form(x, theta):
    """The solution at a point."""
    a, b = theta["theta0"], theta["theta1"]
    return x[0] ** 2 + (b - a - 1) * x[0] + a


def exact(x):
    """The solution at the truth."""
    return x[0] ** 2


def model(operator, x, y=None, sigma=SIGMA):
    """Noisy values y (n,) of u at the points x (n, 1); the prior is nearly flat."""
    theta = {name: numpyro.sample(name, dist.Normal(0.0, 10.0)) for name in problem.parameters}
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed, noise=SIGMA):
    """Noisy values of x^2 at 64 equidistant points, ends included."""
    x = problem.domain.grid(64)
    y = x[:, 0] ** 2 + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


truth = {"theta0": 0.0, "theta1": 1.0}


def reference(nodes=65):
    """Finite differences, exact for a quadratic."""
    return bilo.FiniteDifferences(problem, nodes, theta=start)


reference_grid = {"theta0": np.linspace(-0.025, 0.025, 81), "theta1": np.linspace(0.975, 1.025, 81)}

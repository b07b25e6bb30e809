"""A source at an unknown place (Poisson's equation in a square; Strauss, PDEs, chapter 6).

    -u_xx - u_yy = 10 exp(-|(x, y) - (p, q)|^2 / 0.02)   on [0, 1]^2,   u = 0 on the boundary.

Truth p = 0.35, q = 0.6; start (0.6, 0.35); p and q uniform on [0, 1]; 25 sensors with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Source(bilo.Problem):
    parameters, components = ("p", "q"), 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        distance = (x[0] - theta["p"]) ** 2 + (x[1] - theta["q"]) ** 2
        return bilo.laplacian(u)(x) + 10 * jnp.exp(-distance / 0.02)

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * x[1] * (1 - x[1]) * raw


problem, start, truth = Source(), {"p": 0.6, "q": 0.35}, {"p": 0.35, "q": 0.6}


def closed_form(x, theta):
    """The double sine series; its coefficients by Gauss's rule."""
    n = np.arange(1, 31)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    nodes = (nodes + 1) / 2
    project = np.sin(np.pi * np.outer(n, nodes)) * weights  # 2 times the integral over [0, 1]
    first = project @ jnp.exp(-((nodes - theta["p"]) ** 2) / 0.02) * jnp.sin(n * np.pi * x[0])
    second = project @ jnp.exp(-((nodes - theta["q"]) ** 2) / 0.02) * jnp.sin(n * np.pi * x[1])
    return 10 * first @ (1 / (np.pi**2 * (n[:, None] ** 2 + n**2))) @ second


def model(operator, x, y=None, sigma=0.02):
    theta = {name: numpyro.sample(name, dist.Uniform(0.0, 1.0)) for name in ("p", "q")}
    u = bilo.solution("u", operator, theta)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(7, 7)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.02 * np.random.default_rng(seed).normal(size=25), "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

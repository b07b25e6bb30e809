"""Diffusion and decay in a cube: three dimensions (eigenfunctions of the Laplacian, any textbook).

    -k (u_xx + u_yy + u_zz) + c u = 30 s(1, 1, 1) + 60 s(2, 1, 1)   on [0, 1]^3,   u = 0 around it,

s(a, b, c) = sin(a pi x) sin(b pi y) sin(c pi z), with k ~ LogNormal(0, 0.5) and c ~ LogNormal(2, 1).
Truth k = 1, c = 20, start 1 and 10; 125 values with noise sd 0.02.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

MODES = ((30.0, (1, 1, 1)), (60.0, (2, 1, 1)))


def waves(x, numbers):
    return jnp.prod(jnp.sin(jnp.asarray(numbers) * jnp.pi * x))


class Cube(bilo.Problem):
    parameters, components = ("k", "c"), 1
    domain = bilo.Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def residual(self, u, x, theta):
        source = sum(amplitude * waves(x, numbers) for amplitude, numbers in MODES)
        return theta["k"] * bilo.laplacian(u)(x) - theta["c"] * u(x) + source

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw


problem, start, truth = Cube(), {"k": 1.0, "c": 10.0}, {"k": 1.0, "c": 20.0}
reference_grid = {"k": np.linspace(0.7, 1.3, 241), "c": np.linspace(5.0, 35.0, 241)}


def closed_form(x, theta):
    total = 0.0
    for amplitude, numbers in MODES:
        eigenvalue = np.pi**2 * sum(n**2 for n in numbers)
        total += amplitude * waves(x, numbers) / (theta["k"] * eigenvalue + theta["c"])
    return total


def model(operator, x, y=None, sigma=0.02):
    k = numpyro.sample("k", dist.LogNormal(0.0, 0.5))
    c = numpyro.sample("c", dist.LogNormal(2.0, 1.0))
    u = bilo.solution("u", operator, {"k": k, "c": c})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(7, 7, 7)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    noise = 0.02 * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": u + noise, "sigma": 0.02}


def reference():
    return bilo.ClosedForm(problem, closed_form)

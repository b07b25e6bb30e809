"""Five coefficients of a source in Poisson's equation (Kaipio and Somersalo, Inverse Problems).

    -u'' = sum_j b_j sin(j pi x)   on [0, 1],   u(0) = u(1) = 0,

whose solution is linear in b, so that the posterior is Gaussian. Truth b = (3, -2, 1, 2, -1), start
(1, 1, 1, 1, 1), b_j ~ N(0, 5^2); 20 values with noise sd 0.01.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

J = np.arange(1, 6)


class PoissonSource(bilo.Problem):
    parameters, components = ("b",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) + theta["b"] @ jnp.sin(J * jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


problem, start = PoissonSource(), {"b": np.ones(5)}
truth = {"b": np.array([3.0, -2.0, 1.0, 2.0, -1.0])}


def closed_form(x, theta):
    return (theta["b"] / (J * jnp.pi) ** 2) @ jnp.sin(J * jnp.pi * x[0])


def model(operator, x, y=None, sigma=0.01):
    b = numpyro.sample("b", dist.Normal(0.0, 5.0).expand([5]).to_event(1))
    u = bilo.solution("u", operator, {"b": b})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.interior_grid(22)
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    return {"x": x, "y": u + 0.01 * np.random.default_rng(seed).normal(size=20), "sigma": 0.01}


def reference():
    return bilo.ClosedForm(problem, closed_form)

"""Poisson equation with an unknown diffusion coefficient D(x), a function.

    (D u')' = f   on [0, 1],   u(0) = u(1) = 0,   f = -pi^2 sin(pi x),

with D(0) = D(1) = 1 known. The truth is a hat, 1 + x/2 up to x = 1/2 and 3/2 - x/2 after it; the
start is D = 1. `model` is a regularised least-squares problem for a small network: mean squared
misfit plus 1e-3 times the mean of D'^2. `bayesian_model` has instead a log-Gaussian random field with
10 Karhunen-Loeve coefficients. The local operator sees D(x) as an auxiliary input.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from bilo_ppl.fields import KarhunenLoeve, NetworkField, zero_output
from bilo_ppl.ppl.unknowns import squared_penalty, unknown_function, weight_in_nats

SIGMA = 0.01
REGULARISATION = 1e-3
ROUGHNESS_POINTS = 401  # so close that no kink of the network between them goes unpenalised
MODES = 10


class VariablePoisson(bilo.Problem):
    parameters = ("D",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        flux = bilo.divergence(lambda y: theta["D"](y) * bilo.grad(u)(y))(x)
        return flux + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw

    def boundary(self, theta):
        return np.array([[0.0], [1.0]]), np.zeros(2)


def _with_ends(x, raw):
    return 1 + x[0] * (1 - x[0]) * raw


def hat(x):
    """The true D."""
    return 1.25 - 0.5 * jnp.abs(x[0] - 0.5)


problem = VariablePoisson()
unknown = NetworkField(problem.domain, width=64, depth=2, lift=_with_ends, key=jax.random.key(0))
# Without output the network leaves the first guess, D = 1.
first_guess = zero_output(unknown)
start = {"D": first_guess}


def model(operator, x, y=None, sigma=SIGMA, regularisation=REGULARISATION):
    """Noisy values y (n,) of u at the points x (n, 1); D is a network with a roughness penalty."""
    D = unknown_function("D", start["D"])
    u = bilo.solution("u", operator, {"D": D})
    weight = weight_in_nats(regularisation, sigma, len(x))
    squared_penalty("roughness", weight, bilo.grad(D), problem.domain.grid(ROUGHNESS_POINTS))
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def bayesian_model(operator, x, y=None, sigma=SIGMA):
    """The same data; log D is a Gaussian random field (D is then not fixed at the ends)."""
    coefficients = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([MODES]).to_event(1))
    u = bilo.solution("u", operator, {"D": KarhunenLoeve(coefficients)})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def exact(x):
    """The solution at the truth: D u' = pi cos(pi x), the constant of integration being 0.

    u is symmetric about 1/2; up to there it is the integral of pi cos(pi s) / (1 + s/2), by Gauss's
    rule.
    """
    nodes, weights = np.polynomial.legendre.leggauss(20)
    upper = jnp.minimum(x[0], 1 - x[0])
    s = upper * (1 + nodes) / 2
    return upper / 2 * (weights @ (jnp.pi * jnp.cos(jnp.pi * s) / (1 + s / 2)))


def synthetic_data(seed, noise=SIGMA):
    """Noisy values of the solution at 51 equidistant points, ends included."""
    x = problem.domain.grid(51)
    y = np.asarray(jax.vmap(exact)(x))
    y = y + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


truth = {"D": hat}


def reference(nodes=401):
    """Conservative finite differences: an error of u near 4e-6, also for the hat."""
    return bilo.FiniteDifferences(problem, nodes, theta=start)

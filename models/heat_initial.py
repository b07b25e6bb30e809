"""Heat equation with an unknown initial value f(x), a function.

    u_t = 0.01 u_xx   for x and t in [0, 1],   u(0, t) = u(1, t) = 0,   u(x, 0) = f(x),

from noisy values at t = 1 only. The truth is a hat, 2x up to x = 1/2 and 2 - 2x after it; the start is
sin(pi x). f = softplus(N(x)) x (1 - x) with a small network N is positive and vanishes at the ends;
the objective is the mean squared misfit plus 1e-2 times the mean of f'^2. `bayesian_model` has instead a
Gaussian random field about the start, with 10 Karhunen-Loeve coefficients. The local operator sees
f(x) as an auxiliary input.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from bilo_ppl.fields import KarhunenLoeve, NetworkField, zero_output
from bilo_ppl.ppl.unknowns import squared_penalty, unknown_function, weight_in_nats

DIFFUSION = 0.01
SIGMA = 0.001
REGULARISATION = 1e-2
ROUGHNESS_POINTS = 401  # so close that no kink of the network between them goes unpenalised
MODES = 10
SPACE = bilo.interval(0.0, 1.0)


class HeatInitial(bilo.Problem):
    """With ``nx`` times ``nt`` collocation points, less two corners.

    There u_t = 0 by the boundary values, and the residual, -0.01 f'', depends on no weight.
    """

    nx: int = eqx.field(static=True, default=51)
    nt: int = eqx.field(static=True, default=51)

    parameters = ("f",)
    components = 1
    domain = bilo.space_time(SPACE, 1.0)

    @property
    def points(self):
        grid = self.domain.grid(self.nx, self.nt)
        x, t = grid.T
        return bilo.masked(grid, (t > 0) | ((x > 0) & (x < 1)))

    def residual(self, u, x, theta):
        return bilo.partial(u, 1)(x) - DIFFUSION * bilo.partial(u, 0, 0)(x)

    def lift(self, x, raw, theta):
        return theta["f"](x) + x[0] * (1 - x[0]) * x[1] * raw

    def boundary(self, theta):
        ends = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        return ends, np.zeros(4)


def _positive(x, raw):
    """softplus(N) x (1 - x), with N measured from where that is sin(pi x)."""
    near = jnp.where(x[0] < 0.5, x[0], 1 - x[0])  # with all derivatives, also at 1/2
    ratio = jnp.pi * jnp.sinc(near) / (1 - near)  # sin(pi x) / (x (1 - x)), also at the ends
    return jax.nn.softplus(raw + jnp.log(jnp.expm1(ratio))) * x[0] * (1 - x[0])


def hat(x):
    """The true initial value."""
    return 1 - 2 * jnp.abs(x[0] - 0.5)


problem = HeatInitial()
unknown = NetworkField(SPACE, width=64, depth=2, lift=_positive, key=jax.random.key(0))
# Without output the network leaves the first guess, sin(pi x).
first_guess = zero_output(unknown)
start = {"f": first_guess}


def model(operator, x, y=None, sigma=SIGMA, regularisation=REGULARISATION):
    """Noisy values y (n,) of u at the points (x, t), of shape (n, 2)."""
    f = unknown_function("f", start["f"])
    u = bilo.solution("u", operator, {"f": f})
    weight = weight_in_nats(regularisation, sigma, len(x))
    squared_penalty("roughness", weight, bilo.grad(f), SPACE.grid(ROUGHNESS_POINTS))
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


class FirstGuessPlus(eqx.Module):
    """sin(pi x) and a Gaussian random field that vanishes at the ends."""

    coefficients: Any

    def __call__(self, x):
        x = jnp.reshape(x[0], ())
        field = KarhunenLoeve(self.coefficients, transform=lambda v: v, ends="dirichlet")
        return jnp.sin(jnp.pi * x) + field(x)


def bayesian_model(operator, x, y=None, sigma=SIGMA):
    """The same data; linear in the coefficients, so that the posterior is Gaussian."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([MODES]).to_event(1))
    u = bilo.solution("u", operator, {"f": FirstGuessPlus(a)})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def exact(x):
    """The solution at the truth: the sine series of the hat."""
    k = np.arange(1, 400, 2)
    amplitudes = 8 / (np.pi * k) ** 2 * np.sin(k * np.pi / 2)
    modes = jnp.exp(-DIFFUSION * (k * np.pi) ** 2 * x[1]) * jnp.sin(k * np.pi * x[0])
    return jnp.sum(amplitudes * modes)


def synthetic_data(seed, noise=SIGMA):
    """Noisy values at 51 equidistant points at t = 1."""
    x = np.stack([np.linspace(0, 1, 51), np.ones(51)], axis=1)
    y = np.asarray(jax.vmap(exact)(x)) + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


truth = {"f": hat}


def reference(nodes=201, times=51):
    """The method of lines; with 101 nodes the posterior of `bayesian_model` is a tenth of an sd off."""
    return bilo.MethodOfLines(problem, nodes, times, theta=start)

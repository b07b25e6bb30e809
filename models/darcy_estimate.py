"""Darcy flow in the unit square, the permeability A(x, y) an unknown function with jumps.

    -div(A grad u) = 1   on [0, 1]^2,   u = 0 on the boundary,

A = 12 where a Gaussian random field phi is positive, and 3 elsewhere; its covariance is
exp(-|x - y|^2 / (2 l^2)) with l = 0.2. The unknown is 3 + 9 sigmoid(N) with a small network N of random
Fourier features. The objective is the mean squared misfit at 51 x 51 points plus 1e-9 times the total
variation of A. The first guess is A = 7.5. `darcy` has the same equation with coefficients as unknowns,
and their posterior.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from bilo_ppl.fields import NetworkField, zero_output
from bilo_ppl.ppl.unknowns import penalty, unknown_function, weight_in_nats

SOURCE = 1.0
SIGMA = 1e-4
REGULARISATION = 1e-9
ROUGHNESS_POINTS = 65  # along each axis
LENGTH = 0.2
WAVES = 200


class DarcyEstimate(bilo.Problem):
    """With the collocation points of an n x n grid, less its corners: no u meets the equation there."""

    n: int = eqx.field(static=True, default=51)

    parameters = ("A",)
    components = 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    positive = ("A",)

    @property
    def points(self):
        return bilo.without_corners(self.domain, self.domain.grid(self.n, self.n))

    def residual(self, u, x, theta):
        return bilo.divergence(lambda y: theta["A"](y) * bilo.grad(u)(y))(x) + SOURCE

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw

    def boundary(self, theta):
        edges = bilo.edge_points(self.domain)
        return edges, np.zeros(len(edges))


def _between(x, raw):
    """The permeability from the network's output."""
    return 3 + 9 * jax.nn.sigmoid(raw)


class Waves(eqx.Module):
    """A random field of sd 1: a sum of waves, whose numbers are arguments of what is compiled."""

    frequencies: np.ndarray
    phases: np.ndarray

    def __call__(self, x):
        waves = jnp.cos(jnp.asarray(self.frequencies) @ x + jnp.asarray(self.phases))
        return jnp.sqrt(2 / len(waves)) * jnp.sum(waves)


class TwoRocks(eqx.Module):
    """12 where a field is positive, else 3."""

    phi: Waves

    def __call__(self, x):
        return jnp.where(self.phi(x) > 0, 12.0, 3.0)


def field_of_waves(seed):
    """A draw of phi, a function of a point ``(2,)``."""
    rng = np.random.default_rng(seed)
    frequencies = rng.normal(size=(WAVES, 2)) / LENGTH
    return Waves(frequencies, rng.uniform(0, 2 * np.pi, size=WAVES))


# The true A.
two_rocks = TwoRocks(field_of_waves(0))


problem = DarcyEstimate()
unknown = NetworkField(
    problem.domain, width=64, depth=2, fourier=32, lift=_between, key=jax.random.key(0)
)
# Without output the network leaves the first guess, A = 7.5.
first_guess = zero_output(unknown)
start = {"A": first_guess}


def model(operator, x, y=None, sigma=SIGMA, regularisation=REGULARISATION):
    """Noisy values y (n,) of u at the points x (n, 2)."""
    A = unknown_function("A", start["A"])
    u = bilo.solution("u", operator, {"A": A})
    roughness = bilo.total_variation(A, problem.domain.grid(ROUGHNESS_POINTS, ROUGHNESS_POINTS))
    penalty("roughness", weight_in_nats(regularisation, sigma, len(x)), roughness)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed, noise=SIGMA):
    """Noisy values at 51 x 51 points, the boundary included."""
    x = problem.domain.grid(51, 51)
    y = np.asarray(jax.vmap(_true_solution())(x))
    y = y + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


truth = {"A": two_rocks}


def scores(theta):
    """Which part of the square is told right, as the rock of 12 where A is above 7.5, and by what part of
    its size the numerical solution at A differs from the true one."""
    points = jnp.asarray(problem.domain.grid(101, 101))
    found, wanted = (jax.vmap(A)(points) > 7.5 for A in (theta["A"], two_rocks))
    u, true = (jax.vmap(f)(points) for f in (reference().solve(theta, ())[0], _true_solution()))
    off = jnp.linalg.norm(u - true) / jnp.linalg.norm(true)
    return {"accuracy": float(jnp.mean(found == wanted)), "misfit of u": float(off)}


def reference(cells=64):
    """Finite volumes; at jumps their error is of first order in the width of a cell."""
    return bilo.FiniteVolumes(
        problem,
        (cells, cells),
        theta=start,
        coefficient=lambda theta: theta["A"],
        source=lambda theta: SOURCE,
    )


@functools.cache
def _true_solution():
    return reference(256).solve(truth, ())[0]

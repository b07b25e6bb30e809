"""The problems of calibration.py: a model, where its data are, an exact operator, and sizes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from models import gene_expression, nonlinear_poisson, poisson

__all__ = ["BROKEN", "CASES", "Case"]

BROKEN = 0.8
"""What the broken model takes for the noise, in parts of the true one."""

BRANCH = (0.55, 1.0)
"""Values of k in problem 1: on the branch that exact(x) lies on, and away from its fold at 0.506."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What is calibrated."""

    problem: Any
    start: dict[str, float]
    model: Callable
    """``(operator, x, y=None, sigma=...)``."""
    generator: Callable
    """The model that data come from, whatever the noise ``sigma`` that the other one believes in."""
    points: Any
    sigma: float
    exact: Callable[[], Any]
    """Makes the operator of data, and of log-likelihoods."""
    tolerance: float
    kernel: Callable = bilo.BiLONUTS
    """Makes the kernel of the model."""
    prior_draws: int = 400
    thin: int = 12

    def on(self, count: int) -> Any:
        """The problem with ``count`` equidistant collocation points, an even number spares the middle."""
        kind = type(self.problem)
        return type(kind.__name__, (kind,), {"points": self.problem.domain.grid(count)})()


def branch_model(operator, x, y=None, sigma=nonlinear_poisson.SIGMA):
    """The model of problem 1, its prior cut to `BRANCH`: elsewhere are several solutions, or none."""
    low, high = (jnp.log(end) for end in BRANCH)
    log_k = dist.TruncatedNormal(0.0, 1.0, low=low, high=high)
    k = numpyro.sample("k", dist.TransformedDistribution(log_k, dist.transforms.ExpTransform()))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def with_true_noise(model: Callable) -> Callable:
    """The model that data come from: it takes no ``sigma`` of anyone's."""

    @functools.wraps(model)
    def generator(operator, x, sigma):
        return model(operator, x)

    return generator


SIDE = 12
"""Nodes of the interpolation on either side of the gene."""
MOST_PARTICLES = 2**15


def particle_nodes() -> np.ndarray:
    """Chebyshev's points on both sides of the gene, (2 SIDE, 1): none at an end."""
    half = (1 - np.cos(np.pi * (np.arange(SIDE) + 0.5) / SIDE)) / 4
    return np.concatenate([half, half + 0.5])[:, None]


def particle_model(operator, x, y=None, sigma=1.0):
    """The model of gene expression with data of one length, whatever the number of particles.

    The sum of log u over the particles is one of log x (1 - x), which the unknowns do not change, and one
    of a function that is smooth on either side of the gene: a weighted sum of its values at the nodes x,
    with weights y (2 SIDE,) that interpolation gives. The likelihood has the power 1 / sigma^2.
    """
    lam = numpyro.sample("lam", dist.Gamma(1.0, 0.004))
    mu = numpyro.sample("mu", dist.Uniform(0.0, 30.0))
    u = bilo.solution("u", operator, {"lam": lam, "mu": mu})
    if y is not None:
        nodes, weights = gene_expression.simpson()
        integral = weights @ jax.vmap(u)(jnp.asarray(nodes))
        smooth = jnp.log(jax.vmap(u)(x) / (x[:, 0] * (1 - x[:, 0])))
        fit = y @ smooth - gene_expression.SNAPSHOTS * integral
        numpyro.factor("particles", fit / sigma**2)


def particles(operator, x, sigma=1.0):
    """Unknowns, and particles in all snapshots as weights at the nodes: the generator of data."""
    lam = numpyro.sample("lam", dist.Gamma(1.0, 0.004))
    mu = numpyro.sample("mu", dist.Uniform(0.0, 30.0))
    theta = {"lam": lam, "mu": mu}
    mean = gene_expression.SNAPSHOTS * gene_expression.total(theta)
    number = numpyro.sample("number", dist.Poisson(mean))
    key: Any = numpyro.prng_key()
    keys = jax.random.split(key)
    root = jnp.sqrt(mu)
    levels = jax.random.uniform(keys[0], (MOST_PARTICLES,))
    # Symmetric about the gene, by the inverse of the distribution function on the left.
    place = jnp.arccosh(1 + levels * (jnp.cosh(root / 2) - 1)) / root
    place = jnp.where(jax.random.bernoulli(keys[1], shape=place.shape), place, 1 - place)
    there = jnp.arange(MOST_PARTICLES) < number
    numpyro.deterministic("y", jnp.where(there[:, None], interpolation(place), 0.0).sum(axis=0))


def interpolation(place):
    """Weights of the values at the nodes in those at places (n,), Lagrange's: (n, 2 SIDE)."""
    nodes = particle_nodes()[:SIDE, 0]
    barycentric = (-1.0) ** np.arange(SIDE) * np.sin(np.pi * (np.arange(SIDE) + 0.5) / SIDE)
    right = place > 0.5
    terms = barycentric[None] / ((place - 0.5 * right)[:, None] - nodes[None])
    weights = terms / terms.sum(axis=1, keepdims=True)
    sides = [jnp.where(on[:, None], weights, 0.0) for on in (~right, right)]
    return jnp.concatenate(sides, axis=1)


CASES = {
    "poisson": Case(
        poisson.problem,
        poisson.start,
        poisson.model,
        with_true_noise(poisson.model),
        poisson.problem.domain.grid(11),
        poisson.SIGMA,
        lambda: bilo.ClosedForm(
            poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"]
        ),
        tolerance=1e-6,
    ),
    "nonlinear_poisson": Case(
        nonlinear_poisson.problem,
        nonlinear_poisson.start,
        branch_model,
        with_true_noise(branch_model),
        nonlinear_poisson.problem.domain.interior_grid(8),
        nonlinear_poisson.SIGMA,
        nonlinear_poisson.reference,
        tolerance=1e-6,
    ),
    "gene_expression": Case(
        gene_expression.problem,
        gene_expression.start,
        particle_model,
        particles,
        particle_nodes(),
        1.0,
        lambda: bilo.ClosedForm(
            gene_expression.problem,
            lambda x, theta: gene_expression.closed_form(x[None], theta)[0],
        ),
        tolerance=1e-5,
        # The unknowns are correlated, and NumPyro would start at a lam of 1.
        kernel=functools.partial(
            bilo.BiLONUTS,
            dense_mass=True,
            init_strategy=bilo.init_near(gene_expression.start),
        ),
        thin=24,
    ),
}

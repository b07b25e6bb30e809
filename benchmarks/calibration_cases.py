"""The problems of calibration.py: a model, where its data are, an exact operator, and sizes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from models import nonlinear_poisson, poisson

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
    points: Any
    sigma: float
    exact: Callable[[], Any]
    """Makes the operator of data, and of log-likelihoods."""
    tolerance: float
    prior_draws: int = 400
    thin: int = 12


def branch_model(operator, x, y=None, sigma=nonlinear_poisson.SIGMA):
    """The model of problem 1, its prior cut to `BRANCH`: elsewhere are several solutions, or none."""
    low, high = (jnp.log(end) for end in BRANCH)
    log_k = dist.TruncatedNormal(0.0, 1.0, low=low, high=high)
    k = numpyro.sample("k", dist.TransformedDistribution(log_k, dist.transforms.ExpTransform()))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


CASES = {
    "poisson": Case(
        poisson.problem,
        poisson.start,
        poisson.model,
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
        nonlinear_poisson.problem.domain.interior_grid(8),
        nonlinear_poisson.SIGMA,
        nonlinear_poisson.reference,
        tolerance=1e-6,
    ),
}


def with_true_noise(model: Callable) -> Callable:
    """The model that data come from: it takes no ``sigma`` of anyone's."""

    @functools.wraps(model)
    def generator(operator, x, sigma):
        return model(operator, x)

    return generator

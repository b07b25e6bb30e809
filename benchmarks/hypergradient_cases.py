"""Problems, thetas and data of the hypergradient benchmark."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bilo_ppl as bilo
from bilo_ppl.fields import KarhunenLoeve, NetworkField
from models import nonlinear_poisson, poisson, variable_poisson

__all__ = ["Case", "field_cases", "scalar_cases"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem, where it is pretrained, where it is differentiated, and noisy values of u."""

    name: str
    problem: bilo.Problem
    start: dict[str, Any]
    thetas: list[dict[str, Any]]
    truth: dict[str, Any]
    points: Any
    sigma: float
    reference: Callable[[int], bilo.FiniteDifferences]
    """The numerical operator with a number of nodes."""

    def data(self, reference: bilo.FiniteDifferences) -> jax.Array:
        """Noisy values of the reference solution at the true theta."""
        field, _, _ = reference.solve(self.truth, ())
        noise = np.random.default_rng(0).normal(size=len(self.points))
        return jax.vmap(field)(jnp.asarray(self.points)) + self.sigma * noise


def scalar_cases() -> list[Case]:
    """Problems with one number for theta."""
    tutorial = Case(
        name="poisson",
        problem=poisson.problem,
        start=poisson.start,
        thetas=[{"D": jnp.asarray(D)} for D in (1.2, 1.5, 2.5, 3.0)],
        truth=poisson.truth,
        points=poisson.problem.domain.grid(11),
        sigma=poisson.SIGMA,
        reference=lambda nodes: bilo.FiniteDifferences(poisson.problem, nodes, theta=poisson.start),
    )
    case = nonlinear_poisson
    reaction = Case(
        name="nonlinear_poisson",
        problem=case.problem,
        start=case.start,
        thetas=[{"k": jnp.asarray(k)} for k in (0.62, 0.66, 0.74, 0.78)],
        truth=case.truth,
        points=case.problem.domain.interior_grid(8),
        sigma=case.SIGMA,
        reference=lambda nodes: bilo.FiniteDifferences(
            case.problem, nodes, theta=case.truth, guess=case.exact
        ),
    )
    return [tutorial, reaction]


def field_cases() -> list[Case]:
    """The diffusion coefficient as an expansion, and as a small network."""
    problem = variable_poisson.problem
    random = np.random.default_rng(1).normal(size=(5, 10))
    expansions = [{"D": KarhunenLoeve(jnp.asarray(a))} for a in random]
    shape = NetworkField(
        problem.domain, key=jax.random.key(0), lift=_positive, width=16, dtype=jnp.float64
    )
    networks = [{"D": _network(shape, seed)} for seed in range(1, 6)]
    return [
        _field_case("expansion", problem, {"D": KarhunenLoeve(jnp.zeros(10))}, expansions),
        _field_case("network", problem, {"D": jax.tree.map(_zero, shape)}, networks),
    ]


def _positive(x, raw):
    return jnp.exp(raw)


def _zero(leaf):
    return 0 * leaf if eqx.is_inexact_array(leaf) else leaf


def _network(shape, seed):
    """Glorot weights, those of the first layer doubled: D varies between about 1/2 and 2."""
    field = NetworkField(
        shape.domain, key=jax.random.key(seed), lift=shape.lift, width=16, dtype=jnp.float64
    )
    return eqx.tree_at(lambda f: f.network.layers[0].weight, field, replace_fn=lambda w: 2 * w)


def _field_case(name, problem, start, thetas) -> Case:
    truth, *others = thetas
    return Case(
        name=name,
        problem=problem,
        start=start,
        thetas=others,
        truth=truth,
        points=problem.domain.grid(51),
        sigma=0.01,
        reference=lambda nodes: bilo.FiniteDifferences(problem, nodes, theta=start),
    )

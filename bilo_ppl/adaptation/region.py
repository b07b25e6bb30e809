"""Where the posterior is, to begin with: a point estimate, and a Gaussian about it.

A chain that starts at the theta of pretraining, with an operator that knows that theta only, may be
flung anywhere. A descent does not leap: every step is solved from the weights of the last accepted
point, and where the operator cannot follow, it is settled at the best point so far and goes on.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from bilo_ppl._types import Key
from bilo_ppl.adaptation.model_sites import ModelSites
from bilo_ppl.estimate import Estimate, find_map, gauss_newton, laplace
from bilo_ppl.estimate.accuracy import gauss_newton_covariance
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.experiments import first_of, first_theta

__all__ = ["Region", "find_region", "point_estimate", "scouting", "shown"]

DESCENT_STEPS = 200
"""Most steps of a descent before the operator is settled anew."""

SETTLINGS = 6
"""Most descents, each from where the one before could not go on."""

GAIN = 0.1
"""A descent that lowers U by less, in nats, is the last."""

FARTHEST = 2.0
"""Standard deviations beyond which no draw goes: a PDE need not have a solution in far tails."""

# One object: another one would compile everything again.
_GAUSS_NEWTON = gauss_newton()

FEW = 100
"""Unknowns up to which the Gauss-Newton Hessian is looked at."""

UNKNOWN_SD = 0.1
"""Standard deviation, in unconstrained space, of a region about which nothing is known."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A Gaussian in the flat unconstrained space of a model: a proposal, not a proof."""

    mean: Float[np.ndarray, " dim"]
    covariance: Float[np.ndarray, "dim dim"]
    energy: float
    """U at the mean, with the Jacobian."""
    note: str
    """How it was found, for a person."""
    guessed: bool = False
    """Whether the covariance is of unit shape for want of a better one."""

    def draw(self, seed: int, count: int, spread: float) -> Float[np.ndarray, "count dim"]:
        """Positions from the Gaussian, without its farthest tails, widened by a factor."""
        factor = np.linalg.cholesky(self.covariance)
        noise = np.random.default_rng(seed).normal(size=(count, len(self.mean)))
        return self.mean + spread * np.clip(noise, -FARTHEST, FARTHEST) @ factor.T


def find_region(
    sites: ModelSites,
    operators: Sequence[AbstractSolutionOperator],
    key: Key,
    progress: bool,
    init: Mapping[str, Any] | None = None,
) -> tuple[Region, list[AbstractSolutionOperator]]:
    """The region about the mode of the posterior, and the operators settled there.

    The descent starts at values ``init``, by default at the theta of pretraining. Raises a
    ``ValueError`` where not even the first guess can be solved.
    """
    operators = list(operators)
    scouts = scouting(operators)
    if scouts is not None:
        # Where a solve is dear, the way is found with few points, and its end with all of them.
        with suppress(ValueError):
            ahead = point_estimate(sites, scouts, jax.random.fold_in(key, 50), init, progress)
            settled = _settled(sites, operators, ahead, jax.random.fold_in(key, 51))
            return _descended(sites, settled, key, progress, ahead.values)
    return _descended(sites, operators, key, progress, init)


def _descended(
    sites: ModelSites,
    operators: list[AbstractSolutionOperator],
    key: Key,
    progress: bool,
    init: Mapping[str, Any] | None,
) -> tuple[Region, list[AbstractSolutionOperator]]:
    """The region where descents end, each from where the one before could not go on."""
    last = np.inf
    for round_ in range(SETTLINGS):
        searching = [operator.searching() for operator in operators]
        estimate = point_estimate(sites, searching, jax.random.fold_in(key, round_), init, progress)
        operators = _settled(sites, operators, estimate, jax.random.fold_in(key, 100 + round_))
        region, is_mode = _region(estimate)
        # A descent may stop short of the mode, where the operator follows badly: settled, it goes on.
        if is_mode or not estimate.energy < last - GAIN:
            break
        init, last = estimate.values, estimate.energy
    return region, operators


def scouting(
    operators: Sequence[AbstractSolutionOperator],
) -> list[AbstractSolutionOperator] | None:
    """Cheaper operators, if any of them can be had."""
    scouts = [operator.scouting() for operator in operators]
    if not any(scouts):
        return None
    pairs = zip(operators, scouts, strict=True)
    return [operator.searching() if scout is None else scout for operator, scout in pairs]


def point_estimate(
    sites: ModelSites,
    operators,
    key: Key,
    init: Any,
    progress: bool,
    steps: int = DESCENT_STEPS,
) -> Estimate:
    """`find_map` with the given operators; a ``ValueError`` says why there is no estimate."""
    try:
        return find_map(
            sites.with_operators(operators),
            key,
            *sites.args,
            optimizer=_GAUSS_NEWTON if sites.least_squares else None,
            init=init,
            steps=steps,
            jacobian=True,
            progress=progress,
            **sites.kwargs,
        )
    except ValueError as error:
        cause = str(error).removeprefix("find_map: ")
        raise ValueError(f"adapt: there is no point estimate to begin with: {cause}") from error


def _settled(sites: ModelSites, operators, estimate: Estimate, key: Key):
    """The operators with the solution at the estimate as their own state."""
    found = []
    for number, (names, operator) in enumerate(zip(sites.groups, operators, strict=True)):
        # Sites and experiments that share an operator have a solution each: any of them is nearer than
        # the old one.
        name = names[0]
        theta, state = estimate.theta(name), estimate.operator_states[name]
        batch = sites.batches.get(name)
        if batch is not None:
            theta, state = first_theta(theta, batch), first_of(state)
        found.append(operator.settled(theta, state, key=jax.random.fold_in(key, number)))
    return found


def _region(estimate: Estimate) -> tuple[Region, bool]:
    """The Gaussian about an estimate, and whether that is a mode."""
    flat = np.asarray(ravel_pytree(estimate.z)[0])
    where = ", ".join(shown(n, v) for n, v in estimate.values.items())
    at = f"point estimate {where}, U = {estimate.energy:.5g} ({estimate.status})"
    try:
        found = laplace(estimate)
    except ValueError as error:
        cause = str(error).removeprefix("laplace: ")
        # Noise of solves is in differences of gradients, and hardly in products of first derivatives.
        covariance = gauss_newton_covariance(estimate) if len(flat) <= FEW else None
        note = f"{at}; the Gaussian about it is by first derivatives: {cause}"
        guessed = covariance is None
        if covariance is None:
            covariance = UNKNOWN_SD**2 * np.eye(len(flat))
            note = f"{at}; no Gaussian about it: {cause}"
        return Region(flat, covariance, estimate.energy, note, guessed), False
    return Region(found.mean, found.covariance, found.energy, at), True


def shown(name: str, value: Any) -> str:
    """A site and its value, in a few words."""
    value = np.asarray(value)
    return f"{name} = {value:.5g}" if value.ndim == 0 else f"{name} of shape {value.shape}"

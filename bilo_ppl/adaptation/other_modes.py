"""Whether the posterior has another mode: descents from those prior draws that have the least U.

To be solved at many thetas from all over the prior, an operator must be corrected far from home: by
linear combinations of the network's derivatives, which for a PDE that is linear in u is one step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._progress import Progress
from bilo_ppl._types import Key
from bilo_ppl.adaptation.model_sites import ModelSites
from bilo_ppl.adaptation.region import Region, point_estimate, scouting, shown
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import look_at
from bilo_ppl.validation.energies import Energies, corrected_operators, energies_at

__all__ = ["OtherMode", "other_mode"]

PRIOR_DRAWS = 64
"""Prior draws whose U is looked at."""

DESCENTS, STEPS = 3, 60
"""Descents from the best of them, and the most steps of each."""

DIFFERENT = 0.5
"""Two starts differ by more than so much, root mean square over the entries, in prior standard
deviations."""

MOST_UNKNOWNS = 30
"""Unknowns beyond which no other mode is looked for."""

SOLVED = 1e3
"""Tolerances, from which loss on U says little."""

APART, COUNTS = 8.0, 5.0
"""A mode is another one so many standard deviations away, and counts up to so many nats above."""


class OtherMode(NamedTuple):
    """Where a descent has ended far from the region, about as low or lower."""

    position: Float[np.ndarray, " dim"]
    values: dict[str, Any]
    energy: float

    def is_far_from(
        self, mean: Float[np.ndarray, " dim"], covariance: Float[np.ndarray, "dim dim"]
    ) -> bool:
        """Whether it lies many standard deviations away."""
        return _distance(self.position - mean, covariance) > APART

    def __str__(self) -> str:
        values = ", ".join(shown(name, value) for name, value in self.values.items())
        return (
            f"A descent from a prior draw ends elsewhere: {values}, U = {self.energy:.5g}. The "
            "posterior has more than one mode."
        )


def other_mode(
    sites: ModelSites,
    operators: Sequence[AbstractSolutionOperator],
    region: Region,
    key: Key,
    progress: bool,
) -> OtherMode | None:
    """The lowest of the modes found elsewhere that count; None if there is none.

    A descent that cannot be solved from its start on, or that ends nowhere, finds nothing; nor does one
    to a solution that is wrong between the points, as a solve from other weights shows. With many
    unknowns nothing is looked for: prior draws say little there, and weights have copies by symmetry.
    """
    if len(region.mean) > MOST_UNKNOWNS:
        return None
    searching = scouting(operators) or [operator.searching() for operator in operators]
    starts, found = _starts(sites, operators, region, key), []
    # One line for all of them: where each of them has come to matters only if it is another mode.
    with Progress(len(starts), "other modes", "descent", progress) as bar:
        for number, values in enumerate(starts):
            key_here = jax.random.fold_in(key, number)
            mode = _descended(sites, operators, searching, region, key_here, values)
            found += [] if mode is None else [mode]
            bar.update(number + 1, f"{len(found) or 'none'} to another mode")
    return min(found, key=lambda mode: mode.energy, default=None)


def _descended(
    sites: ModelSites,
    operators: Sequence[AbstractSolutionOperator],
    searching: Sequence[AbstractSolutionOperator],
    region: Region,
    key: Key,
    values: dict[str, Any],
) -> OtherMode | None:
    """Where a descent from these values ends, if that is another mode that counts."""
    try:
        estimate = point_estimate(sites, searching, key, values, progress=False, steps=STEPS)
    except ValueError:
        return None
    position = np.asarray(ravel_pytree(estimate.z)[0])
    mode = OtherMode(position, dict(estimate.values), estimate.energy)
    counts = mode.energy < region.energy + COUNTS
    far = mode.is_far_from(region.mean, region.covariance)
    stands = estimate.converged and counts and far and _stands(sites, operators, region, mode)
    return mode if stands else None


def _stands(
    sites: ModelSites,
    operators: Sequence[AbstractSolutionOperator],
    region: Region,
    mode: OtherMode,
) -> bool:
    """Whether a mode counts also where the operators' own solutions are corrected at more points."""
    here = {name: np.asarray(value)[None] for name, value in mode.values.items()}
    found = _energies(sites, operators, mode.position, here)
    solved = _solved(operators, found.loss)[0]
    return not (solved and found.energy[0] > region.energy + COUNTS)


def _solved(operators: Sequence[AbstractSolutionOperator], loss: Any) -> np.ndarray:
    tolerances = [operator.loss_tolerance for operator in operators]
    return loss <= SOLVED * max(tolerance or 0.0 for tolerance in tolerances)


def _starts(
    sites: ModelSites, operators: Sequence[AbstractSolutionOperator], region: Region, key: Key
) -> list[dict[str, Any]]:
    """Values of the prior draws of least U that differ from each other and from the mode."""

    def drawn(key):
        values = look_at(sites.model, sites.args, sites.kwargs, key=key).values
        return values, sites.position(values)

    keys = jax.random.split(jax.random.fold_in(key, 1000), PRIOR_DRAWS)
    values, positions = jax.device_get(jit_once(jax.vmap(drawn))(keys))
    found = _energies(sites, operators, region.mean, values)
    # What is not solved comes last, whatever its U.
    order = np.lexsort([np.nan_to_num(found.energy, nan=np.inf), ~_solved(operators, found.loss)])
    usable = np.isfinite(positions).all(axis=1) & np.isfinite(found.energy)
    scale = _spread(positions[usable])
    chosen = [region.mean]
    picked: list[int] = []
    for index in order[usable[order]]:
        away = (positions[index] - np.array(chosen)) * scale
        if np.sqrt(np.mean(away**2, axis=1)).min() > DIFFERENT:
            chosen.append(positions[index])
            picked.append(index)
        if len(picked) == DESCENTS:
            break
    return [{name: value[index] for name, value in values.items()} for index in picked]


def _spread(positions: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " dim"]:
    """One over the prior's standard deviations, whatever its tails; zero where nothing varies."""
    if not len(positions):
        return np.zeros(positions.shape[1])
    low, high = np.quantile(positions, [0.16, 0.84], axis=0)
    return np.where(high > low, 2 / np.where(high > low, high - low, 1), 0)


def _energies(
    sites: ModelSites, operators: Sequence[AbstractSolutionOperator], near: Any, values: Any
) -> Energies:
    """U at many values, by whatever the operators can do from their weights, linearised at a position."""
    centre = sites.values(jnp.asarray(near))
    look = look_at(sites.model, sites.args, sites.kwargs, values=centre)
    relaxed = sites.by_name([operator.relaxed() for operator in operators])
    adapted = {name: relaxed.get(name, own) for name, own in look.operators.items()}
    corrected = corrected_operators(look, adapted, 1.0)
    used = adapted | corrected
    return energies_at(sites.model, sites.args, sites.kwargs, values, used, accept=True)


def _distance(away: Any, covariance: Any) -> float:
    return float(np.sqrt(away @ np.linalg.solve(covariance, away)))

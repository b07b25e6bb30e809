"""What the solves at the draws do: in all of them as in sampling, and at some of them on all points."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bilo_ppl.diagnostics import inner_statistics
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo

__all__ = ["Solves", "look_closely", "over_sites", "told"]

ON_ALL_POINTS = 400
"""Draws, evenly spaced, that are solved on all points where the chains have looked at a few."""


class Solves(NamedTuple):
    """By draw, over all solution sites."""

    steps: np.ndarray
    """Inner steps, summed."""
    missed: np.ndarray
    """Whether a solve has missed its tolerance."""


def told(solves: Solves, operator: AbstractSolutionOperator) -> str:
    """How many draws are solved, in words; of what is solved anew everywhere, steps say nothing."""
    missed = f"{np.sum(solves.missed)} of {solves.missed.size} draws are not solved"
    if operator.checks_by_solving:
        return missed
    return f"{np.sum(solves.steps > 0)} need inner steps, {missed}"


def over_sites(found: Mapping[str, SolveInfo]) -> Solves:
    """From the reports by site."""
    steps = np.sum([np.asarray(info.steps) for info in found.values()], axis=0)
    return Solves(steps, ~np.all([np.asarray(info.converged) for info in found.values()], axis=0))


def look_closely(
    model: Callable, samples: Mapping[str, Any], args: tuple, kwargs: Mapping[str, Any]
) -> dict[str, SolveInfo]:
    """The solves of a model whose operator looks at all points, one by one, at some of the draws."""
    chains, draws = np.shape(next(iter(samples.values())))[:2]
    kept = np.unique(np.linspace(0, draws - 1, max(1, ON_ALL_POINTS // chains)).astype(int))
    some = {name: value[:, kept] for name, value in samples.items()}
    return inner_statistics(model, some, *args, batch_size=1, **kwargs)

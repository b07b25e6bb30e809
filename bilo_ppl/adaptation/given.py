"""Thetas that are given, by the user or from the prior: a part is fitted, the rest is for the check."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bilo_ppl._types import Key, Theta
from bilo_ppl.adaptation.batches import (
    count_of,
    dimension_of,
    rows_of,
    solvable,
    spread_out,
    wanted_count,
)
from bilo_ppl.adaptation.model_sites import ModelSites
from bilo_ppl.adaptation.other_modes import OtherMode
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import look_at

__all__ = ["FromBatch", "prior_thetas"]


class FromBatch:
    """Given thetas: a part is fitted, the rest is for the check."""

    variances: Any = None
    positions: Any = None
    about_mode: Any = None
    settled = True
    elsewhere: OtherMode | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, thetas: Sequence[Theta]):
        self.thetas = list(thetas)
        self.left = [np.arange(count_of(part)) for part in thetas]

    def begin(self, operators: Sequence[AbstractSolutionOperator]) -> list[Any]:
        """The operators as they are."""
        return list(operators)

    def to_fit(
        self, operators: Sequence[AbstractSolutionOperator], count: int | None
    ) -> list[Theta]:
        """A spread-out part of those that are left, where the PDE could be solved."""
        return [self._part(group, operator, count) for group, operator in enumerate(operators)]

    def _part(self, group: int, operator: AbstractSolutionOperator, count: int | None) -> Theta:
        rest, left = rows_of(self.thetas[group], self.left[group]), self.left[group]
        wanted = wanted_count(dimension_of(rest), count)
        picked = spread_out(rest, min(wanted, max(len(left) // 2, 1)))
        self.left[group] = np.delete(left, picked)
        if not len(self.left[group]):
            raise ValueError(
                "adapt: all given thetas are used up for the fit and none is left for the check; "
                "give more thetas, or a smaller count."
            )
        return solvable(operator.relaxed(), rows_of(rest, picked))

    def to_check(self, operators: Sequence[AbstractSolutionOperator]) -> list[Theta]:
        """Those that are left."""
        pairs = zip(self.thetas, self.left, strict=True)
        return [rows_of(thetas, left) for thetas, left in pairs]


def prior_thetas(sites: ModelSites, group: int, key: Key, count: int) -> Theta:
    """``count`` thetas from the prior for each site of a group; nothing is solved."""

    def look(key):
        return look_at(sites.model, sites.args, sites.kwargs, key=key, first=_from_prior)

    return sites.asked(look, jax.random.split(key, count), group)


def _from_prior(site: Any) -> Any:
    try:
        return site["fn"](*site["args"], **site["kwargs"])
    except NotImplementedError as error:
        raise ValueError(
            f"adapt: nothing can be drawn from the prior of {site['name']!r}, an improper "
            f"{type(site['fn']).__name__}; leave thetas='prior' out, or give thetas."
        ) from error

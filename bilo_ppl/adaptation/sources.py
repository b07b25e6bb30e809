"""Where an adaptation takes its thetas from: those to fit, and fresh ones to check."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._types import Key, Theta
from bilo_ppl.adaptation.batches import (
    covariance_of,
    dimension_of,
    farthest_points,
    rows_of,
    spread_out,
    wanted_count,
)
from bilo_ppl.adaptation.exploration import AGREEMENT, CANDIDATES, CHAINS, Explorer, Visited
from bilo_ppl.adaptation.model_sites import ModelSites
from bilo_ppl.adaptation.other_modes import COUNTS, OtherMode, other_mode
from bilo_ppl.adaptation.region import Region, find_region
from bilo_ppl.operators.base import AbstractSolutionOperator

__all__ = ["FromPosterior"]

ABOVE_MODE = 30.0
"""Nats by which U at the start of a chain may lie above what the Gaussian has in the mean."""


NEARLY = 1.5
"""R-hat up to which longer chains are likely to agree: those about different modes have a larger one."""


class FromPosterior:
    """Thetas of the posterior region: of a Gaussian first, then of chains."""

    def __init__(self, sites: ModelSites, draws: int, spread: float, key: Key, progress: bool):
        self.sites, self.draws, self.spread, self.progress = sites, draws, spread, progress
        self.key_region, self.key_chains = jax.random.split(key)
        self.seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        self.region: Region | None = None
        self.visited: Visited | None = None
        self.other: OtherMode | None = None
        self.explorer: Explorer | None = None
        self.rounds = 0
        self.fitted = False
        """Whether thetas to fit were asked for since the chains ran."""

    def begin(self, operators: Sequence[AbstractSolutionOperator]) -> list[Any]:
        """The operators, settled at the mode of the posterior: the lowest that is found."""
        search = partial(find_region, self.sites, key=self.key_region, progress=self.progress)
        self.region, settled = search(operators)
        self._look_elsewhere(settled)
        if self.other is None or not self.other.energy < self.region.energy - COUNTS:
            return settled
        try:
            region, moved = search(settled, init=self.other.values)
        except ValueError:
            return settled
        # U there may have been that of a loose solution.
        if region.energy < self.region.energy - COUNTS:
            self.region, self.other, settled = region, None, moved
        return settled

    def _look_elsewhere(self, operators: Sequence[AbstractSolutionOperator]) -> None:
        assert self.region is not None
        key = jax.random.fold_in(self.key_region, 1)
        self.other = other_mode(self.sites, operators, self.region, key, self.progress)

    def search_on(self, operators: Sequence[AbstractSolutionOperator]) -> list[Any]:
        """The operators, settled at the mode that they find from the present one on."""
        key = jax.random.fold_in(self.key_region, 2)
        self.region, settled = find_region(
            self.sites, operators, key, self.progress, init=self.mode
        )
        self._look_elsewhere(settled)
        return settled

    @property
    def mode(self) -> dict[str, Any]:
        """Values of the latent sites at the mode."""
        assert self.region is not None
        return self.sites.values(jnp.asarray(self.region.mean))

    @property
    def elsewhere(self) -> OtherMode | None:
        """Another mode, which the chains have not been near."""
        if self.other is None or self.visited is None:
            return self.other
        seen = self.visited.of(slice(None))
        covariance = covariance_of(seen, np.diag(np.maximum(seen.var(axis=0), 1e-300)))
        return self.other if self.other.is_far_from(seen.mean(axis=0), covariance) else None

    def to_fit(
        self, operators: Sequence[AbstractSolutionOperator], count: int | None
    ) -> list[Theta]:
        """For each operator, spread-out thetas of the widened region."""
        self.fitted = True
        wanted = wanted_count(len(self.sites.names), count)
        if self.visited is None:
            assert self.region is not None
            drawn = self.region.draw(self.seed, 4 * wanted, self.spread)
        else:
            drawn = self.visited.of(slice(0, CHAINS // 2))
            drawn = drawn.mean(axis=0) + self.spread * (drawn - drawn.mean(axis=0))
        sd = drawn.std(axis=0)
        positions = drawn[farthest_points(drawn / np.where(sd > 0, sd, 1), wanted)]
        return [self._thetas(positions, group, count) for group in range(len(operators))]

    def _thetas(self, positions: Any, group: int, count: int | None) -> Theta:
        """What a group is asked at positions; of many experiments, no more than one theta needs."""
        thetas = self.sites.thetas(positions, group)
        if all(self.sites.batches.get(name) is None for name in self.sites.groups[group]):
            return thetas
        wanted = max(wanted_count(dimension_of(thetas), count), len(positions))
        return rows_of(thetas, spread_out(thetas, wanted))

    def to_check(self, operators: Sequence[AbstractSolutionOperator]) -> list[Theta]:
        """For each operator, the thetas that the other half of the chains visits now."""
        assert self.region is not None
        if self.explorer is None:
            self.explorer = Explorer(self.sites, operators, self.draws, self.progress)
        ceiling = self.region.energy + len(self.region.mean) / 2 + ABOVE_MODE
        covariance = self.region.covariance
        candidates = self.region.draw(self.seed + 1, CHAINS * CANDIDATES, self.spread)
        if self.visited is not None:
            # As many as before, so that nothing is compiled anew: the chains' ends come first.
            candidates[:CHAINS] = self.visited.positions[:, -1]
            covariance = covariance_of(self.visited.of(slice(None)), covariance)
            ceiling = max(ceiling, float(self.visited.energies[:, -1].max()))
        key = jax.random.fold_in(self.key_chains, self.rounds)
        self.rounds += 1
        visited = self.explorer(operators, candidates, ceiling, covariance, key)
        if self.visited is not None and not self.fitted:
            visited = self.visited.followed_by(visited)
        self.visited = visited
        self.fitted = False
        fresh = self.visited.of(slice(CHAINS // 2, None))
        return [self.sites.thetas(fresh, group) for group in range(len(operators))]

    @property
    def settled(self) -> bool:
        """Whether the chains agree, and with the point estimate."""
        return self.visited is not None and self.visited.agree

    @property
    def nearly_settled(self) -> bool:
        """Whether longer chains are likely to agree."""
        return self.visited is not None and bool(self.visited.r_hat.max() <= NEARLY)

    @property
    def variances(self) -> Any:
        """Of the positions visited, if the chains agree."""
        if self.visited is None or not self.visited.agree:
            return None
        return self.visited.of(slice(None)).var(axis=0)

    @property
    def about_mode(self) -> Any:
        """Covariance of the Gaussian about the mode; None where nothing is known of it."""
        known = self.region is not None and not self.region.guessed
        return self.region.covariance if known and self.region is not None else None

    @property
    def positions(self) -> Any:
        """All positions visited, one chain after the other."""
        return None if self.visited is None else self.visited.of(slice(None))

    @property
    def notes(self) -> tuple[str, ...]:
        """The point estimate, and what the chains make of it."""
        if self.region is None or self.visited is None:
            return ()
        r_hat = self.visited.r_hat
        worst = int(np.argmax(r_hat))
        agree = "agree" if self.visited.agree else "do NOT agree"
        notes = [
            f"From the {self.region.note}.",
            f"{CHAINS} chains from dispersed starts {agree}: the largest R-hat is {r_hat[worst]:.2f} "
            f"({self.sites.names[worst]}; limit {AGREEMENT}).",
        ]
        if self.elsewhere is not None:
            notes.append(str(self.elsewhere))
        if self.visited.unsolved > 0.01:
            notes.append(
                f"{100 * self.visited.unsolved:.0f} % of the transitions met a theta at which the PDE "
                "was not solved."
            )
        return tuple(notes)

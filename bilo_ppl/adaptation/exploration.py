"""Where the posterior is: short chains from dispersed starts, which agree or do not.

The chains carry the inner solver's state. Whatever they visit has a solution, since a failed solve is
rejected.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.diagnostics import split_gelman_rubin

from bilo_ppl._blocks import BlockReport, Ended, Lengths, run_blocks
from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._snapshot import Saved, Snapshot
from bilo_ppl._types import Key
from bilo_ppl.adaptation.batches import described
from bilo_ppl.adaptation.model_sites import ModelSites
from bilo_ppl.mcmc.chain import Adaptation, Chain, Settings
from bilo_ppl.mcmc.transitions import FixedLength
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.experiments import initial_states
from bilo_ppl.ppl.potential import PotentialInfo, StatefulPotential

__all__ = ["CHAINS", "Explorer", "Visited"]

CHAINS = 8
"""Half of the chains give thetas to fit, the other half thetas to check."""

CANDIDATES = 4
"""Starts that are tried for each chain."""

LEAST_MOVES = 5
"""Chains with fewer distinct positions, all together, have not explored anything."""

FIRST_STEP = 0.5
"""First step size, in units of the region's standard deviations."""

LEAPFROGS = 3
"""Leapfrog steps of a transition: the step size adapts, the cost of a transition does not vary. With
steps of up to two standard deviations, where leapfrog becomes unstable, three are less than a period of
the oscillator; four would lead back to the start at a step size that adaptation likes."""

AGREEMENT = 1.2
"""R-hat up to which short chains count as being of one law."""


class Visited(NamedTuple):
    """What the chains have visited, their warm-up left out."""

    positions: Float[np.ndarray, "chains draws dim"]
    energies: Float[np.ndarray, "chains draws"]
    """U, with the Jacobian."""
    unsolved: float
    """Part of the transitions that met a point at which the PDE was not solved."""

    @property
    def r_hat(self) -> Float[np.ndarray, " dim"]:
        """Split R-hat of every entry of the position."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = split_gelman_rubin(self.positions)
        return np.where(np.isfinite(found), found, np.inf)

    @property
    def agree(self) -> bool:
        """Whether the chains may be of one law."""
        return bool(self.r_hat.max() <= AGREEMENT)

    def followed_by(self, more: "Visited") -> "Visited":
        """Longer chains, of which these are the beginning."""
        join = partial(np.concatenate, axis=1)
        before, after = self.positions.shape[1], more.positions.shape[1]
        return Visited(
            join([self.positions, more.positions]),
            join([self.energies, more.energies]),
            (before * self.unsolved + after * more.unsolved) / (before + after),
        )

    def of(self, chains: slice) -> Float[np.ndarray, "n dim"]:
        """Positions of some chains."""
        part = self.positions[chains]
        return part.reshape(-1, part.shape[-1])


class _Starts(NamedTuple):
    """Where the chains start: flat positions, U and its gradient there."""

    position: Any
    energy: Any
    gradient: Any


def _of(starts: _Starts, chain: int) -> _Starts:
    return _Starts(*(part[chain] for part in starts))


class _Chains:
    """The chains one after the other: side by side, all would take the inner steps that one needs."""

    def __init__(self, one: Callable[[int], Any]):
        self._one = one
        self.done: list[Any] = []
        """What `one` has given, as NumPy arrays."""

    def run(self, progress: bool) -> Ended:
        return run_blocks(
            self._block,
            CHAINS,
            label="explore",
            unit="chain",
            lengths=Lengths(1),
            progress=progress,
            at_most=False,
            resumable=self,
        )

    def _block(self, length: int) -> BlockReport:
        self.done.append(jax.tree.map(np.asarray, self._one(len(self.done))))
        return BlockReport(1, "")

    def snapshot(self) -> Snapshot:
        return Snapshot((), {}, list(self.done))

    def restore(self, saved: Saved) -> None:
        self.done = saved.parts((0, 0, 0))


def _known(energy: Any, z: Any, solver_state: Any) -> Any:
    """The potential at a start, evaluated before."""
    nothing = PotentialInfo(jnp.array(0), jnp.array(0.0), jnp.array(True))
    return energy, (solver_state, nothing)


class Explorer:
    """Short chains, with the operators as arguments: one compilation in all."""

    def __init__(
        self,
        sites: ModelSites,
        operators: Sequence[AbstractSolutionOperator],
        draws: int,
        progress: bool = False,
    ):
        self.sites, self.draws = sites, draws
        relaxed = [operator.relaxed() for operator in operators]
        self._static = eqx.partition(relaxed, eqx.is_array)[1]
        self._energies = jit_once(self._evaluate)
        self._run = jax.jit(self._explore)
        self.progress = progress

    def _potential(self, arrays: Any) -> StatefulPotential:
        operators = eqx.combine(arrays, self._static)
        model = self.sites.with_operators(operators)
        return StatefulPotential(model, self.sites.args, self.sites.kwargs)

    def _states(self, arrays: Any) -> dict[str, Any]:
        operators = eqx.combine(arrays, self._static)
        return initial_states(self.sites.by_name(operators), self.sites.batches)

    def _evaluate(self, arrays: Any, positions: Any) -> Any:
        """U and its gradient at positions ``(n, dim)``."""
        potential, states = self._potential(arrays), self._states(arrays)

        def energy(position):
            return potential(self.sites.unravel(position), states)[0]

        return jax.lax.map(jax.value_and_grad(energy), positions)

    def _explore(self, arrays: Any, start: "_Starts", covariance: Any, key: Any) -> Any:
        """Positions, energies, and whether all solves converged, of every transition of a chain."""
        potential, states = self._potential(arrays), self._states(arrays)
        names = tuple(sorted(self.sites.unravel(start.position)))
        settings = Settings(
            # So few transitions know less of the shape of the region than what it was drawn from.
            Adaptation(dense_mass=True, adapt_mass_matrix=False),
            step_size=FIRST_STEP,
            inverse_mass_matrix={names: covariance},
        )
        chain = Chain(potential, FixedLength(LEAPFROGS), settings, self.draws // 2)

        def step(state, _):
            state = chain.next(False, state)
            return state, (
                ravel_pytree(state.z)[0],
                state.potential_energy,
                state.inner_converged,
            )

        # The energy is known: a second copy of the solver would be compiled for nothing.
        known = dataclasses.replace(chain, potential=partial(_known, start.energy))
        first = known.first(self.sites.unravel(start.position), key, states)
        first = first._replace(z_grad=self.sites.unravel(start.gradient))
        return jax.lax.scan(step, first, None, self.draws)[1]

    def _starts(
        self, operators: Sequence[AbstractSolutionOperator], candidates: Any, ceiling: float
    ) -> "_Starts":
        """A start for every chain: the first of the candidates whose U is below a ceiling.

        Where there is none, the one with the least U. Raises a ``ValueError`` if all are infinite.
        """
        positions = jnp.asarray(candidates)
        energies, gradients = self._energies(self._arrays(operators), positions)
        finite = np.isfinite(energies) & np.isfinite(gradients).all(axis=1)
        height = np.where(finite, energies, np.inf)
        good = np.flatnonzero(height <= max(ceiling, height.min()))
        if not finite.any():
            raise ValueError(
                f"adapt: the PDE could be solved to {described(operators[0].relaxed())} at none of "
                f"{len(candidates)} positions about the point estimate. {see('No way to adapt')}"
            )
        picked = np.resize(good, CHAINS)
        return _Starts(positions[picked], energies[picked], gradients[picked])

    def _arrays(self, operators: Sequence[AbstractSolutionOperator]) -> Any:
        return eqx.partition([operator.relaxed() for operator in operators], eqx.is_array)[0]

    def __call__(
        self,
        operators: Sequence[AbstractSolutionOperator],
        candidates: Float[np.ndarray, "n dim"],
        ceiling: float,
        covariance: Float[np.ndarray, "dim dim"],
        key: Key,
    ) -> Visited:
        """Run the chains from candidates whose U is below a ceiling; the first half is warm-up.

        Raises a ``ValueError`` if there is no start, or they hardly moved.
        """
        starts = self._starts(operators, candidates, ceiling)
        keys = jax.random.split(key, CHAINS)
        given = self._arrays(operators), jnp.asarray(covariance)
        chains = _Chains(lambda i: self._run(given[0], _of(starts, i), given[1], keys[i]))
        if chains.run(self.progress) is Ended.INTERRUPTED:
            raise KeyboardInterrupt
        found = (np.stack(part) for part in zip(*chains.done, strict=True))
        positions, energies, solved = (a[:, self.draws // 2 :] for a in found)
        visited = Visited(positions, energies, float(np.mean(~solved)))
        moves = len(np.unique(visited.of(slice(None)), axis=0))
        if moves < LEAST_MOVES or not np.isfinite(energies).any():
            raise ValueError(
                f"adapt: the chains stayed where they were ({moves} positions in {self.draws} "
                "transitions each): nearly no solve reached "
                f"{described(operators[0].relaxed())}, or U is not finite. {see('No way to adapt')}"
            )
        return visited

"""A point estimate: its values, how it came about, and the solution there."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._types import Points, Theta
from bilo_ppl.estimate.loop import MapState
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.stopping import Status
from bilo_ppl.ppl.effect import solve_site
from bilo_ppl.ppl.experiments import values_at
from bilo_ppl.ppl.look import SolutionSite, site_at
from bilo_ppl.ppl.potential import PotentialInfo

__all__ = ["Estimate", "History", "evaluate", "find_site", "lag_note", "message", "solve_note"]


class History(NamedTuple):
    """The iteration, step by step: arrays with a leading axis of steps.

    The point of a step is the one that it evaluated, before it moved on.

    Examples:
        >>> history = estimate.history
        >>> history.steps == len(history.inner_loss), bool(history.energy[-1] < history.energy[0])
        (True, True)
        >>> history.values["r"].shape == (history.steps,)
        True
    """

    energy: np.ndarray
    """U = -log density (of z, with the Jacobian, if that was asked for)."""
    data_loss: np.ndarray
    """Negative log likelihood."""
    inner_loss: np.ndarray
    """Lower-level loss of the weights that U was computed with."""
    inner_steps: np.ndarray
    inner_converged: np.ndarray
    gradient: np.ndarray
    """Largest entry of the gradient of U in z, in absolute value."""
    values: dict[str, np.ndarray]
    """Latent sites of at most 64 entries, in the space of the model."""
    cpu_seconds: np.ndarray
    """CPU time since the start, compilation included; within a block of steps, interpolated."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.energy)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The result of `find_map`.

    Examples:
        >>> estimate.status, sorted(estimate.terms)
        ('converged', ['r', 'y'])
        >>> estimate.solution(x).shape
        (10,)
        >>> len(estimate.history.energy) == estimate.history.steps
        True
    """

    values: dict[str, Any]
    """The estimate: values of the latent sites, in the space of the model."""
    energy: float
    """U there, every PDE solved to the tolerance of its operator (see ``inner``)."""
    data_loss: float
    """Negative log likelihood there."""
    terms: dict[str, float]
    """Negative log density of every site: priors, observations, factors."""
    inner: PotentialInfo
    """The last solve: steps, lower-level loss, whether the tolerance was reached."""
    status: str
    """converged, stalled, no_progress, steps, interrupted, diverged, inner_diverged or unsolved."""
    message: str
    """What happened and, where something went wrong, what to change."""
    history: History
    z: dict[str, Any]
    """The estimate in unconstrained space."""
    operator_states: dict[str, Any]
    """States of the solution operators there: where the next solve can start from."""
    objective: Objective
    method: str
    state: MapState
    """To go on from: ``find_map(..., resume=estimate)``."""

    @property
    def converged(self) -> bool:
        """Whether a stopping rule of the descent was met, and the PDE is solved there.

        A simultaneous descent must have solved it itself: else U was that of other weights.
        """
        met = self.status in {"converged", "stalled", "no_progress"}
        followed = self.method != "simultaneous" or bool(self.history.inner_converged[-1])
        return met and followed and bool(self.inner.converged)

    def __str__(self) -> str:
        shown = ", ".join(_shown(name, value) for name, value in self.values.items())
        return f"{shown}; U = {self.energy:.6g}, data loss {self.data_loss:.6g}. {self.message}"

    def theta(self, site: str | None = None) -> Theta:
        """What the model passed to ``solution``: the PDE parameters, fields as callables.

        ``site`` may be left out where the model has one solution. Of ``solutions``: every array with the
        axis of experiments in front. Raises a ``ValueError`` for a name of no solution.

        Examples:
            >>> bool(estimate.theta()["r"] == estimate.values["r"])
            True
        """
        return dict(find_site(self.objective, self.values, self._site(site)).theta)

    def experiments(self, site: str | None = None) -> int | None:
        """How many experiments a site of ``solutions`` has; None for a ``solution``.

        Examples:
            >>> estimate.experiments() is None
            True
        """
        return find_site(self.objective, self.values, self._site(site)).batch

    def solution(self, points: Points, site: str | None = None) -> Float[Array, "..."]:
        """The solution u at points ``(n, d)``, with the weights of the estimate.

        Of ``solutions``: with the axis of experiments in front.
        """
        name = self._site(site)
        return _solution_at(
            self.objective, self.values, self.operator_states, jnp.asarray(points), name
        )

    def _site(self, site: str | None) -> str:
        names = list(self.objective.operators)
        if site is None and len(names) == 1:
            return names[0]
        if site not in names:
            raise ValueError(f"Estimate: {site!r} is no solution site; give one of {names}.")
        return site


def _shown(name: str, value: Any) -> str:
    value = np.asarray(value)
    return f"{name} = {value:.6g}" if value.ndim == 0 else f"{name} of shape {value.shape}"


def find_site(objective: Objective, values: Mapping[str, Any], site: str) -> SolutionSite:
    """A solution site at given values of the latent sites; nothing is solved."""
    return site_at(objective.model, objective.args, objective.kwargs, values, site)


@jit_once
def _solution_at(
    objective: Objective, values: Any, states: Any, points: Any, site: str
) -> Float[Array, "..."]:
    found = find_site(objective, values, site)
    solved = solve_site(
        objective.operators[site],
        found.theta,
        state=states[site],
        accept=True,
        batch=found.batch,
    )
    return values_at(solved.field, points)


@jit_once
def evaluate(objective: Objective, z: Any, states: Any) -> Any:
    """U, the new operator states and the evaluation, in one compiled call."""
    return objective(z, states)


def message(status: Status | str, state: MapState, tolerance: float) -> str:
    """One or two sentences for a person."""
    steps = int(state.steps)
    texts: dict[Any, Callable[[], str]] = {
        Status.CONVERGED: lambda: f"Converged after {steps} steps.",
        Status.STALLED: lambda: f"The steps have become too small to matter after {steps}.",
        Status.NO_PROGRESS: lambda: (
            f"U no longer falls; stopped after {steps} steps, {int(state.since)} of them without "
            "progress."
        ),
        Status.DIVERGED: lambda: (
            f"Diverged at step {steps}, the last good point is kept: U or its gradient is not finite, or "
            f"far too large. {see('Descents that end early')}"
        ),
        Status.INNER_DIVERGED: lambda: (
            f"The lower-level loss diverged at step {steps}, the last good point is kept (in the first "
            f"steps it was at most {float(state.early_loss):.1e}). {see('Descents that end early')}"
        ),
        Status.UNSOLVED: lambda: (
            f"Stopped at step {steps}: the inner solver missed its tolerance "
            f"{tolerance:.0e} {int(state.misses)} times in a row. {see('Descents that end early')}"
        ),
        "steps": lambda: f"Stopped at the limit of {steps} steps.",
        "interrupted": lambda: f"Interrupted after {steps} steps; the best point so far is kept.",
    }
    return texts[status]()


def solve_note(info: PotentialInfo) -> str:
    """What there is to say of the last solve, at the estimate; nothing where it met its tolerance."""
    if info.converged:
        return ""
    return (
        f" The PDE is solved there to a loss of {float(info.loss):.1e} only, not to its tolerance. "
        + see("Tolerance not reached")
    )


def lag_note(history: History, info: PotentialInfo, tolerance: float) -> str:
    """The same for a simultaneous descent whose weights had not reached their tolerance at its end."""
    last = float(history.inner_loss[-1])
    return (
        f" The weights lag behind theta: lower-level loss {last:.1e} at the last step, "
        f"{float(info.loss):.1e} after a solve there (tolerance {tolerance:.0e}). "
        + see("Weights that lag behind")
    )

"""When the iteration stops, and what that means."""

import enum
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from bilo_ppl._types import Scalar
from bilo_ppl.estimate.objective import Evaluation

__all__ = ["SETTLING", "Best", "Status", "Stopping", "find_trouble", "verdict"]

RISE = 100.0
"""U may rise by this many times (1 + |U at the start|) before the descent counts as diverged."""

SETTLING = 20
"""Steps in which the lower-level loss may jump: Adam's first steps have their full length."""

INNER_RISE = 100.0
"""The lower-level loss may rise to this many times its largest value while settling, or"""

INNER_SCALE = 1e8
"""this many times its tolerance, whichever is more."""


class Status(enum.IntEnum):
    """Why the iteration stands where it stands."""

    RUNNING = 0
    CONVERGED = 1
    STALLED = 2
    NO_PROGRESS = 3
    DIVERGED = 4
    INNER_DIVERGED = 5
    UNSOLVED = 6


class Stopping(NamedTuple):
    """When to stop; see `find_map`."""

    gradient_tolerance: float
    step_tolerance: float
    patience: int | None
    improvement: float
    max_misses: int | None
    """Evaluations in a row that may miss the inner tolerance; None: any number."""
    trials: bool
    """Whether steps are trials of a line search, which may fail without harm."""
    least_squares: bool
    """Whether the optimiser needs the Jacobian of the least-squares rows."""
    inner_tolerance: float
    """Unit for the growth of the lower-level loss."""


class Best(NamedTuple):
    """An evaluated point."""

    z: dict[str, Any]
    operator_states: dict[str, Any]
    energy: Scalar


def find_trouble(state: Any, here: Best, found: Evaluation, slope: Scalar, unit: float) -> Any:
    """Whether U or the lower-level loss is not finite or has grown out of all proportion."""
    loss, energy = found.info.loss, here.energy
    risen = energy > state.first_energy + RISE * (1 + jnp.abs(state.first_energy))
    inner_risen = loss > jnp.maximum(INNER_RISE * state.early_loss, INNER_SCALE * unit)
    status = jnp.array(int(Status.RUNNING))
    finite = jnp.isfinite(energy) & jnp.isfinite(slope)
    status = jnp.where(~finite | risen, int(Status.DIVERGED), status)
    return jnp.where(~jnp.isfinite(loss) | inner_risen, int(Status.INNER_DIVERGED), status)


def verdict(
    state: Any,
    found: Evaluation,
    trouble: Any,
    slope: Scalar,
    step: Scalar,
    stopping: Stopping,
) -> Any:
    """What the point just evaluated means for the iteration; later lines take precedence."""
    solved = found.info.converged
    patience = math.inf if stopping.patience is None else stopping.patience
    misses = math.inf if stopping.max_misses is None else stopping.max_misses
    # A Gauss-Newton step is none at all where its model of U promises next to nothing.
    promised = stopping.least_squares and stopping.step_tolerance == 0
    status = jnp.array(int(Status.RUNNING))
    for holds, meaning in (
        (state.since >= patience, Status.NO_PROGRESS),
        (
            solved & (step <= stopping.step_tolerance),
            Status.CONVERGED if promised else Status.STALLED,
        ),
        (solved & (slope <= stopping.gradient_tolerance), Status.CONVERGED),
        (state.misses >= misses, Status.UNSOLVED),
    ):
        status = jnp.where(holds, int(meaning), status)
    fatal = trouble != Status.RUNNING
    if stopping.trials:
        fatal &= (state.misses >= misses) | (state.steps == 0)
    return jnp.where(fatal, trouble, status)

"""Consolidation: a local operator fitted to the lower-level rows of many thetas at once."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from bilo_ppl._types import Key, Theta
from bilo_ppl.inner.adequacy import Adequate
from bilo_ppl.inner.fit_by_parts import can_be_sampled, is_large_fit
from bilo_ppl.inner.fitting import FitReport, fit
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.solvers import LevenbergMarquardt
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.lora import saves
from bilo_ppl.network.trainable import count_parameters
from bilo_ppl.pde.theta import theta_as

__all__ = ["consolidate"]

MARGIN = 100
"""How far below the tolerance a consolidation aims: what is left of the loss is what the posterior is
wrong by, and it is nearly free here."""

LARGE_MARGIN = 1.5
"""The same for a large problem, where it is not free."""

LARGE_RANK = 8
"""Rank of the increments where all weights are too many."""

STAGES = (0.25, 0.5, 0.75, 1.0)
"""Parts of the way from one theta to all of them: see `consolidate`."""

LEAST_GAIN = 0.1
"""A chunk of steps that lowers the loss by a smaller part than this is the last."""


def consolidate(
    lower_level: LowerLevel,
    thetas: Theta,
    *,
    tolerance: float,
    rank: int,
    steps: int,
    key: Key,
    progress: bool,
    mesh: Mesh | None = None,
) -> tuple[LocalOperator, FitReport]:
    """Fit increments of ``rank`` and the modulations to the rows of all thetas, then merge them.

    Rank 0 is for all weights, which are taken too where the network is so small that they are fewer; but
    increments of rank 8 where the rows are many and more than all weights could not be fitted at once.

    The fit aims at a hundredth of ``tolerance``, at two thirds of it where the rows are many.

    A nonlinear PDE may have several solutions, and one leap to distant thetas may land on another
    branch than the operator was on. So the thetas set out from the first of them, which should be near to
    what the operator solves, and move to their places in a few stages.

    Where the loss between the collocation points exceeds the tolerance though that at them does not,
    points are added by the residual, and the fit goes on; one that does not reach the tolerance there
    is undone.

    With a ``mesh`` (`device_mesh`) the rows, of all points and thetas, are spread over its devices.

    The result has the rank that the operator had before, its increments starting from zero.
    """
    operator = lower_level.operator
    count = jax.tree.leaves(thetas)[0].shape[0]
    rank = _chosen_rank(operator, rank, count * len(operator.points))
    wide = operator.about(thetas).with_lora(rank, key=key, many=True)
    widened = eqx.tree_at(lambda level: level.operator, lower_level, wide)
    first = jax.tree.map(lambda leaf: leaf[0], thetas)
    stages = [_towards(first, thetas, part) for part in STAGES]
    adequate = Adequate(widened, tolerance)
    points, weights, seconds = np.asarray(operator.points, float), wide.weights, 0.0
    kept: tuple[Any, ...] = ()
    while True:
        margin = LARGE_MARGIN if is_large_fit(count * len(points)) else MARGIN
        level = widened.with_points(points)
        weights, report = fit(
            LevenbergMarquardt(tolerance=tolerance / margin, max_steps=steps),
            lambda stage, level=level: level.at_many(theta_as(stage, wide.dtype)),
            weights,
            stages=stages,
            progress=progress,
            label=f"consolidate {count} thetas",
            least_gain=LEAST_GAIN,
            parameters=count_parameters(eqx.filter(wide.network, eqx.is_inexact_array)),
            mesh=mesh,
        )
        seconds += report.cpu_seconds
        if kept and report.loss > tolerance:
            # Where the solution is singular, what is asked for at more points may be out of reach.
            points, weights, report, look = kept
            break
        look = adequate(weights, theta_as(thetas, wide.dtype), points)
        if look.suffices or look.more is None or report.loss > tolerance:
            break
        kept = points, weights, report, look
        points, stages = look.more, stages[-1:]
    merged = wide.with_weights(weights)
    if len(points) > len(operator.points):
        merged = merged.with_points(points)
    report = report._replace(unseen_loss=look.unseen, adequate=look.suffices, cpu_seconds=seconds)
    return merged.with_lora(operator.rank, key=jax.random.fold_in(key, 1)), report


def _chosen_rank(operator: LocalOperator, rank: int, items: int) -> int:
    if rank:
        return rank if saves(operator.network, rank) else 0
    every = operator.with_lora(0, key=jax.random.key(0)).weights
    too_many = is_large_fit(items) and not can_be_sampled(every)
    return LARGE_RANK if too_many and saves(operator.network, LARGE_RANK) else 0


def _towards(first: Theta, thetas: Theta, part: float) -> Theta:
    """The thetas at ``part`` of their distances from ``first``."""
    return jax.tree.map(lambda one, all_: one[None] + part * (all_ - one[None]), first, thetas)

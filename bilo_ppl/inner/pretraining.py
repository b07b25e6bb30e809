"""Pretraining: the local operator at a first guess of theta, from random weights."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._types import Key, Points, Theta, Weights
from bilo_ppl.inner.adequacy import Adequate
from bilo_ppl.inner.fitting import FitReport, fit
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.inner.sensitivity import ResidualGradient
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.checks import check_problem
from bilo_ppl.pde.collocation import completed
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import theta_as

__all__ = ["Pretrained", "pretrain"]


CHUNKS, CHUNKS_THAT_ASK = 20, 60
"""In which training is done: shorter ones where each may be enough, so that it does not go far beyond."""

ENOUGH = 0.4
"""Training ends where the error is so much less than what is allowed."""

PARTS_OF_TIME = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Of an evolution that is learnt from its beginning. Fitted to all times at once, a network may find a
steady state, which solves the equation, and hide the way to it between the first points."""


class Pretrained(NamedTuple):
    """The operator and the report of its training."""

    operator: LocalOperator
    report: FitReport


def pretrain(
    problem: Problem,
    theta: Theta,
    *,
    key: Key,
    solver: AbstractInnerSolver | None = None,
    sensitivity: AbstractSensitivity | None = None,
    row_weights: Mapping[str, float] | None = None,
    data: tuple[Points, Any] | None = None,
    data_weight: float = 1.0,
    error: Callable[[LocalOperator], float] | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
    **architecture: Any,
) -> Pretrained:
    """Train a local operator at ``theta``: the problem is checked before anything expensive runs.

    ``solver`` defaults to Levenberg-Marquardt on all weights to a loss of 1e-6; ``sensitivity`` to
    `ResidualGradient`, whose pretrained operator serves all sensitivities afterwards (with
    `PartialDerivative` pretraining is cheaper, and knows u at ``theta`` only). ``data`` are
    points ``(n, d)`` and values ``(n,)`` or ``(n, components)`` of a numerical solution at ``theta``,
    fitted with weight ``data_weight`` besides the PDE. ``architecture`` goes to `LocalOperator` (width,
    depth, fourier, residual, scales, embedded, dtype). ``mesh`` (`device_mesh`) spreads the rows over
    its devices.

    ``error(operator)`` says how wrong the operator still is, in units of what is allowed. Asked after
    every chunk of steps, an error below 0.4 ends training before the tolerance is reached; and points
    suffice where it is below one.

    Afterwards the loss is measured at points that the fit has not seen. Where it is much larger there,
    training begins anew with twice the points, added by the residual, up to four times the problem's, and
    where the problem has a time, with its beginning first: the report and the operator's `points` tell.
    Ctrl-C keeps what has been reached so far. Warns
    where the tolerance is out of reach because the lift leaves no freedom at some points. Raises a
    ``ValueError`` for a problem or an architecture that cannot be trained, saying what to mend.

    Examples:
        >>> network, report = bilo.pretrain(
        ...     problem, start, key=key, sensitivity=bilo.PartialDerivative(), width=8, progress=False
        ... )
        >>> report.converged, report.loss < 1e-6
        (True, True)
        >>> point = jnp.array([0.5])
        >>> round(float(network.field(start)(point)), 3), round(float(formula(point, start)), 3)
        (0.295, 0.295)
    """
    check_problem(problem, theta)
    problem = completed(problem, theta)
    solver = LevenbergMarquardt(tolerance=1e-6, max_steps=300) if solver is None else solver
    operator = LocalOperator(problem, theta, key=key, **architecture)
    theta = theta_as(theta, operator.dtype)
    lower_level = LowerLevel(operator, sensitivity or ResidualGradient(), dict(row_weights or {}))
    extra = () if data is None else (data_rows(operator, theta, data, data_weight),)

    def rows_at(points: Points) -> Callable[[Any], LeastSquares]:
        def rows(part):
            base = lower_level.with_points(_squeezed(points, problem.domain, part)).at(theta)
            return LeastSquares((*base.families, *extra))

        return rows

    adequate = Adequate(lower_level, 10 * solver.tolerance)
    arrays, static = eqx.partition(theta, eqx.is_array)
    batch_of_one = eqx.combine(jax.tree.map(lambda leaf: leaf[None], arrays), static)
    points, parts = np.asarray(problem.points, float), PARTS_OF_TIME[-1:]
    while True:
        at_points = operator.with_points(points)
        weights, report = fit(
            solver,
            rows_at(points),
            operator.weights,
            progress=progress,
            label="pretrain",
            chunks=CHUNKS if error is None else CHUNKS_THAT_ASK,
            stages=[jnp.asarray(part, operator.dtype) for part in parts],
            mesh=mesh,
            enough=error and (lambda w, _, op=at_points: error(op.with_weights(w)) <= ENOUGH),
        )
        look = adequate(weights, batch_of_one, points)
        suffices = look.suffices if error is None else error(at_points.with_weights(weights)) <= 1
        fixed = False
        if not (report.converged if error is None else suffices):
            fixed = _warn_of_fixed_rows(rows_at(points)(1.0), weights, solver.tolerance)
        # More points would only thin out rows that no weight can change.
        if suffices or fixed or look.more is None or report.interrupted:
            break
        # What hides between the points is as a rule no solution at all, and no start for the next.
        points, parts = look.more, PARTS_OF_TIME if problem.domain.time is not None else parts
    operator = operator.with_weights(weights)
    if len(points) > len(problem.points):
        operator = operator.with_points(points)
    return Pretrained(operator, report._replace(unseen_loss=look.unseen, adequate=suffices))


def _squeezed(points: Any, domain: Box, part: Any) -> Any:
    """The points, with time running over its first ``part`` only."""
    if domain.time is None:
        return points
    begin = domain.lower[domain.time]
    points = jnp.asarray(points)
    return points.at[:, domain.time].set(begin + part * (points[:, domain.time] - begin))


def _warn_of_fixed_rows(problem: LeastSquares, weights: Weights, tolerance: float) -> bool:
    """Whether rows that no weight can change are enough to miss the tolerance; say so if they are."""

    def fixed_loss(weights):
        flat, unravel = ravel_pytree(weights)
        way = unravel(jax.random.normal(jax.random.key(0), flat.shape, flat.dtype))
        # Only a row that depends on no weight stands exactly still.
        rows, moved = jax.jvp(problem.rows, (weights,), (way,))
        fixed = (rows != 0) & (moved == 0)
        return jnp.sum(fixed), jnp.sum(jnp.where(fixed, rows, 0) ** 2)

    count, loss = jit_once(fixed_loss)(weights)
    if loss > tolerance:
        warnings.warn(
            f"pretrain: {int(count)} rows of the lower level depend on no weight, and their loss alone "
            f"is {float(loss):.1e} (tolerance {tolerance:.0e}). {see('Rows without a weight')}",
            stacklevel=3,
        )
    return bool(loss > tolerance)


def data_rows(
    operator: LocalOperator, theta: Theta, data: tuple[Points, Any], weight: float
) -> RowFamily:
    """Rows ``u(x) - y`` at given points, under the name "data"."""
    x, y = (np.asarray(part) for part in data)
    problem = operator.problem
    if x.ndim != 2 or x.shape[1] != problem.domain.dimension or len(x) != len(y):
        raise ValueError(
            f"data: points {x.shape} and values {y.shape} do not fit; give points of shape "
            f"(n, {problem.domain.dimension}) and n values."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("data: points or values contain NaN or infinity.")
    wanted = (len(x), problem.components)[: 2 if problem.components > 1 else 1]
    if y.shape != wanted or not problem.domain.contains(x).all():
        raise ValueError(
            f"data: values of shape {y.shape} at points within {problem.domain}? They must have shape "
            f"{wanted}, and the points must lie in the domain."
        )

    def rows(weights, item):
        point, value = item
        u = operator.with_weights(weights)(point, theta)
        return {"data": jnp.atleast_1d(u - value)}

    items = (jnp.asarray(x, operator.dtype), jnp.asarray(y, operator.dtype))
    return RowFamily(rows, items, {"data": weight})

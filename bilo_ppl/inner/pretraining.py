"""Pretraining: the local operator at a first guess of theta, from random weights."""

import itertools
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Points, Theta, Weights
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.inner.sensitivity import ResidualGradient
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, advance
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.problem import Problem, check_problem, theta_as

__all__ = ["FitReport", "Pretrained", "fit", "pretrain"]


class FitReport(NamedTuple):
    """How a fit went: final loss, its terms, steps, whether the tolerance was reached, CPU seconds."""

    loss: float
    terms: dict[str, float]
    steps: int
    converged: bool
    tolerance: float
    cpu_seconds: float
    history: list[tuple[int, float]]
    """Steps and loss along the way."""

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {value:.2e}" for name, value in self.terms.items())
        reached = "reached" if self.converged else "NOT reached"
        return (
            f"loss {self.loss:.2e} ({terms}) after {self.steps} steps, {self.cpu_seconds:.1f} CPU s; "
            f"tolerance {self.tolerance:.0e} {reached}"
        )


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
    progress: bool = True,
    **architecture: Any,
) -> Pretrained:
    """Train a local operator at ``theta``: the problem is checked before anything expensive runs.

    ``solver`` defaults to Levenberg-Marquardt on all weights to a loss of 1e-6; ``sensitivity`` to
    `ResidualGradient`, whose pretrained operator serves all sensitivities afterwards (with
    `PartialDerivative` pretraining is cheaper, and knows u at ``theta`` only). ``data`` are
    points ``(n, d)`` and values ``(n,)`` or ``(n, components)`` of a numerical solution at ``theta``,
    fitted with weight ``data_weight`` besides the PDE. ``architecture`` goes to `LocalOperator` (width,
    depth, fourier, residual, scales, embedded, dtype). Ctrl-C keeps what has been reached so far. Warns
    where the tolerance is out of reach because the lift leaves no freedom at some points.
    """
    check_problem(problem, theta)
    solver = LevenbergMarquardt(tolerance=1e-6, max_steps=300) if solver is None else solver
    operator = LocalOperator(problem, theta, key=key, **architecture)
    theta = theta_as(theta, operator.dtype)
    lower_level = LowerLevel(operator, sensitivity or ResidualGradient(), dict(row_weights or {}))

    def rows(_: Any) -> LeastSquares:
        base = lower_level.at(theta)
        if data is None:
            return base
        extra = data_rows(operator, theta, data, data_weight)
        return LeastSquares((*base.families, extra))

    weights, report = fit(solver, rows, operator.weights, progress=progress, label="pretrain")
    if not report.converged:
        _warn_of_fixed_rows(rows(None), weights, solver.tolerance)
    return Pretrained(operator.with_weights(weights), report)


def _warn_of_fixed_rows(problem: LeastSquares, weights: Weights, tolerance: float) -> None:
    """Say so if rows that no weight can change are enough to miss the tolerance."""

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
            f"is {float(loss):.1e}, above the tolerance {tolerance:.0e}. As a rule these are collocation "
            "points where the lift fixes u and its derivatives, such as corners of space-time: leave "
            "them out of the problem's points (bilo_ppl.masked).",
            stacklevel=3,
        )


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


class _Progress(NamedTuple):
    """What leaves the compiled function after a chunk of steps."""

    state: Any
    terms: dict[str, Any]
    done: Any


def fit(
    solver: AbstractInnerSolver,
    rows: Callable[[Any], LeastSquares],
    weights: Weights,
    *,
    progress: bool,
    label: str,
    stages: Sequence[Any] = (None,),
    chunks: int = 20,
    least_gain: float = 0.0,
) -> tuple[Weights, FitReport]:
    """Run a solver in chunks with a progress bar; the best weights survive Ctrl-C.

    ``rows(stage)`` makes the `LeastSquares` problem (inside a compiled function, so that the problem's
    arrays are not copied between chunks). The last of ``stages`` is the problem to solve; those before
    it, of the same structure, lead there and get a chunk of steps each. In the last one a chunk that
    lowers the loss by a smaller part than ``least_gain`` is the last.
    """
    start = time.process_time()
    chunk = max(1, -(-solver.max_steps // chunks))

    @eqx.filter_jit
    def run(weights, state, first, stage):
        problem = rows(stage)
        # One compilation serves the start and every chunk of every stage.
        state = jax.lax.cond(first, lambda: solver.init(problem, weights), lambda: state)
        upto = jnp.where(first, state.steps, state.steps + chunk)
        state = advance(solver, problem, state, upto)
        return _Progress(state, problem.terms(state.weights), solver.terminate(state))

    blank = eqx.filter_eval_shape(lambda: solver.init(rows(stages[-1]), weights))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)

    def progressing(weights, stage):
        now = run(weights, blank, jnp.array(True), stage)
        yield now
        while not bool(now.done):
            now = run(weights, now.state, jnp.array(False), stage)
            yield now

    taken, history = 0, []
    now: Any = None
    bar = tqdm(total=solver.max_steps, desc=label, disable=not progress, file=sys.stderr)
    try:
        for stage in stages[:-1]:
            *_, now = itertools.islice(progressing(weights, stage), 2)
            weights = now.state.weights
            taken += max(int(now.state.steps), 0)
        for now in progressing(weights, stages[-1]):
            history.append((taken + max(int(now.state.steps), 0), float(now.state.loss)))
            bar.update(history[-1][0] - bar.n)
            bar.set_postfix_str(f"loss {history[-1][1]:.2e}")
            if len(history) > 1 and history[-1][1] > (1 - least_gain) * history[-2][1]:
                break
    except KeyboardInterrupt:
        if not history:
            raise
        bar.write(f"{label}: interrupted at step {history[-1][0]}, loss {history[-1][1]:.2e}.")
    bar.close()
    loss = float(now.state.loss)
    report = FitReport(
        loss=loss,
        terms={name: float(value) for name, value in now.terms.items()},
        steps=history[-1][0],
        converged=loss <= solver.tolerance,
        tolerance=solver.tolerance,
        cpu_seconds=time.process_time() - start,
        history=history,
    )
    return now.state.weights, report

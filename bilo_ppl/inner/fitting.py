"""A solver on one large problem, by chunks of steps: pretraining and consolidation are such fits."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._blocks import BlockReport, Lengths, run_blocks
from bilo_ppl._types import Weights
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.solvers import AbstractInnerSolver, advance

__all__ = ["FitReport", "fit"]


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


class _Reached(NamedTuple):
    """What leaves the compiled function after a block of steps."""

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
    fitting = _Fit(solver, rows, weights, stages, least_gain)
    run_blocks(
        fitting.block,
        max(1, solver.max_steps + (len(stages) - 1) * chunk),
        label=label,
        unit="step",
        # What `least_gain` means, and so the result, depends on the chunks: not on the time they take.
        lengths=Lengths(chunk, fixed=True),
        progress=progress,
    )
    reached, history = fitting.at_the_end()
    loss = float(reached.state.loss)
    report = FitReport(
        loss=loss,
        terms={name: float(value) for name, value in reached.terms.items()},
        steps=history[-1][0],
        converged=loss <= solver.tolerance,
        tolerance=solver.tolerance,
        cpu_seconds=time.process_time() - start,
        history=history,
    )
    return reached.state.weights, report


class _Fit:
    """A fit in blocks: the first of a stage evaluates where the stage starts, the others take steps."""

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stages: Sequence[Any],
        least_gain: float,
    ):
        self.weights, self.stages, self.least_gain = weights, list(stages), least_gain
        self.reached: _Reached | None = None
        """Where the first of ``stages``, those that are not done, stands; None before it starts."""
        self.taken = 0
        """Steps in the stages that are done."""
        self.history: list[tuple[int, float]] = []
        blank = eqx.filter_eval_shape(lambda: solver.init(rows(stages[-1]), weights))
        self._blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)

        @eqx.filter_jit
        def run(weights, state, first, stage, length):
            problem = rows(stage)
            # One compilation serves the start and every chunk of every stage.
            state = jax.lax.cond(first, lambda: solver.init(problem, weights), lambda: state)
            upto = jnp.where(first, state.steps, state.steps + length)
            state = advance(solver, problem, state, upto)
            return _Reached(state, problem.terms(state.weights), solver.terminate(state))

        self._run = run

    def block(self, length: int) -> BlockReport:
        """At most ``length`` steps of the present stage; none, but an evaluation, at its start."""
        old, last = self.reached, len(self.stages) == 1
        state = self._blank if old is None else old.state
        first, count = jnp.array(old is None), jnp.asarray(length)
        new = self._run(self.weights, state, first, self.stages[0], count)
        steps, loss = _steps(new), float(new.state.loss)
        report = BlockReport(
            steps - (0 if old is None else _steps(old)),
            f"loss {loss:.1e}",
            finished=last and (bool(new.done) or self._gains_little(loss)),
        )
        self.reached = new
        if last:
            self.history.append((self.taken + steps, loss))
        elif old is not None or bool(new.done):
            self._next_stage()
        return report

    def _gains_little(self, loss: float) -> bool:
        return bool(self.history) and loss > (1 - self.least_gain) * self.history[-1][1]

    def _next_stage(self) -> None:
        assert self.reached is not None
        self.taken += _steps(self.reached)
        self.weights = self.reached.state.weights
        self.stages, self.reached = self.stages[1:], None

    def at_the_end(self) -> tuple[_Reached, list[tuple[int, float]]]:
        """The best of the last stage, and the history; a fit interrupted before it is evaluated there."""
        if not self.history:
            self.stages, self.reached = self.stages[-1:], None
            self.block(0)
        assert self.reached is not None
        return self.reached, self.history


def _steps(reached: _Reached) -> int:
    return max(int(reached.state.steps), 0)

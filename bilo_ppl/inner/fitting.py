"""A solver on one large problem, by chunks of steps: pretraining and consolidation are such fits."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh

from bilo_ppl._blocks import Ended, Lengths, run_blocks
from bilo_ppl._expected import Work
from bilo_ppl._types import Weights
from bilo_ppl.inner.arithmetic import STEP_OF_A_FIT
from bilo_ppl.inner.fit_by_parts import FitByParts, is_large_fit
from bilo_ppl.inner.fit_checkpoint import ResumableFit
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.solvers import AbstractInnerSolver
from bilo_ppl.inner.whole_fit import WholeFit

__all__ = ["FitReport", "fit"]

PART_STEPS = 8
"""Steps on parts in the place of one on all rows, at most."""

LEAST_PARTS = 15
"""Steps on parts in a chunk, at least: a chunk ends with an evaluation of many more rows."""


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
    unseen_loss: float | None = None
    """Loss at points that no fit has seen; None where that was not looked at."""
    adequate: bool = True
    """Whether the points suffice, as far as that was looked at."""
    interrupted: bool = False
    """Whether Ctrl-C ended the fit."""

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {value:.2e}" for name, value in self.terms.items())
        reached = "reached" if self.converged else "NOT reached"
        unseen = "" if self.unseen_loss is None else f"; at unseen points {self.unseen_loss:.2e}"
        unseen += "" if self.adequate else ": the points do NOT suffice"
        return (
            f"loss {self.loss:.2e} ({terms}) after {self.steps} steps, {self.cpu_seconds:.1f} CPU s; "
            f"tolerance {self.tolerance:.0e} {reached}{unseen}"
        )


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
    enough: Callable[[Weights, float], bool] | None = None,
    parameters: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[Weights, FitReport]:
    """Run a solver in chunks with a progress bar; the best weights survive Ctrl-C.

    ``rows(stage)`` makes the `LeastSquares` problem (inside a compiled function, so that the problem's
    arrays are not copied between chunks). The last of ``stages`` is the problem to solve; those before
    it, of the same structure, lead there and get a chunk of steps each. In the last one a chunk that
    lowers the loss by a smaller part than ``least_gain`` is the last.

    ``enough(weights, loss)``, asked after every chunk of the last stage, may end it too.

    ``parameters`` of the network, of which ``weights`` may be few, tell what a step costs next to
    those of other fits.

    With a ``mesh`` (`device_mesh`) the rows of every step are spread over its devices.

    A large problem is solved by parts of its rows: see `FitByParts`. The loss of the report is that on
    all of them, of very many on 262 144 items.
    """
    start = time.process_time()
    large = is_large_fit(rows(stages[-1]).count)
    limit = solver.max_steps * (PART_STEPS if large else 1)
    chunk = max(1, -(-solver.max_steps // chunks), LEAST_PARTS if large else 0)
    kind = FitByParts if large else WholeFit
    fitting = kind(solver, rows, weights, stages, least_gain, enough, mesh)
    ended = run_blocks(
        fitting.block,
        max(1, limit + (len(stages) - 1) * chunk),
        label=label,
        unit="step",
        # What `least_gain` means, and so the result, depends on the chunks: not on the time they take.
        lengths=Lengths(chunk, fixed=True),
        progress=progress,
        work=Work(STEP_OF_A_FIT, fitting.arithmetic(parameters)),
        # What is spread over devices stays there.
        resumable=ResumableFit(fitting) if mesh is None else None,
    )
    reached, history = fitting.at_the_end()
    loss = float(reached.loss)
    report = FitReport(
        loss=loss,
        terms={name: float(value) for name, value in reached.terms.items()},
        steps=history[-1][0],
        converged=loss <= solver.tolerance,
        tolerance=solver.tolerance,
        cpu_seconds=time.process_time() - start,
        history=history,
        interrupted=ended is Ended.INTERRUPTED,
    )
    return reached.weights, report

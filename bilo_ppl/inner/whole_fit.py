"""A fit in blocks of steps on all of its rows, through stages that lead to the problem to solve."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bilo_ppl._blocks import BlockReport
from bilo_ppl._types import Weights
from bilo_ppl.inner.arithmetic import step_arithmetic
from bilo_ppl.inner.least_squares import LeastSquares
from bilo_ppl.inner.sharding import everywhere
from bilo_ppl.inner.solvers import AbstractInnerSolver
from bilo_ppl.inner.stepping import AllRows, Reached
from bilo_ppl.network.trainable import count_parameters

__all__ = ["WholeFit"]


class WholeFit:
    """A fit in blocks: the first of a stage evaluates where the stage starts, the others take steps."""

    def __init__(
        self,
        solver: AbstractInnerSolver,
        rows: Callable[[Any], LeastSquares],
        weights: Weights,
        stages: Sequence[Any],
        least_gain: float,
        enough: Callable[[Weights, float], bool] | None,
        mesh: Mesh | None = None,
    ):
        self.solver, self.enough, self.mesh = solver, enough, mesh
        self.rows = lambda stage: rows(stage).over(mesh)
        self.weights, self.stages, self.least_gain = weights, list(stages), least_gain
        self.state: Any = None
        """The solver's in the first of ``stages``, those that are not done; None before it starts."""
        self.reached: Reached | None = None
        """The best of the last stage."""
        self.taken = 0
        self.history: list[tuple[int, float]] = []
        """Steps and loss in the last stage."""
        self.items = rows(stages[-1]).count
        self.steps: Any = self._stepping()

    def _stepping(self) -> Any:
        return AllRows(self.solver, self.rows, self.weights, self.stages[-1], mesh=self.mesh)

    def arithmetic(self, parameters: int | None = None) -> float:
        """Of a first step, see `step_arithmetic`; ``parameters`` of the network, if there are more."""
        trained = count_parameters(self.weights)
        rows = round(self._items_seen * self._rows_per_item)
        return step_arithmetic(rows, trained, max(parameters or 0, trained))

    @property
    def _items_seen(self) -> int:
        """Items that a step sees."""
        return self.items

    @cached_property
    def _rows_per_item(self) -> float:
        problem = self.rows(self.stages[-1]).over(None)
        return jax.eval_shape(problem.rows, self.weights).size / problem.count

    def block(self, length: int) -> BlockReport:
        """At most ``length`` steps of the present stage; none, but an evaluation, at its start."""
        starts, last, begun = self.state is None, len(self.stages) == 1, time.perf_counter()
        new = self.steps(self.weights, self.state, self.stages[0], length)
        steps, loss = int(new.steps), float(new.loss)
        at_work = time.perf_counter() - begun
        self.taken += steps
        self.weights, self.state = new.weights, new.state
        finished = False
        if last:
            suffices = self._is_enough(new, loss)
            finished = bool(new.done) or self._gains_little(loss) or suffices
            self._note(new, loss)
            # Another loss may be less, but it is these weights that are enough.
            if suffices:
                self.reached = new
        elif not starts or bool(new.done):
            self.stages, self.state = self.stages[1:], None
        return BlockReport(steps, f"loss {loss:.1e}", finished=finished, at_work=at_work)

    def _is_enough(self, new: Reached, loss: float) -> bool:
        if self.enough is None:
            return False
        answer = self.enough(new.weights, loss)
        # All processes must go the same way.
        return answer if self.mesh is None else bool(everywhere(np.array(answer), self.mesh))

    def _note(self, new: Reached, loss: float) -> None:
        self.reached = new
        self.history.append((self.taken, loss))

    def _gains_little(self, loss: float) -> bool:
        return bool(self.history) and loss > (1 - self.least_gain) * self.history[-1][1]

    def at_the_end(self) -> tuple[Reached, list[tuple[int, float]]]:
        """The best of the last stage, and the history; a fit interrupted before it is evaluated there."""
        if self.reached is None:
            self.stages, self.state = self.stages[-1:], None
            self.block(0)
        assert self.reached is not None
        return self.reached, self.history

"""The iteration on the host: blocks of steps, and their history."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bilo_ppl._blocks import BlockReport, Ended, Lengths, run_blocks
from bilo_ppl._snapshot import Saved, Snapshot
from bilo_ppl.estimate.line_search import LeastSquaresTrials, Trials
from bilo_ppl.estimate.loop import Kept, MapState, descend
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.result import History
from bilo_ppl.estimate.stopping import Status, Stopping

__all__ = ["Descent"]

BLOCK = 256
"""Largest number of steps in one call of the compiled function."""

GAUSS_NEWTON_STEPS, LBFGS_STEPS = 16, 60
"""As many as descents of few and of many unknowns take as a rule."""


class Descent:
    """An iteration from a state on; what it went through is its `history`."""

    def __init__(
        self,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        stopping: Stopping,
        state: MapState,
        history: History | None,
    ):
        self.objective, self.optimizer, self.stopping = objective, optimizer, stopping
        self.state, self.former = state, history
        self.parts: list[History] = []
        spent = 0.0 if history is None or not history.steps else float(history.cpu_seconds[-1])
        self.started = time.process_time() - spent

    def run(self, steps: int, progress: bool) -> bool:
        """Up to ``steps`` steps; whether Ctrl-C ended them."""
        ended = run_blocks(
            self._block,
            steps,
            label="estimate",
            unit="step",
            lengths=Lengths(BLOCK, growth=4),
            progress=progress,
            typical=self._typical,
            resumable=self,
        )
        return ended is Ended.INTERRUPTED

    def snapshot(self) -> Snapshot:
        """Where it stands between two blocks: see `bilo_ppl._checkpoint`."""
        spent = time.process_time() - self.started
        sites = [] if not self.parts else list(self.parts[0].values)
        return Snapshot(self.state, {"cpu_seconds": spent, "sites": sites}, list(self.parts))

    def restore(self, saved: Saved) -> None:
        """Go on from a snapshot of a descent of the same kind, as if there had been no interruption."""
        blank = History(*([0] * 6), values=dict.fromkeys(saved.notes["sites"], 0), cpu_seconds=0)  # pyright: ignore[reportArgumentType]
        parts = saved.parts(blank)
        self.state, self.parts = saved.tree(self.state), parts
        self.started = time.process_time() - saved.notes["cpu_seconds"]

    @property
    def _typical(self) -> int | None:
        """Steps that such a descent needs as a rule; None: that is not known."""
        if isinstance(self.optimizer, LeastSquaresTrials):
            return GAUSS_NEWTON_STEPS
        return LBFGS_STEPS if isinstance(self.optimizer, Trials) else None

    def _block(self, length: int) -> BlockReport:
        before = int(self.state.steps)
        cpu = time.process_time() - self.started
        state, kept = descend(
            self.objective, self.optimizer, self.stopping, BLOCK, self.state, jnp.asarray(length)
        )
        self.state = jax.block_until_ready(state)
        taken = int(state.steps) - before
        kept = Kept(*jax.tree.map(lambda leaf: np.asarray(leaf)[:taken], tuple(kept)))
        clock = np.linspace(cpu, time.process_time() - self.started, taken + 1)[1:]
        self.parts.append(History(*kept, cpu_seconds=clock))
        finished = int(state.status) != Status.RUNNING
        return BlockReport(taken, self._postfix(), finished)

    def _postfix(self) -> str:
        last = self.parts[-1]
        return (
            f"U {last.energy[-1]:.5g}, data loss {last.data_loss[-1]:.4g}, "
            f"PDE loss {last.inner_loss[-1]:.1e}, gradient {last.gradient[-1]:.1e}"
        )

    @property
    def history(self) -> History:
        """All steps, those before a resumption included."""
        parts = self.parts if self.former is None else [self.former, *self.parts]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

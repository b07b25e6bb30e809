"""The iteration on the host: blocks of steps, progress, Ctrl-C, history."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from bilo_ppl.estimate.loop import Kept, MapState, advance
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.result import History
from bilo_ppl.estimate.stopping import Status, Stopping

__all__ = ["Descent"]

BLOCK = 256
"""Largest number of steps in one call of the compiled function."""

BLOCK_SECONDS = 1.0
"""Time that a call should take: Ctrl-C has to wait for it."""


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
        bar = tqdm(total=steps, desc="estimate", disable=not progress, file=sys.stderr, unit="step")
        done, length = 0, 1
        with bar:
            try:
                while done < steps and int(self.state.status) == Status.RUNNING:
                    begun = time.perf_counter()
                    taken = self._block(min(length, BLOCK, steps - done))
                    done += taken
                    bar.update(taken)
                    bar.set_postfix_str(self._postfix())
                    fitting = BLOCK_SECONDS * taken / (time.perf_counter() - begun)
                    length = int(np.clip(fitting, 1, 4 * length))
            except KeyboardInterrupt:
                return True
        return False

    def _block(self, length: int) -> int:
        before = int(self.state.steps)
        cpu = time.process_time() - self.started
        state, kept = advance(
            self.objective, self.optimizer, self.stopping, BLOCK, self.state, jnp.asarray(length)
        )
        self.state = jax.block_until_ready(state)
        taken = int(state.steps) - before
        kept = Kept(*jax.tree.map(lambda leaf: np.asarray(leaf)[:taken], tuple(kept)))
        clock = np.linspace(cpu, time.process_time() - self.started, taken + 1)[1:]
        self.parts.append(History(*kept, cpu_seconds=clock))
        return taken

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
        if not parts:
            raise KeyboardInterrupt
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

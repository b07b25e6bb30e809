"""How a fit stands between two blocks, to be kept, and to go on from in another process."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from bilo_ppl._snapshot import Saved, Snapshot
from bilo_ppl.inner.fit_by_parts import FitByParts
from bilo_ppl.inner.stepping import Reached
from bilo_ppl.inner.whole_fit import WholeFit

__all__ = ["ResumableFit"]


class ResumableFit:
    """A fit on one device in its checkpoint; see `bilo_ppl._checkpoint`."""

    def __init__(self, fit: WholeFit):
        self.fit = fit

    def snapshot(self) -> Snapshot:
        """The weights, the solver's state, and the best so far."""
        fit, best = self.fit, self.fit.reached
        notes: dict[str, Any] = {
            "stages": len(fit.stages),
            "taken": fit.taken,
            "history": list(fit.history),
            "asked": fit.steps.taken,
            "started": fit.state is not None,
            "best": None,
        }
        if best is not None:
            notes["best"] = {
                "loss": float(best.loss),
                "terms": {name: float(value) for name, value in best.terms.items()},
            }
        if isinstance(fit, FitByParts):
            notes["rows"] = [fit.count, fit.sampled, fit.stalled, fit.sample_steps]
        tree = fit.weights, None if best is None else best.weights, fit.state
        return Snapshot(tree, notes)

    def restore(self, saved: Saved) -> None:
        """Go on from a snapshot of a fit of the same problem."""
        fit, notes = self.fit, saved.notes
        steps = fit.steps_on(*notes["rows"][:2]) if isinstance(fit, FitByParts) else fit.steps
        like = (
            fit.weights,
            fit.weights if notes["best"] else None,
            steps.blank if notes["started"] else None,
        )
        fit.weights, best, fit.state = saved.tree(like)
        fit.reached = None if best is None else _reached(best, **notes["best"])
        fit.stages, fit.taken = fit.stages[-notes["stages"] :], notes["taken"]
        fit.history = [(taken, loss) for taken, loss in notes["history"]]
        fit.steps, steps.taken = steps, notes["asked"]
        if isinstance(fit, FitByParts):
            fit.count, fit.sampled, fit.stalled, fit.sample_steps = notes["rows"]


def _reached(weights: Any, loss: float, terms: dict[str, float]) -> Reached:
    """What is known of the best: no more is asked of it."""
    known = {name: np.float64(value) for name, value in terms.items()}
    over = jnp.array(False)
    return Reached(None, weights, np.float64(loss), known, np.float64(loss), 0, over, over)

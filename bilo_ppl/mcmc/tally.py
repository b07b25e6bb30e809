"""What transitions did, in words."""

from collections.abc import Mapping

import numpy as np

__all__ = ["Tally"]


class Tally:
    """What the transitions of a run did, in words: all of them so far, in all chains."""

    def __init__(self):
        self.transitions = self.leapfrogs = self.inner_steps = self.divergences = 0
        self.acceptance = self.second = 0.0

    def add(self, kept: Mapping[str, np.ndarray]) -> str:
        """Count a block; the text for the progress bar."""
        self.transitions += kept["num_steps"].size
        self.leapfrogs += int(kept["num_steps"].sum())
        self.divergences += int(kept["diverging"].sum())
        self.acceptance += float(kept["accept_prob"].sum())
        parts = [
            f"acceptance {self.acceptance / self.transitions:.2f}",
            f"{self.leapfrogs / self.transitions:.1f} leapfrog steps",
            f"step size {kept['adapt_state.step_size'][:, -1].mean():.2g}",
        ]
        if "second_accept_prob" in kept:
            self.second += float(kept["second_accept_prob"].sum())
            parts.append(f"second stage {self.second / self.transitions:.2f}")
        if "inner_steps" in kept:
            self.inner_steps += int(kept["inner_steps"].sum())
            parts.append(f"{self.inner_steps / max(self.leapfrogs, 1):.1f} inner steps each")
        if self.divergences:
            parts.append(f"{self.divergences} divergences")
        return ", ".join(parts)

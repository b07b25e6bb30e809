"""What two stages have accepted, and what the spread of U - V lets one expect."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["StageAcceptance", "predicted_acceptance", "stage_acceptance"]


class StageAcceptance(NamedTuple):
    """Acceptances of the draws of a `TwoStage`; NaN where there is nothing to take a mean of.

    >>> stages.draws, stages.solves  # of the example before: a solve a draw
    (400, 400)
    >>> str(stages)[:23]
    'acceptance: first stage'
    """

    first: float
    """Mean acceptance of the transitions on the cheap energy V."""
    second: float
    """Mean acceptance of their ends against U."""
    predicted: float
    """The second one as the spread of U - V predicts it, see `predicted_acceptance`."""
    spread: float
    """Standard deviation of U - V over the draws at which V is finite, nats."""
    walk: float
    """Mean acceptance of the random walk's steps."""
    walks: int
    """How many there were."""
    beyond: int
    """Draws at which V is not finite: the first stage would never have come there."""
    solves: int
    """Evaluations of U."""
    draws: int

    def __str__(self) -> str:
        walked = f", random walk {self.walk:.2f} ({self.walks} steps)" if self.walks else ""
        beyond = f" {self.beyond} draws lie where the first stage cannot go." if self.beyond else ""
        return (
            f"acceptance: first stage {self.first:.2f}, second {self.second:.2f} (predicted "
            f"{self.predicted:.2f} from sd(U - V) = {self.spread:.2g}){walked}; {self.solves} solves of "
            f"the second operator for {self.draws} draws.{beyond}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict()


def predicted_acceptance(spread: float) -> float:
    """Acceptance of the second stage where U - V is Gaussian with standard deviation ``spread``, in nats.

    For independent proposals from exp(-V) the log ratio is then N(-s^2, 2 s^2), which gives
    2 Phi(-s / sqrt 2): 0.94 at 0.1, 0.72 at 0.5, 0.48 at 1. Proposals that stay near are accepted more
    often.

    >>> from bilo_ppl.mcmc import predicted_acceptance
    >>> [round(predicted_acceptance(spread), 2) for spread in (0.1, 0.5, 1.0)]
    [0.94, 0.72, 0.48]
    """
    return math.erfc(spread / 2)


def stage_acceptance(statistics: Mapping[str, Any]) -> StageAcceptance:
    """Sum up the statistics ``(chains, draws)`` of a run of `TwoStage`, such as `Draws.statistics`.

    Raises a ``ValueError`` if they are of another kernel.

    >>> stages = bilo.stage_acceptance(two.statistics)
    >>> bool(stages.second > 0.5)
    True
    """
    needed = ("potential_energy", "first_energy", "accept_prob", "second_accept_prob")
    if missing := [n for n in (*needed, "walked", "second_solves") if n not in statistics]:
        raise ValueError(f"stage_acceptance: no statistics {missing}; give those of a TwoStage.")
    found = {name: np.asarray(values) for name, values in statistics.items()}
    walked = found["walked"].astype(bool)
    error = found["potential_energy"] - found["first_energy"]
    finite = np.isfinite(error)
    spread = float(error[finite].std()) if finite.any() else math.nan
    return StageAcceptance(
        first=_mean(found["accept_prob"][~walked]),
        second=_mean(found["second_accept_prob"][~walked]),
        predicted=predicted_acceptance(spread),
        spread=spread,
        walk=_mean(found["second_accept_prob"][walked]),
        walks=int(walked.sum()),
        beyond=int((~np.isfinite(found["first_energy"])).sum()),
        solves=int(found["second_solves"].sum()),
        draws=walked.size,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan

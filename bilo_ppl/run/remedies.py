"""What to do about a verdict that is not right: likely causes, and the options against them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from bilo_ppl.diagnostics.report import ESS_LIMIT, R_HAT_LIMIT
from bilo_ppl.diagnostics.verdict import DIVERGING_LIMIT, UNSOLVED_LIMIT, Evidence
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.settings import CommonSettings

__all__ = ["Operating", "for_draws", "for_estimates", "operating"]

APART = 1.1
"""R-hat above which chains are at different places, and not only short."""

UNSOLVABLE = (
    "nothing that was tried solves the PDE where transitions diverged: keep the prior to where it has a "
    "solution, or try --fine-tune increments"
)

MARGIN = 1.2
"""So many times as many draws as those that should be enough."""

SMALLER_STEPS = 0.95
"""Acceptance that warm-up is asked for where the steps are too long."""


@dataclasses.dataclass(frozen=True)
class Operating:
    """What is behind the solutions of a run, as far as it says which options there are."""

    features: bool
    numerical: bool
    rank: int
    tolerance: float | None

    def knowing_more(self) -> str:
        """What lets the operator know a larger region of theta."""
        if self.numerical:
            return "keep the prior to where the equation has a solution"
        if self.features:
            return "take more features at more points (--width, --points)"
        if not self.rank:
            return "allow more --max-inner-steps"
        return f"let it know more (--rank {2 * self.rank}), or allow more --max-inner-steps"

    def tighter(self) -> str:
        """What makes solutions better."""
        more = " with more features (--width, --points)" if self.features else ""
        tol = "a smaller --tol" if self.tolerance is None else f"--tol {self.tolerance / 10:.0e}"
        return f"take {tol}{more}"


def operating(
    settings: CommonSettings, operator: AbstractSolutionOperator, tolerance: float | None
) -> Operating:
    """Of a run with these settings."""
    features = isinstance(operator, OutputLayer)
    return Operating(features, not settings.fine_tuned, settings.rank, tolerance)


def for_draws(
    evidence: Evidence,
    operating: Operating,
    *,
    samples: int,
    warmup: int,
    target_accept: float,
    nothing_solves: bool = False,
) -> tuple[str, ...]:
    """A sentence for each doubt about draws, in the order of the doubts.

    The numbers are those of the run: draws and warm-up transitions of each chain. With
    ``nothing_solves`` it is known that more features do not solve either where transitions diverged.
    """
    return (
        *((UNSOLVABLE,) if nothing_solves else _of_divergences(evidence, operating, target_accept)),
        *(() if evidence.interrupted else _of_chains(evidence, samples, warmup)),
        *_of_solves(evidence, operating),
        *_of_fits(evidence),
        *_of_distances(evidence),
        *_of_ending(evidence.interrupted),
    )


def for_estimates(
    *,
    short: bool,
    steps: int,
    simultaneous: bool,
    unsolved: bool,
    accuracy: Any,
    operating: Operating,
    interrupted: bool,
) -> tuple[str, ...]:
    """The same for point estimates, of which some descents were too ``short``, or are ``unsolved``."""
    found: list[str] = []
    if unsolved:
        found.append(f"the PDE is not solved at an estimate: {operating.knowing_more()}")
    if short:
        slower = ", or a smaller --learning-rate" if simultaneous else ""
        found.append(f"a descent has not come to its end: allow --steps {2 * steps}{slower}")
    if accuracy is not None and accuracy.alarming:
        found.append(f"u is not right enough for these data: {operating.tighter()}")
    return (*found, *_of_ending(interrupted))


def _of_divergences(
    evidence: Evidence, operating: Operating, target_accept: float
) -> Sequence[str]:
    number = evidence.diverging
    if number is None or number <= DIVERGING_LIMIT * evidence.transitions:
        return ()
    failures = evidence.solver_failures
    by_solves = 2 * failures > number if failures is not None else bool(evidence.unsolved)
    if by_solves:
        return (
            "the divergences are most likely proposals at which the PDE is not solved: "
            + operating.knowing_more(),
        )
    smaller = (
        f"take smaller steps (--target-accept {SMALLER_STEPS})"
        if target_accept < SMALLER_STEPS
        else "write the model with unknowns that are less correlated"
    )
    return (f"the divergences are most likely steps too long for the posterior: {smaller}",)


def _of_chains(evidence: Evidence, samples: int, warmup: int) -> Sequence[str]:
    if not evidence.moves:
        return ("a chain that never moves has no draws: look at the prior, and where it starts",)
    if math.isnan(evidence.r_hat) or math.isnan(evidence.ess):
        return ("there are too few draws to judge: take the default --chains and --samples",)
    if evidence.r_hat > APART:
        return (
            "the chains are at different places: a warm-up that was too short "
            f"(--warmup {2 * max(warmup, 250)}), or several modes (look at figures/trace.png)",
        )
    if evidence.r_hat <= R_HAT_LIMIT and evidence.ess >= ESS_LIMIT:
        return ()
    wanted = samples * max(MARGIN * ESS_LIMIT / max(evidence.ess, 1.0), 2.0)
    return (f"draw more: --samples {_rounded(wanted)} --resume extends this run",)


def _of_solves(evidence: Evidence, operating: Operating) -> Sequence[str]:
    found: list[str] = []
    missed, total = evidence.unsolved, evidence.draws_solved_anew
    if missed is not None and missed > UNSOLVED_LIMIT * total:
        found.append(
            f"the operator does not know all of the posterior region: {operating.knowing_more()}"
        )
    made = [one for one in evidence.certificates.values() if one is not None]
    if not evidence.certifiable or not evidence.certificates:
        return found
    if any(one.distorted for one in made):
        found.append(f"u is not right enough for these data: {operating.tighter()}")
    elif not any(one.trustworthy for one in made):
        found.append(
            "no certificate tells: draw more, or write a numerical operator, reference(), in the model"
        )
    return found


def _of_fits(evidence: Evidence) -> Sequence[str]:
    wrong = [fit for fit in evidence.fits.values() if fit.contradicts]
    if not wrong:
        return ()
    cause = (
        "the equation lacks something, or sigma is smaller than the noise"
        if wrong[0].chi_square > 1
        else "sigma is larger than the noise"
    )
    return (f"the data are not those of the model: {cause}; look at figures/solution.png",)


def _of_distances(evidence: Evidence) -> Sequence[str]:
    if evidence.means_off and not any(
        one is not None and one.distorted for one in evidence.certificates.values()
    ):
        return (
            "a mean is not that of the grid: the chains have missed something, or the grid has; "
            "look at figures/posterior.png",
        )
    return ()


def _of_ending(interrupted: bool) -> Sequence[str]:
    return ("--resume goes on with it",) if interrupted else ()


def _rounded(count: float) -> int:
    """The next number of two digits."""
    unit = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    return math.ceil(count / unit) * unit

"""One honest line on a run: right as far as checked, doubtful, or failed; and why.

It is made of what has been measured, and says what has not been. Nothing here is a proof: a posterior may
have a part that no chain has seen and no certificate was asked about.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bilo_ppl.diagnostics.fit import Fit
from bilo_ppl.diagnostics.report import ESS_LIMIT, R_HAT_LIMIT

__all__ = ["Evidence", "State", "Verdict", "judge", "judge_estimates"]

DIVERGING_LIMIT, UNSOLVED_LIMIT = 0.01, 0.01
"""Parts of transitions that diverge, and of draws that are not solved, beyond which there is doubt."""

FAILED_SOLVES = 0.5
"""Part of the draws that are not solved, from which on they are draws of nothing."""

SHIFT_LIMIT, STANDARD_ERRORS = 0.1, 4.0
"""Distance of a mean from the exact one, in posterior standard deviations and in Monte Carlo errors."""

SHOWN = 120
"""Characters of an alarm in the line."""


class State(enum.Enum):
    """What a run is worth."""

    RIGHT = "RIGHT AS FAR AS CHECKED"
    DOUBTFUL = "DOUBTFUL"
    FAILED = "FAILED"


class Verdict(NamedTuple):
    """A state, and what speaks for it."""

    state: State
    reasons: tuple[str, ...]
    """Why it is not right, the gravest first; empty where it is."""
    checked: tuple[str, ...]
    """What has been looked at and found good."""
    unchecked: tuple[str, ...]
    """What has not been looked at."""
    advice: tuple[str, ...] = ()
    """What to do about the reasons, as far as that is known."""

    def __str__(self) -> str:
        if self.reasons:
            return f"Verdict: {self.state.value} because {'; '.join(self.reasons)}."
        unchecked = f"; not checked: {', '.join(self.unchecked)}" if self.unchecked else ""
        return f"Verdict: {self.state.value} ({', '.join(self.checked)}{unchecked})."

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("reasons", "checked", "unchecked", "advice")
        lists = {name: list(getattr(self, name)) for name in names}
        return {"state": self.state.name, "text": str(self), **lists}


class Evidence(NamedTuple):
    """What is known of the draws of a run; None, or nothing in a mapping, where it is not."""

    r_hat: float
    """The largest of all unknowns, NaN where it cannot be computed of one."""
    ess: float
    """The smallest effective number of draws, in the bulk or the tails."""
    transitions: int
    diverging: int | None
    draws_solved_anew: int
    unsolved: int | None
    """Of these draws, those whose solve has missed its tolerance."""
    certificates: Mapping[str, Any]
    """`Certificate` by name; None of one that could not be made."""
    certifiable: bool
    """Whether there is anything to certify: a numerical operator has nothing better."""
    fits: Mapping[str, Fit]
    distances: Mapping[str, Any] = {}
    """`Distances` from an exact posterior by unknown."""
    moves: bool = True
    """Whether every unknown has more than one value among the draws, all of them finite."""
    alarms: Sequence[str] = ()
    """What stages before have warned of."""
    interrupted: bool = False
    solver_failures: int | None = None
    """Diverging transitions in which an inner solve missed its tolerance."""

    @property
    def means_off(self) -> tuple[str, ...]:
        """Unknowns whose mean is not the exact one."""
        return tuple(
            name
            for name, found in self.distances.items()
            if abs(found.mean_error) > STANDARD_ERRORS and _shift(found) > SHIFT_LIMIT
        )


class _Opinion:
    """Reasons and checks, as they are found."""

    def __init__(self):
        self.failures: list[str] = []
        self.doubts: list[str] = []
        self.checked: list[str] = []
        self.unchecked: list[str] = []

    def verdict(self) -> Verdict:
        state = State.FAILED if self.failures else State.DOUBTFUL if self.doubts else State.RIGHT
        reasons = (*self.failures, *self.doubts)
        return Verdict(state, reasons, tuple(self.checked), tuple(self.unchecked))


def judge(evidence: Evidence) -> Verdict:
    """The verdict on draws: the worst of what convergence, solves, certificates, fit and alarms say."""
    opinion = _Opinion()
    _judge_transitions(evidence, opinion)
    _judge_convergence(evidence, opinion)
    _judge_solves(evidence, opinion)
    _judge_certificates(evidence, opinion)
    _judge_fit(evidence, opinion)
    _judge_distances(evidence, opinion)
    opinion.doubts += [f"a stage has warned: {_first_sentence(text)}" for text in evidence.alarms]
    if evidence.interrupted:
        opinion.doubts.append("it was interrupted")
    return opinion.verdict()


def _judge_transitions(evidence: Evidence, opinion: _Opinion) -> None:
    number, total = evidence.diverging, evidence.transitions
    if number is None:
        opinion.unchecked.append("divergences")
    elif number >= total:
        opinion.failures.append(f"all {total} transitions diverged")
    elif number > DIVERGING_LIMIT * total:
        opinion.doubts.append(f"{number} of {total} transitions diverged")
    else:
        opinion.checked.append(f"{number or 'no'} divergence{'s' * (number != 1)}")


def _judge_convergence(evidence: Evidence, opinion: _Opinion) -> None:
    if not evidence.moves:
        opinion.failures.append("an unknown has one value in all draws, or is not finite")
        return
    if np.isnan(evidence.r_hat) or np.isnan(evidence.ess):
        opinion.doubts.append("there are too few draws to tell whether the chains agree")
        return
    if evidence.r_hat > R_HAT_LIMIT:
        opinion.doubts.append(f"the chains have not mixed (R-hat {evidence.r_hat:.3f})")
    else:
        opinion.checked.append(f"R-hat {evidence.r_hat:.3f}")
    if evidence.ess < ESS_LIMIT:
        opinion.doubts.append(f"there are only {evidence.ess:.0f} effective draws")
    else:
        opinion.checked.append(f"{evidence.ess:.0f} effective draws")


def _judge_solves(evidence: Evidence, opinion: _Opinion) -> None:
    missed, total = evidence.unsolved, evidence.draws_solved_anew
    if missed is None or not total:
        if evidence.certifiable:
            opinion.unchecked.append("solves")
        return
    text = f"the PDE is not solved at {missed} of {total} draws"
    if missed > FAILED_SOLVES * total:
        opinion.failures.append(text)
    elif missed > UNSOLVED_LIMIT * total:
        opinion.doubts.append(text)
    else:
        opinion.checked.append(f"the PDE solved at {total - missed} of {total} draws")


def _judge_certificates(evidence: Evidence, opinion: _Opinion) -> None:
    """One that alarms outweighs all others; one that is good outweighs those that cannot tell."""
    if not evidence.certifiable:
        return
    if not evidence.certificates:
        opinion.unchecked.append("the solution of the PDE (no certificate)")
        return
    found = {name: one for name, one in evidence.certificates.items() if one is not None}
    alarming = [name for name, one in found.items() if one.distorted]
    good = [name for name, one in found.items() if one.trustworthy]
    if alarming:
        opinion.doubts.append(f"the certificate ({', '.join(alarming)}) is an ALARM")
    elif good:
        opinion.checked.append(f"certificate ({', '.join(good)}) GOOD")
    else:
        opinion.doubts.append(f"no certificate is decided ({', '.join(evidence.certificates)})")


def _judge_fit(evidence: Evidence, opinion: _Opinion) -> None:
    if not evidence.fits:
        opinion.unchecked.append("the fit to the data")
    for name, fit in evidence.fits.items():
        of = f" of {name}" if len(evidence.fits) > 1 else ""
        if fit.contradicts:
            opinion.doubts.append(f"model and data{of} contradict each other ({fit})")
        else:
            opinion.checked.append(f"fit{of} with p = {fit.p_value:.2g}")


def _judge_distances(evidence: Evidence, opinion: _Opinion) -> None:
    for name in evidence.means_off:
        shift = _shift(evidence.distances[name])
        opinion.doubts.append(f"the mean of {name} is {shift:.2f} sd from the exact one")
    if evidence.distances and not evidence.means_off:
        opinion.checked.append("means as on the grid")


def _shift(found: Any) -> float:
    """Distance of a mean from the exact one, in posterior standard deviations."""
    return abs(found.mean_error) / max(found.ess, 1.0) ** 0.5


def _first_sentence(text: str) -> str:
    sentence = text.removeprefix("WARNING: ").split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= SHOWN else f"{sentence[:SHOWN]} ..."


def judge_estimates(
    *,
    converged: Sequence[bool],
    solved: Sequence[bool],
    energies: Sequence[float],
    accuracy: Any = None,
    certifiable: bool = True,
    alarms: Sequence[str] = (),
    interrupted: bool = False,
) -> Verdict:
    """The verdict on point estimates of several data sets.

    Whether each descent has ``converged`` and its last solve is ``solved``, its U, and the
    `EstimateAccuracy` of the first.
    """
    opinion, total = _Opinion(), len(converged)
    if wrong := total - int(np.isfinite(energies).sum()):
        opinion.failures.append(f"U is not finite at {wrong} of {total} estimates")
    if missed := total - sum(solved):
        of = opinion.failures if missed == total else opinion.doubts
        of.append(f"the PDE is not solved at {missed} of {total} estimates")
    if short := total - sum(converged):
        opinion.doubts.append(f"{short} of {total} descents did not converge")
    else:
        opinion.checked.append(f"{total} of {total} descents converged")
    if certifiable and accuracy is None:
        opinion.unchecked.append("the solution of the PDE (no certificate)")
    elif certifiable and accuracy.alarming:
        opinion.doubts.append(
            f"a tighter solve moves the estimate by {accuracy.largest_shift:.2g} sd"
        )
    elif certifiable and not accuracy.good:
        opinion.doubts.append("its certificate is undecided")
    elif certifiable:
        opinion.checked.append("certificate GOOD")
    opinion.doubts += [f"a stage has warned: {_first_sentence(text)}" for text in alarms]
    if interrupted:
        opinion.doubts.append("it was interrupted")
    return opinion.verdict()

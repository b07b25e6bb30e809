"""What draws say against the operator that they were made with, and how much tighter it should be."""

import numpy as np

from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.features import worth_a_network
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.sample.beyond import told_of_divergences
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.sample.solves import over_sites
from bilo_ppl.validation.accuracy import NOISE_LIMIT

__all__ = ["contradictions", "may_give_way", "tightening", "without_remedy"]

MANY_STEPS, MANY_DIVERGENCES = 0.5, 0.02
"""Parts of draws that need inner steps, and of diverging transitions, which contradict an adaptation."""

LEAST_ACCEPTED = 0.1
"""Acceptance of a second stage below which its draws are too few, and the first one is adapted again."""

TIGHTENING = (1e-3, 0.25)
"""Between these lies the factor of a tolerance that has proved too loose."""


def contradictions(results: Results) -> list[str]:
    """What the draws say against the operator that they were made with; empty as it should be."""
    if results.stages is not None:
        accepted = f"The second stage accepts {results.stages.second:.0%} of its proposals."
        return [accepted] if results.stages.second < LEAST_ACCEPTED else []
    found = []
    tighter = results.certificates.get("tighter")
    if tighter is not None and tighter.distorted:
        found.append(f"A tighter solve disagrees: {tighter.verdict}")
    if results.closely is not None and results.plan.settings.adapts:
        steps, missed = over_sites(results.closely)
        # Of an output layer, a step is all that there is to do.
        if not isinstance(results.operator, OutputLayer) and np.mean(steps > 0) > MANY_STEPS:
            found.append(f"{np.mean(steps > 0):.0%} of the draws need inner steps.")
        if missed.any():
            found.append(f"At {missed.sum()} of {missed.size} draws the PDE is not solved anew.")
    return found + _divergences(results)


def _divergences(results: Results) -> list[str]:
    diverging = np.asarray(results.draws.statistics.get("diverging", False))
    many = diverging.mean() > MANY_DIVERGENCES
    return [f"{diverging.mean():.0%} of the transitions diverged."] if many else []


def may_give_way(plan: Plan[SampleSettings], operator: AbstractSolutionOperator) -> bool:
    """Whether another operator is made where the draws contradict this one."""
    if not plan.settings.adapts or plan.settings.output_layer:
        return False
    return not isinstance(operator, OutputLayer) or worth_a_network(plan)


def without_remedy(results: Results, found: list[str]) -> str | None:
    """Why another operator would be contradicted as well, where that is known; else None."""
    only_divergences = found == _divergences(results)
    return told_of_divergences(results) if found and only_divergences else None


def tightening(results: Results) -> float:
    """Factor of the tolerance by which the error of U would become as small as it should."""
    tighter = results.certificates.get("tighter")
    error = 0.0 if tighter is None else tighter.energy_error_sd
    error = error if results.stages is None else results.stages.spread
    if not error > NOISE_LIMIT:
        return 1.0
    return float(np.clip((NOISE_LIMIT / error / 2) ** 2, *TIGHTENING))

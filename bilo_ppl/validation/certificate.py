"""What a certificate says: statistics of a comparison with a better solution, and a verdict."""

import dataclasses
from typing import Any

import numpy as np

from bilo_ppl.mcmc.acceptance import predicted_acceptance

__all__ = ["PROBABILITIES", "Certificate"]

KL_LIMIT, EFFECTIVE_LIMIT, SHAPE_LIMIT = 0.01, 0.95, 0.7
"""Beyond these the correction is not small; 0.7 is the limit of PSIS."""

ERROR_LIMIT = 0.05
"""Error of the energy (sd) below which a heavy tail does no harm: k-hat knows no scale."""

MANY, SHOWN = 12, 6
"""Parameters beyond which only a few are listed, and how many."""

UNSOLVED_LIMIT, LEFT_OUT_LIMIT = 0.5, 0.1
"""Fractions of draws from which on agreement shows nothing: those whose better solution fell short of
its tolerance, and those that have none."""

PROBABILITIES = (0.05, 0.5, 0.95)
"""Of the quantiles."""

LEAST_DRAWS = 20
"""With fewer, weights that are even show nothing."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Importance-weight statistics of a subset of draws against a better solution.

    Examples:
        >>> coarse = bilo.FiniteDifferences(problem, nodes=5, theta=start)
        >>> bad = bilo.certify(model, draws, coarse, x, y, reference=exact, subset=40)
        >>> bad.trustworthy, bad.verdict[:5]
        (False, 'ALARM')
        >>> bad.kl_divergence > certificate.kl_divergence
        True
    """

    against: str
    """The better solution, in words."""
    draws: int
    """Draws that were recomputed."""
    unsolved: int
    """Draws at which the better solve did not reach its tolerance. A network's energy is used all the
    same, since it is nearer to exact than the draw's; a numerical operator's is left out."""
    left_out: int
    """Draws without a weight: not solved numerically, or an energy that is not finite."""
    achieved_loss: float
    """Median loss of the better solves (a numerical operator's own residual measure)."""
    energy_error_sd: float
    """Standard deviation of U - U_better over the draws (a constant difference does not matter)."""
    kl_divergence: float
    """Estimated KL divergence of the sampled posterior from the one corrected by the weights, nats."""
    effective_fraction: float
    """Effective sample size of the importance weights, relative to the number of draws."""
    pareto_k: float
    """PSIS k-hat, the tail index of the weights; NaN when they are too even to have a tail."""
    means: dict[str, tuple[float, float]]
    """Mean of every parameter: as sampled, and corrected by the Pareto-smoothed weights."""
    sds: dict[str, tuple[float, float]]
    """Standard deviation likewise."""
    quantiles: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = dataclasses.field(
        default_factory=dict
    )
    """Quantiles at `PROBABILITIES` likewise."""
    weights: Any = None
    """Pareto-smoothed weights of all draws, ``(chains, draws)``, that sum to 1; None where only a part of
    them was recomputed."""

    @property
    def largest_shift(self) -> float:
        """Largest change of a mean by the correction, in posterior standard deviations."""
        shifts = [abs(a - b) / self.sds[n][0] for n, (a, b) in self.means.items() if self.sds[n][0]]
        return max(shifts, default=0.0)

    @property
    def distorted(self) -> bool:
        """Whether the correction is not small: KL, effective fraction or k-hat beyond its limit."""
        return bool(
            self.kl_divergence >= KL_LIMIT
            or self.effective_fraction <= EFFECTIVE_LIMIT
            or self._heavy
        )

    @property
    def _heavy(self) -> bool:
        """Whether a few weights dominate; NaN is a set of weights without a tail."""
        return self.pareto_k >= SHAPE_LIMIT and self.energy_error_sd >= ERROR_LIMIT

    @property
    def can_reweight(self) -> bool:
        """Whether weighted draws may stand for the better solution's posterior: k-hat below 0.7."""
        return self.conclusive and not self._heavy

    @property
    def two_stage_acceptance(self) -> float:
        """Acceptance that the second stage of `TwoStage` would have, about, with the better solution."""
        return predicted_acceptance(self.energy_error_sd)

    @property
    def advice(self) -> str:
        """Of draws that the better solution would move: what would make them right, in a sentence."""
        if not self.distorted or not self.conclusive:
            return ""
        stages = f"two stages would accept about {self.two_stage_acceptance:.0%} of their proposals"
        if not self.can_reweight:
            return f"Reweighting cannot correct these draws (k-hat {self.pareto_k:.2f}); {stages}."
        return (
            f"Reweighting all draws would correct them, at {self.effective_fraction:.0%} of their "
            f"number; {stages}."
        )

    @property
    def conclusive(self) -> bool:
        """Whether the better solution was found at enough draws for agreement to mean something."""
        few = self.unsolved < UNSOLVED_LIMIT * self.draws
        return few and self.left_out <= LEFT_OUT_LIMIT * self.draws and self._enough

    @property
    def _enough(self) -> bool:
        """Whether there are draws enough to say anything of the weights."""
        return self.draws - self.left_out >= LEAST_DRAWS

    @property
    def trustworthy(self) -> bool:
        """Whether the correction is small, and the comparison conclusive."""
        return self.conclusive and not self.distorted

    @property
    def verdict(self) -> str:
        """One line for a person."""
        if self.distorted:
            shift = f"by about {self.largest_shift:.2f} posterior sd (KL {self.kl_divergence:.1e})"
            least = ", or more: a few weights dominate" if self._heavy else ""
            return (
                f"ALARM: {self.against} would move the posterior mean {shift}{least}. Run again "
                f"with a tighter tolerance.{self._unsolved_note}"
            )
        if not self._enough:
            return (
                f"UNDECIDED: {self.draws - self.left_out} draws are too few to tell; at least "
                f"{LEAST_DRAWS} are needed.{self._unsolved_note}"
            )
        if not self.conclusive:
            return (
                f"UNDECIDED:{self._unsolved_note} The energies that agree are not those of a nearly "
                "exact solution. More steps (max_steps), double precision or a numerical operator "
                "may decide."
            )
        return (
            f"GOOD: {self.against} would move no posterior mean by more than "
            f"{max(self.largest_shift, 0.005):.2f} posterior sd (KL {self.kl_divergence:.1e})."
            f"{self._unsolved_note}"
        )

    @property
    def _unsolved_note(self) -> str:
        if not max(self.unsolved, self.left_out):
            return ""
        left_out = f", {self.left_out} draws left out" if self.left_out else ""
        return (
            f" It did not reach its tolerance at {self.unsolved} of {self.draws} draws{left_out} "
            f"(median loss {self.achieved_loss:.1e})."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["weights"]
        return {**fields, "verdict": self.verdict, "good": self.trustworthy}

    def __str__(self) -> str:
        lines = [
            self.verdict,
            f"  {self.draws} draws: sd of the energy error {self.energy_error_sd:.1e}, effective "
            f"fraction {self.effective_fraction:.3f}, PSIS k-hat {self._shape}, median loss "
            f"{self.achieved_loss:.1e}",
        ]
        for name in self._shown:
            sampled, corrected = self.means[name]
            sd, corrected_sd = self.sds[name]
            lines.append(
                f"  {name}: {sampled:.5g} +- {sd:.3g} as sampled, {corrected:.5g} +- "
                f"{corrected_sd:.3g} corrected"
            )
            if self.weights is not None:
                low, middle, high = self.quantiles[name][1]
                lines[-1] += f" (median {middle:.5g}, 90 % in {low:.5g} to {high:.5g})"
        if len(self._shown) < len(self.means):
            lines.append(
                f"  (the {SHOWN} of {len(self.means)} parameters that would move farthest)"
            )
        return "\n".join(lines)

    @property
    def _shown(self) -> list[str]:
        """All parameters; of many, those that the correction moves farthest."""
        if len(self.means) <= MANY:
            return list(self.means)
        moved = {n: abs(a - b) / (self.sds[n][0] or np.inf) for n, (a, b) in self.means.items()}
        farthest = sorted(moved, key=lambda name: -moved[name])[:SHOWN]
        return [name for name in self.means if name in farthest]

    @property
    def _shape(self) -> str:
        if np.isnan(self.pareto_k):
            return "none"
        harmless = self.pareto_k >= SHAPE_LIMIT and not self._heavy
        return f"{self.pareto_k:.2f}" + (" (a tail of negligible errors)" if harmless else "")

"""What an adaptation gives back."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from bilo_ppl.adaptation.batches import covariance_of
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.operators.base import AbstractSolutionOperator

__all__ = ["AdaptReport", "Adapted"]


class AdaptReport(NamedTuple):
    """How an adaptation went.

    Examples:
        >>> report = adapted.report
        >>> report.rounds, report.thetas + report.fresh > 6
        (1, True)
        >>> bool(report.worst_loss < report.tolerance)
        True
    """

    fraction_ready: float
    """Fraction of fresh thetas of the region whose loss is below the tolerance without a step."""
    worst_loss: float
    """Largest loss of a fresh theta before any inner step."""
    rounds: int
    """Consolidations of each operator."""
    thetas: int
    """Thetas that the operators were fitted to."""
    fresh: int
    """Thetas that they were checked on."""
    fits: list[FitReport]
    tolerance: float
    ready: bool
    """Whether the wanted fraction was reached, the chains agree, and no other mode was found."""
    notes: tuple[str, ...]
    """What exploration found: the point estimate, and whether the chains agree."""
    cpu_seconds: float
    other_mode: str | None = None
    """Another mode that the chains have not been near, in words."""

    @property
    def nothing_fitted(self) -> bool:
        """Whether the operators were left as they are: features that stay need no fit."""
        return bool(self.fits) and not any(fit.steps for fit in self.fits)

    @property
    def unseen_loss(self) -> float | None:
        """Loss between the collocation points after the last fits, if points do not suffice for one."""
        last = self.fits[-(len(self.fits) // self.rounds) :]
        return max((fit.unseen_loss or 0.0 for fit in last if not fit.adequate), default=None)

    def __str__(self) -> str:
        reached = "" if self.ready else "; not ready"
        line = (
            f"{100 * self.fraction_ready:.1f} % of {self.fresh} fresh thetas are solved by the features "
            f"as they are (worst loss {self.worst_loss:.1e}, tolerance {self.tolerance:.0e}), "
            f"{self.cpu_seconds:.1f} CPU s{reached}"
            if self.nothing_fitted
            else f"{100 * self.fraction_ready:.1f} % of {self.fresh} fresh thetas need no inner step "
            f"(worst loss {self.worst_loss:.1e}, tolerance {self.tolerance:.0e}) after {self.rounds} "
            f"consolidations over {self.thetas} thetas, {self.cpu_seconds:.1f} CPU s{reached}"
        )
        return "\n".join([*self.notes, line])


@dataclasses.dataclass(frozen=True)
class Adapted:
    """The adapted operators, the report, and where and in which units a sampler may start.

    It unpacks into operator, report and mass matrix.

    Examples:
        >>> list(adapted.operators), adapted.operator is adapted.operators["u"]
        (['u'], True)
        >>> theta = {"r": jnp.array(9.0)}
        >>> bool(adapted.operator.loss_of_home_state(theta) < 1e-6)  # no step is needed
        True
    """

    operators: Mapping[str, AbstractSolutionOperator]
    """By solution site."""
    report: AdaptReport
    inverse_mass_matrix: Float[np.ndarray, " dim"] | None
    """Variances of the unconstrained sites, in the order of their names; None without a chain, or if
    the chains do not agree.

    With it a kernel starts in the right units: far from the posterior every solve is dear.
    """
    positions: Float[np.ndarray, "n dim"] | None
    """Flat unconstrained positions that the chains visited, one chain after the other; None without."""
    unravel: Callable
    about_mode: Float[np.ndarray, "dim dim"] | None = None
    """Covariance of the Gaussian about the point estimate; None without one."""

    @property
    def covariance(self) -> Float[np.ndarray, "dim dim"] | None:
        """Covariance of the unconstrained sites, for a kernel with ``dense_mass=True``.

        In the order of their names, and drawn a little towards that of the Gaussian about the mode, or
        towards independence, since short chains know few directions well; None where there are no
        variances.
        """
        if self.inverse_mass_matrix is None or self.positions is None:
            return None
        known = np.diag(self.inverse_mass_matrix)
        if self.about_mode is not None:
            known = self.about_mode
        found = covariance_of(self.positions, known)
        # Correlations with the variances given; a diagonal put in as it is could be too small for them,
        # and a covariance that is not positive definite leaves a sampler without momenta.
        scale = np.sqrt(self.inverse_mass_matrix / np.diag(found))
        return scale[:, None] * found * scale

    @property
    def operator(self) -> AbstractSolutionOperator:
        """The operator, if all solution sites share one; a ``ValueError`` if not."""
        found = {id(operator): operator for operator in self.operators.values()}
        if len(found) != 1:
            raise ValueError(
                f"the solution sites {list(self.operators)} have {len(found)} operators; take them from "
                "operators, and put them in by replace_operator(model, operators)."
            )
        return next(iter(found.values()))

    def __iter__(self):
        return iter((self.operator, self.report, self.inverse_mass_matrix))

    def starts(self, count: int) -> dict[str, Any] | None:
        """Dispersed starts for ``count`` chains: unconstrained values by site, a leading chain axis.

        Spread evenly over what the chains of the exploration visited; None without them.
        """
        if self.positions is None:
            return None
        picked = np.linspace(0, len(self.positions) - 1, count).round().astype(int)
        return jax.vmap(self.unravel)(self.positions[picked])

"""Proposals that were rejected because something failed, counted and explained in plain words.

A solve that misses its tolerance, a residual that is not finite, a singular Jacobian, a theta far from
where the operator was trained: each makes the potential energy infinite or NaN there, the proposal is
rejected, and the transition counts as diverging. Kernels that record their inner solves say which
divergences those are; NumPyro's own do not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bilo_ppl._pages import see
from bilo_ppl.diagnostics._draws import scalar_draws

__all__ = ["Faults", "count_faults", "divergence_warning"]

SHOWN = 3
"""Parameters whose range at the divergences is shown."""


class Faults(NamedTuple):
    """Counts over the draws of a run; None where the run has not recorded it.

    Examples:
        >>> faults.transitions  # of the example before
        400
        >>> faults.solver_failures is None  # NUTS records no inner solves
        True
    """

    transitions: int
    diverging: int | None
    """Transitions that met a point without a finite energy, or too large an energy error."""
    solver_failures: int | None
    """Diverging transitions in which an inner solve missed its tolerance."""
    unconverged: int | None
    """Draws of which the solve (of the transition, or anew at the draw) missed its tolerance."""


def count_faults(stats: Mapping[str, Any], shape: tuple[int, int]) -> Faults:
    """Count over sampler statistics ``(chains, draws)`` by name, as `to_arviz` names them.

    ``inner_solves_of`` is "transition" where the kernel recorded its inner solves.
    """
    diverging = stats.get("diverging")
    converged = stats.get("inner_converged")
    recorded = converged is not None and stats.get("inner_solves_of") == "transition"
    failures = None
    if recorded and diverging is not None:
        failures = int((np.asarray(diverging, bool) & (np.asarray(converged) == 0)).sum())
    return Faults(
        transitions=int(np.prod(shape)),
        diverging=None if diverging is None else int(np.asarray(diverging, bool).sum()),
        solver_failures=failures,
        unconverged=None if converged is None else int((np.asarray(converged) == 0).sum()),
    )


def divergence_warning(
    faults: Faults,
    diverging: Any,
    posterior: Mapping[str, Any],
    tolerance: float | None,
    max_steps: int | None,
) -> str:
    """What the divergences mean, their cause as far as it is known, and what to do.

    ``diverging`` and the draws in ``posterior`` are ``(chains, draws, ...)``.
    """
    text = (
        f"{faults.diverging} of {faults.transitions} transitions diverged: their proposals were "
        "rejected. "
    )
    limit = "its tolerance" if tolerance is None else f"the tolerance {tolerance:.3g}"
    within = "" if max_steps is None else f" within {max_steps} steps"
    if faults.solver_failures is None:
        text += (
            f"Likely cause: the inner solve did not reach {limit}{within}, or an energy error of the "
            "integrator. "
        )
    else:
        rest = (faults.diverging or 0) - faults.solver_failures
        text += f"In {faults.solver_failures} an inner solve did not reach {limit}{within}"
        other = f"; {rest} met an energy error of the integrator or a gradient that is not finite"
        text += (other if rest else "") + ". "
    return text + _where(np.asarray(diverging, bool), posterior) + see("Divergences")


def _where(diverging: np.ndarray, posterior: Mapping[str, Any]) -> str:
    """The range of the draws that were kept in diverging transitions."""
    parts = []
    for name, draws in list(scalar_draws(posterior).items())[:SHOWN]:
        at = draws[diverging]
        parts.append(
            f"{name} {at.min():.4g} to {at.max():.4g} (all draws {draws.min():.4g} to "
            f"{draws.max():.4g})"
        )
    return f"The chain was then at {', '.join(parts)}. " if parts else ""

"""What `ReactionDiffusion` needs of a problem and its images, checked before anything is solved."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bilo_ppl.pde.image import ImageDomain
from bilo_ppl.pde.image_checks import as_image, as_probability
from bilo_ppl.pde.problem import Problem

__all__ = ["as_phase", "as_times", "check_image_evolution", "check_images"]


def check_image_evolution(problem: Problem) -> ImageDomain:
    """The domain of a scalar evolution problem on an image; raises a ``ValueError`` if it is another."""
    name, domain = type(problem).__name__, problem.domain
    if not isinstance(domain, ImageDomain) or domain.time is None or problem.components != 1:
        raise ValueError(
            f"ReactionDiffusion solves scalar evolution problems on images; {name} has "
            f"{problem.components} components and the domain {domain!r}. Make it by "
            "space_time(image_domain(mask, spacing), end)."
        )
    return domain


def as_phase(phase: Any, domain: ImageDomain) -> np.ndarray | None:
    """The phase as an image: positive inside of the mask."""
    if phase is None:
        return None
    phase = as_probability(phase, domain.mask.shape, "phase")
    if phase[domain.mask].min() <= 0:
        raise ValueError(
            "ReactionDiffusion: the phase must be positive inside of the mask; make the mask where it is "
            "not too small, such as phase > 0.01."
        )
    return phase


def as_times(times: int | Sequence[float], domain: ImageDomain) -> tuple[float, ...]:
    """Increasing times in the domain's, of which more than the first one is kept."""
    start, end = domain.lower[-1], domain.upper[-1]
    if isinstance(times, int):
        if times < 2:
            raise ValueError(f"ReactionDiffusion: needs at least 2 times, got {times}.")
        return tuple(np.linspace(start, end, times).tolist())
    values = np.asarray(times, float)
    right = values.ndim == 1 and values.size > 0 and np.isfinite(values).all()
    right = right and (np.diff(values) > 0).all() and start <= values[0] and values[-1] <= end
    if not right or values[-1] == start:
        raise ValueError(
            f"ReactionDiffusion: times={times!r}; give increasing ones in [{start:g}, {end:g}], beyond "
            f"{start:g}, or their number."
        )
    return tuple(values.tolist())


def check_images(diffusivity: Any, initial: Any, after: Any, domain: ImageDomain) -> None:
    """Refuse diffusivities, initial values and reactions that do not fit, with a ``ValueError``.

    They must be finite outside of the mask too: 0 times NaN would be in the derivatives.
    """
    mask = domain.mask
    inside = {}
    for name, image in (("diffusivity", diffusivity), ("initial", initial), ("reaction", after)):
        inside[name] = as_image(image, mask.shape, f"ReactionDiffusion: {name}(theta)")[mask]
    least = inside["diffusivity"].min()
    if least < 0 or not inside["diffusivity"].max() > 0:
        raise ValueError(
            "ReactionDiffusion: diffusivity(theta) must not be negative inside of the mask, nor zero "
            f"everywhere; it goes from {least:g} to {inside['diffusivity'].max():g}."
        )

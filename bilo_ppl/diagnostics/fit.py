"""Goodness of fit: do the data look like data of the model, at the draws of the posterior?"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import ExpandedDistribution, Independent, LogNormal, Normal

from bilo_ppl.diagnostics.inner import Replay, map_spaced

__all__ = ["Fit", "goodness_of_fit"]

UNLIKELY = 1e-3
"""A p-value nearer than this to 0 or 1 is a contradiction."""


class Fit(NamedTuple):
    """Misfit of the data of one site in units of their noise, averaged over draws."""

    chi_square: float
    """Mean of ``((y - mean) / sd)^2`` over data and draws; near 1 where model and noise are right."""
    p_value: float
    """Posterior predictive p-value: how often replicated data would fit no better."""
    data: int
    draws: int

    @property
    def contradicts(self) -> bool:
        """Whether data like these are next to impossible under the posterior."""
        return not UNLIKELY <= self.p_value <= 1 - UNLIKELY

    @property
    def warning(self) -> str | None:
        """What a contradiction means; None if there is none."""
        if not self.contradicts:
            return None
        if self.chi_square > 1:
            cause = "the model cannot explain them, or their noise is larger than its sigma"
        else:
            cause = "they scatter less than their sigma says"
        return f"data and model contradict each other: {cause} ({self})."

    def __str__(self) -> str:
        return f"chi-square {self.chi_square:.3g} per datum, p = {self.p_value:.2g}"


def goodness_of_fit(
    model: Callable,
    samples: Mapping[str, Any],
    /,
    *model_args: Any,
    max_draws: int = 100,
    batch_ndims: int = 2,
    batch_size: int = 16,
    **model_kwargs: Any,
) -> dict[str, Fit]:
    """Chi-square of the data at evenly spaced draws, by observed site with a normal likelihood.

    Log-normal ones count too, by the logarithm of their data; masked ones and all others are left
    out. The PDE is solved anew at no more than ``max_draws`` draws, and solves that miss their
    tolerance stand; draws without a finite misfit are left out. ``samples`` and the errors are those
    of `inner_statistics`, and ``max_draws`` below 1 is a ``ValueError``.
    """
    from scipy.stats import chi2

    if max_draws < 1:
        raise ValueError(f"goodness_of_fit: max_draws must be at least 1, got {max_draws}.")
    sizes: dict[str, int] = {}

    def misfits(sample):
        handler = _Misfits(samples)
        handler.run(model, sample, model_args, model_kwargs)
        sizes.update(handler.sizes)
        return handler.sums

    sums = map_spaced(misfits, samples, max_draws, batch_ndims, batch_size)
    found = {name: values[np.isfinite(values)] for name, values in sums.items()}
    return {
        name: Fit(
            float(values.mean() / sizes[name]),
            # Given a draw, the misfit of replicated data has this law exactly.
            float(chi2.sf(values, sizes[name]).mean()),
            sizes[name],
            len(values),
        )
        for name, values in found.items()
        if len(values)
    }


class _Misfits(Replay):
    """The model at one draw, and the sum of squared standardised residuals by observed site."""

    def __init__(self, samples: Mapping[str, Any]):
        super().__init__(samples, accept_unconverged=True)
        self.sums: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}

    def postprocess_message(self, msg: Any) -> None:
        """Note the misfit of a site with data."""
        super().postprocess_message(msg)
        if msg["type"] != "sample" or not msg["is_observed"]:
            return
        residuals = _standardised(msg["fn"], msg["value"])
        if residuals is not None:
            self.sums[msg["name"]] = jnp.sum(residuals**2)
            self.sizes[msg["name"]] = residuals.size


def _standardised(fn: Any, value: Any) -> Any:
    """Residuals in units of the noise; None for a likelihood that has none."""
    while isinstance(fn, (ExpandedDistribution, Independent)):
        fn = fn.base_dist
    if isinstance(fn, LogNormal):
        return (jnp.log(value) - fn.loc) / fn.scale
    return (value - fn.loc) / fn.scale if isinstance(fn, Normal) else None

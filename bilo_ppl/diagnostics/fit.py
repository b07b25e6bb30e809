"""Goodness of fit: do the data look like data of the model, at the draws of the posterior?"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import LogNormal, Normal

from bilo_ppl.diagnostics.inner import SIDE_BY_SIDE, Replay, map_draws, map_spaced
from bilo_ppl.operators.base import SolveInfo
from bilo_ppl.ppl.data_sites import data_mask, innermost

__all__ = ["Fit", "goodness_of_fit", "solves_and_fit"]

_SumsAndSizes = tuple[dict[str, Any], dict[str, Any]]
"""Sums of squared standardised residuals, and numbers of data, by observed site."""

UNLIKELY = 1e-3
"""A p-value nearer than this to 0 or 1 is a contradiction."""


class Fit(NamedTuple):
    """Misfit of the data of one site in units of their noise, averaged over draws.

    Examples:
        >>> fit.contradicts, fit.warning is None  # of the example before
        (False, True)
        >>> wrong = goodness_of_fit(model, draws, exact, x, y + 0.5, max_draws=50)["y"]
        >>> wrong.contradicts, wrong.chi_square > 100
        (True, True)
        >>> wrong.warning
        'data and model contradict each other: the model cannot explain them, or ...'
    """

    chi_square: float
    """Mean of ``((y - mean) / sd)^2`` over data and draws; near 1 where model and noise are right."""
    p_value: float
    """Posterior predictive p-value: how often replicated data would fit no better."""
    data: int
    """How many there are; masked ones do not count."""
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
    batch_size: int = SIDE_BY_SIDE,
    **model_kwargs: Any,
) -> dict[str, Fit]:
    """Chi-square of the data at evenly spaced draws, by observed site with a normal likelihood.

    Log-normal ones count too, by the logarithm of their data; all others are left out, and so are data
    that are masked, such as the missing ones of `observed`. The PDE is solved anew at no more than
    ``max_draws`` draws, and solves that miss their tolerance stand; draws without a finite misfit are
    left out. ``samples`` and the errors are those of `inner_statistics`, and ``max_draws`` below 1 is a
    ``ValueError``.

    Examples:
        >>> from bilo_ppl.diagnostics import goodness_of_fit
        >>> fit = goodness_of_fit(model, draws, exact, x, y, max_draws=50)["y"]
        >>> fit.data, fit.draws, fit.chi_square < 1  # data without noise: less than 10
        (10, 50, True)
    """
    if max_draws < 1:
        raise ValueError(f"goodness_of_fit: max_draws must be at least 1, got {max_draws}.")

    def misfits(sample):
        return _replayed(samples, model, sample, model_args, model_kwargs).misfits

    return _fits(map_spaced(misfits, samples, max_draws, batch_ndims, batch_size))


def solves_and_fit(
    model: Callable,
    samples: Mapping[str, Any],
    /,
    *model_args: Any,
    batch_ndims: int = 2,
    batch_size: int = SIDE_BY_SIDE,
    **model_kwargs: Any,
) -> tuple[dict[str, SolveInfo], dict[str, Fit]]:
    """`inner_statistics` and `goodness_of_fit` at every draw, in one pass and one compilation.

    Arguments and errors are those of `inner_statistics`.

    Examples:
        >>> from bilo_ppl.diagnostics import solves_and_fit
        >>> solves, fits = solves_and_fit(model, draws, exact, x, y)
        >>> solves["u"].converged.shape, fits["y"].draws
        ((2, 200), 400)
    """

    def both(sample):
        handler = _replayed(samples, model, sample, model_args, model_kwargs)
        return handler.infos, handler.misfits

    infos, misfits = map_draws(both, samples, batch_ndims, batch_size)
    joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[batch_ndims:]), misfits)
    return infos, _fits(joined)


def _replayed(samples: Mapping[str, Any], *run: Any) -> "_Misfits":
    handler = _Misfits(samples)
    handler.run(*run)
    return handler


def _fits(misfits: "_SumsAndSizes") -> dict[str, Fit]:
    from scipy.stats import chi2

    sums, sizes = misfits
    fits = {}
    for name, values in sums.items():
        kept = np.isfinite(values) & (sizes[name] > 0)
        if kept.any():
            values, size = values[kept], sizes[name][kept]
            # Given a draw, the misfit of replicated data has this law exactly.
            p_value = float(chi2.sf(values, size).mean())
            fits[name] = Fit(float(np.mean(values / size)), p_value, int(size[0]), len(values))
    return fits


class _Misfits(Replay):
    """The model at one draw, and the sum of squared standardised residuals by observed site."""

    def __init__(self, samples: Mapping[str, Any]):
        super().__init__(samples, accept_unconverged=True)
        self.misfits: _SumsAndSizes = ({}, {})

    def postprocess_message(self, msg: Any) -> None:
        """Note the misfit of a site with data."""
        super().postprocess_message(msg)
        if msg["type"] != "sample" or not msg["is_observed"]:
            return
        residuals = _standardised(msg["fn"], msg["value"])
        if residuals is not None:
            counts = jnp.broadcast_to(data_mask(msg["fn"]), residuals.shape)
            sums, sizes = self.misfits
            sums[msg["name"]] = jnp.sum(jnp.where(counts, residuals**2, 0))
            sizes[msg["name"]] = jnp.sum(counts)


def _standardised(fn: Any, value: Any) -> Any:
    """Residuals in units of the noise; None for a likelihood that has none."""
    fn = innermost(fn)
    if isinstance(fn, LogNormal):
        return (jnp.log(value) - fn.loc) / fn.scale
    return (value - fn.loc) / fn.scale if isinstance(fn, Normal) else None

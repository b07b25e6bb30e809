"""Distances of Monte Carlo draws from an exact posterior on a grid."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpyro.diagnostics import effective_sample_size

from bilo_ppl.validation.posterior_grid import GridPosterior

__all__ = ["Distances", "distances"]

_REPLICATES = 1000


class Distances(NamedTuple):
    """Distances of Monte Carlo draws of one parameter from its exact posterior.

    Examples:
        >>> found.ess, found.bins  # of the example before
        (1000.0, 32)
        >>> abs(found.sd_error) < 4 * found.sd_error_se, found.wasserstein < 0.1 * found.sd
        (True, True)
    """

    mean: float
    """Of the draws."""
    sd: float
    """Of the draws."""
    ess: float
    """Effective number of draws, for the mean."""
    mean_error: float
    """Mean of the draws minus exact mean, in Monte Carlo standard errors."""
    sd_error: float
    """Standard deviation of the draws over the exact one, minus 1."""
    sd_error_se: float
    """Monte Carlo standard error of ``sd_error``."""
    total_variation: float
    """Between the draws and the posterior, over ``bins`` bins of equal exact probability."""
    total_variation_iid: float
    """Its mean for as many independent exact draws."""
    total_variation_iid95: float
    """Its 95 % quantile for as many independent exact draws."""
    total_variation_ess95: float
    """Its 95 % quantile for ``ess`` independent exact draws: the band for correlated draws."""
    wasserstein: float
    """Wasserstein-1 distance, in the units of the parameter."""
    bins: int


def distances(
    draws: Shaped[Any, "..."],
    posterior: GridPosterior,
    name: str,
    ess: float | int | None = None,
    bins: int | None = None,
) -> Distances:
    """Compare draws ``(n,)`` or ``(chains, n)`` of one parameter with its exact posterior.

    **Arguments**

    - ``ess``: effective number of draws; by default NumPyro's estimate, for the mean and, from the
      squared deviations, for the standard deviation.
    - ``bins``: number of bins of equal exact probability; by default 2 n^(2/5) (Mann and Wald,
      1942) rounded, between 10 and 50, for n draws in all.

    Standard errors take the spread and the kurtosis of the exact posterior. Bands of the total
    variation come from 1000 simulations with a fixed seed. Raises a ``ValueError`` for draws that
    are not finite or fewer than 4 a chain, and for a posterior at one point of its grid.

    Examples:
        >>> independent = posterior.sample("r", seed=0, n=1000)
        >>> found = bilo.distances(independent, posterior, "r", ess=1000)
        >>> abs(found.mean_error) < 3, found.total_variation < found.total_variation_ess95
        (True, True)
    """
    draws = np.atleast_2d(np.asarray(draws, dtype=float))
    if draws.ndim != 2 or draws.shape[1] < 4 or not np.isfinite(draws).all():
        raise ValueError(
            f"distances: draws of {name!r} must be finite, of shape (n,) or (chains, n) with n at "
            f"least 4; they have shape {draws.shape}."
        )
    mean, sd = posterior.mean(name), posterior.sd(name)
    if not sd > 0:
        raise ValueError(
            f"distances: all of the exact posterior of {name!r} lies at one point of its grid; give a "
            "finer grid there."
        )
    kurtosis = posterior.expectation(name, lambda x: (x - mean) ** 4) / sd**4
    given = None if ess is None else max(float(ess), 1.0)
    mean_ess = given or _ess(draws)
    square_ess = given or _ess((draws - draws.mean()) ** 2)
    bins = int(np.clip(round(2 * draws.size**0.4), 10, 50)) if bins is None else bins
    iid = _variation_by_chance(draws.size, bins)
    return Distances(
        mean=float(draws.mean()),
        sd=float(draws.std()),
        ess=mean_ess,
        mean_error=float((draws.mean() - mean) / (sd / mean_ess**0.5)),
        sd_error=float(draws.std() / sd - 1),
        sd_error_se=float(0.5 * ((kurtosis - 1) / square_ess) ** 0.5),
        total_variation=_total_variation(draws, posterior, name, bins),
        total_variation_iid=float(iid.mean()),
        total_variation_iid95=float(np.quantile(iid, 0.95)),
        total_variation_ess95=float(np.quantile(_variation_by_chance(mean_ess, bins), 0.95)),
        wasserstein=_wasserstein(draws.ravel(), posterior, name),
        bins=bins,
    )


def _ess(draws: np.ndarray) -> float:
    """Effective number of draws, at least 1.

    NumPyro's estimate can be negative for antithetic chains, and is NaN for chains that never move.
    """
    found = float(effective_sample_size(draws)) if np.ptp(draws) > 0 else 1.0
    return found if found > 1 else 1.0


def _total_variation(draws, posterior, name, bins) -> float:
    which = np.minimum((posterior.cdf(name, draws.ravel()) * bins).astype(int), bins - 1)
    shares = np.bincount(which, minlength=bins) / draws.size
    return float(np.abs(shares - 1 / bins).sum() / 2)


def _variation_by_chance(n: float | int, bins: int) -> np.ndarray:
    """Total variation of n independent draws, simulated."""
    n = max(1, round(n))
    counts = np.random.default_rng(0).multinomial(n, np.full(bins, 1 / bins), size=_REPLICATES)
    return np.abs(counts / n - 1 / bins).sum(axis=1) / 2


def _wasserstein(draws: np.ndarray, posterior: GridPosterior, name: str) -> float:
    """Integral of the difference of the distribution functions, by the midpoint rule."""
    draws = np.sort(draws)
    x = np.unique(np.concatenate([draws, posterior.grid[name]]))
    middle = (x[1:] + x[:-1]) / 2
    below = np.searchsorted(draws, middle, side="right") / len(draws)
    return float(np.sum(np.abs(below - posterior.cdf(name, middle)) * np.diff(x)))

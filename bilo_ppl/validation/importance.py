"""Importance weights: Pareto smoothing, and what the weights say about two densities.

Pareto-smoothed importance sampling (PSIS): Vehtari, Simpson, Gelman, Yao, Gabry, JMLR 25 (2024).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = [
    "ImportanceWeights",
    "importance_weights",
    "pareto_k",
    "smoothed_log_weights",
    "weighted_quantiles",
]

LEAST_WEIGHTS = 25
"""Below this number of weights the tail has fewer than five, too few to fit."""

SAME = 1e-8
"""Log weights that differ by less are the same to rounding: they have no tail."""

PRIOR_SHAPE, PRIOR_WEIGHT = 0.5, 10
"""The weak prior on the shape: ten pseudo-observations at one half."""


class ImportanceWeights(NamedTuple):
    """Normalised weights of draws from q, for expectations under p."""

    weights: Float[np.ndarray, " n"]
    """Sum to 1; the largest are smoothed where ``pareto_k`` is defined."""
    pareto_k: float
    """PSIS k-hat, the shape of the tail; NaN where the weights are too few or too even for one."""
    effective_fraction: float
    """1 / (n sum(weights**2)): the effective number of draws over n."""
    kl_divergence: float
    """KL(q || p) = log mean(p/q) - mean(log p/q) over the draws from q, in nats; at least 0."""


def importance_weights(log_ratio: Float[np.ndarray, " n"]) -> ImportanceWeights:
    """Weights of draws from q, given log p - log q at each up to a constant.

    A ratio that is not finite stands for a draw without a weight; the statistics are those of the
    others. Raises a ``ValueError`` if there are none.
    """
    log_ratio = np.asarray(log_ratio, dtype=float)
    finite = np.isfinite(log_ratio)
    if not finite.any():
        raise ValueError("importance_weights: no log ratio is finite.")
    smoothed, k = smoothed_log_weights(log_ratio[finite])
    weights = np.zeros(len(log_ratio))
    raw = np.exp(smoothed - smoothed.max())
    weights[finite] = raw / raw.sum()
    kl = np.log(raw.mean()) + smoothed.max() - smoothed.mean()
    effective = 1 / (finite.sum() * np.sum(weights**2))
    return ImportanceWeights(weights, k, float(effective), float(max(kl, 0.0)))


def weighted_quantiles(
    values: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    probabilities: Sequence[float],
) -> tuple[float, ...]:
    """Quantiles of weighted draws: linear between the middles of the steps of their distribution."""
    order = np.argsort(values)
    weights = weights[order]
    middle = np.cumsum(weights) - weights / 2
    found = np.interp(probabilities, middle / weights.sum(), np.asarray(values, float)[order])
    return tuple(float(value) for value in found)


def pareto_k(log_weights: Float[np.ndarray, " n"]) -> float:
    """Shape of the generalised Pareto distribution of the largest weights (PSIS k-hat).

    Zhang and Stephens' estimator (Technometrics 51, 2009) with the weak prior of the PSIS paper, on
    the largest min(n/5, 3 sqrt(n)) weights. NaN for fewer than 25 weights or weights that are equal
    to rounding.
    """
    return smoothed_log_weights(np.asarray(log_weights, dtype=float))[1]


def smoothed_log_weights(
    log_weights: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], float]:
    """Log weights with the tail replaced by the quantiles of its fit, and the shape of the fit."""
    n, highest = len(log_weights), log_weights.max()
    if n < LEAST_WEIGHTS or np.ptp(log_weights) < SAME:
        return log_weights, float("nan")
    relative = log_weights - highest
    order = np.argsort(relative)
    cutoff = max(relative[order[-int(np.ceil(min(n / 5, 3 * np.sqrt(n)))) - 1]], -700.0)
    tail = order[relative[order] > cutoff]
    if len(tail) < 5:
        return log_weights, float("nan")
    excess = np.exp(relative[tail]) - np.exp(cutoff)
    if excess[int(len(tail) / 4 + 0.5) - 1] <= 0:
        return log_weights, float("nan")
    k, sigma = _pareto_fit(excess)
    middle = (np.arange(len(tail)) + 0.5) / len(tail)
    smoothed = relative.copy()
    # No smoothed weight exceeds the largest that was seen.
    smoothed[tail] = np.minimum(np.log(np.exp(cutoff) + _pareto_quantile(middle, k, sigma)), 0.0)
    return smoothed + highest, k


def _pareto_fit(excess: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Shape k and scale sigma of a generalised Pareto distribution, from increasing excesses."""
    m = len(excess)
    count = 30 + int(np.sqrt(m))
    quartile = excess[int(m / 4 + 0.5) - 1]
    grid = 1 / excess[-1] + (1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))) / (3 * quartile)
    shape = np.mean(np.log1p(-grid[:, None] * excess), axis=1)
    likelihood = m * (np.log(-grid / shape) - shape - 1)
    posterior = np.exp(likelihood - likelihood.max())
    b = np.sum(grid * posterior) / posterior.sum()
    k = float(np.mean(np.log1p(-b * excess)))
    sigma = float(-k / b)
    return (m * k + PRIOR_WEIGHT * PRIOR_SHAPE) / (m + PRIOR_WEIGHT), sigma


def _pareto_quantile(
    probability: Float[np.ndarray, " m"], k: float, sigma: float
) -> Float[np.ndarray, " m"]:
    """Quantiles of the generalised Pareto distribution: sigma ((1 - p)^-k - 1) / k."""
    if abs(k) < 1e-12:
        return -sigma * np.log1p(-probability)
    return sigma * np.expm1(-k * np.log1p(-probability)) / k

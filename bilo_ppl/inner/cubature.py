"""Few collocation points, with weights, that stand for all of them in a reduced problem.

What a reduced problem asks of its rows are sums over the points: the normal matrix, the gradient, the
loss. Nonnegative weights on few points give the same sums at the thetas that are known (empirical
cubature: Hernandez, Caicedo, Ferrer, *Dimensional hyper-reduction of nonlinear finite element models via
empirical cubature*, 2017). The sums of all thetas lie near a space of few dimensions, and nonnegative
least squares takes no more points than that.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import nnls

__all__ = ["Cubature", "choose_cubature"]

NEGLIGIBLE = 1e-4
"""Size of the sums that are left out, relative to the largest."""

SKETCHED = 50
"""Random combinations of the sums, beyond the most that are kept, that stand for all of them."""

ACCURATE = 1e-2
"""Largest relative error of the sums that are kept."""

MOST_SUMS = 300
"""With more of them than that, little is saved."""


class Cubature(NamedTuple):
    """Points, and how many of all points each of them stands for."""

    index: Int[np.ndarray, " m"]
    counts: Float[np.ndarray, " m"]


def choose_cubature(parts: Float[np.ndarray, "sums n"]) -> Cubature | None:
    """Of n points, some that give the sums of ``parts`` over all of them.

    None where so many would be needed that little is saved, or where no weights give the sums.
    """
    parts = parts / np.maximum(np.linalg.norm(parts, axis=1, keepdims=True), np.finfo(float).tiny)
    if len(parts) > MOST_SUMS + SKETCHED:
        signs = np.random.default_rng(0).choice(
            [-1.0, 1.0], size=(MOST_SUMS + SKETCHED, len(parts))
        )
        parts = signs @ parts
    _, sizes, rows = np.linalg.svd(parts, full_matrices=False)
    kept = rows[sizes > NEGLIGIBLE * sizes[0]]
    # Their number too: a constant is summed exactly.
    kept = np.concatenate([kept, np.full((1, parts.shape[1]), parts.shape[1] ** -0.5)])
    if len(kept) > min(MOST_SUMS, parts.shape[1] // 4):
        return None
    wanted = kept.sum(axis=1)
    try:
        counts, left = nnls(kept, wanted)
    except RuntimeError:
        return None
    if left > ACCURATE * np.linalg.norm(wanted):
        return None
    index = np.flatnonzero(counts)
    return Cubature(index, counts[index])

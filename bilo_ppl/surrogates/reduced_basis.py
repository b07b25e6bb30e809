"""A few combinations of theta, and a few modes of u, that hold nearly all of what a training set says."""

from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["input_basis", "output_basis"]

LEFT_OUT = 1e-4
"""Part of the norm of the solutions that modes may leave out."""

SAME = 1e-6
"""Part of their norm by which solutions that are not the same differ at least."""

VANISHING = 1e-3
"""Singular values of theta, in units of the largest, below which a combination counts as one that never
changed. Values of a function at close sensors have many such; scaled to sd 1 they make a network worse:
u of a Poisson equation with a log-Gaussian coefficient is off by 0.9 % with 1e-6, by 0.16 % with 1e-3."""


def output_basis(
    values: Float[np.ndarray, "n m"], most: int
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "rank m"], Float[np.ndarray, " rank"]]:
    """Mean of solutions, their principal components (orthonormal), and sds of the coefficients.

    There are as many as leave out at most `LEFT_OUT` of the root mean square of u, but at most ``most``.
    Raises a ``ValueError`` where all solutions are the same.
    """
    mean = values.mean(axis=0)
    _, singular, modes = np.linalg.svd(values - mean, full_matrices=False)
    size = np.linalg.norm(values)
    if not singular.size or singular[0] <= SAME * size:
        raise ValueError("train_dino: all solutions of the training set are the same.")
    left_out = np.sqrt(np.cumsum(singular[::-1] ** 2)[::-1])
    rank = min(max(int((left_out > LEFT_OUT * size).sum()), 1), most)
    return mean, modes[:rank], singular[:rank] / np.sqrt(len(values))


def input_basis(
    t: Float[np.ndarray, "n m"],
    directions: Float[np.ndarray, "n k m"],
    changes: Float[np.ndarray, "n k rank"],
    most: int,
) -> Float[np.ndarray, "inputs m"]:
    """P, such that z = P t has independent entries of sd 1: principal components, or an active subspace.

    If more than ``most`` combinations of theta change, these are rotated to the eigenvectors of the mean
    of J' J, with J the derivative of the coefficients in z. Of J only the ``changes`` J d along some
    directions d are known. With d from N(0, I) the mean of (sum J d d')' (sum J d d') is a multiple of
    J' J plus one of the identity (second moments of a Wishart matrix): the eigenvectors are the same.

    Raises a ``ValueError`` where theta is always the same.
    """
    _, singular, across = np.linalg.svd(t - t.mean(axis=0), full_matrices=False)
    if not singular.size or singular[0] == 0:
        raise ValueError("train_dino: all thetas of the training set are the same.")
    kept = singular > VANISHING * singular[0]
    whiten: Any = across[kept] * (np.sqrt(len(t)) / singular[kept])[:, None]
    if len(whiten) <= most:
        return whiten
    slopes = np.einsum("nkr,nkz->nrz", changes, directions @ whiten.T)
    _, _, rotation = np.linalg.svd(slopes.reshape(-1, len(whiten)), full_matrices=False)
    return rotation[:most] @ whiten

"""Coordinates in which what diffuses through tissues has no kinks.

Where a diffusivity P jumps, so does the gradient of u: P grad u does not. Harmonic coordinates
h = (h_1, ..., h_d), with div(P phi grad h_i) = 0, have the same kinks, and u is once more differentiable
as a function of h than as one of x (Owhadi, Zhang, *Comm. Pure Appl. Math.* 60, 2007). In the plane they
are coordinates indeed, but for holes: x to h is one to one (Alessandrini, Nesi, *Arch. Ration. Mech.
Anal.* 158, 2001). At a boundary without flux their derivative across it vanishes, as that of u does.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import binary_erosion, spline_filter
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

from bilo_ppl.numerics.image.diffusion import Diffusion
from bilo_ppl.numerics.image.image_series import continued, nearest_inside
from bilo_ppl.pde.image import ImageDomain
from bilo_ppl.pde.image_checks import as_image
from bilo_ppl.pde.image_function import ImageFunction

__all__ = ["harmonic_coordinates"]


def harmonic_coordinates(
    domain: ImageDomain, diffusivity: Any, phase: Any = None
) -> tuple[ImageFunction, ...]:
    """One function of a point for each coordinate of space, equal to it on the domain's rim.

    ``diffusivity`` and ``phase`` (1 by default) are images P and phi, positive inside of the mask. Always
    in double precision. Raises a ``ValueError`` for images that do not fit.
    """
    mask = domain.mask
    P = as_image(diffusivity, mask.shape, "harmonic_coordinates: diffusivity")
    phi = np.ones(mask.shape) if phase is None else as_image(phase, mask.shape, "phase")
    if P[mask].min() <= 0 or phi[mask].min() <= 0:
        raise ValueError(
            "harmonic_coordinates: diffusivity and phase must be positive inside of the mask."
        )
    matrix = _matrix(Diffusion.of(jnp.asarray(P), mask, jnp.asarray(phi), domain.spacing), mask)
    rim = np.logical_and(mask, np.logical_not(binary_erosion(mask)))[mask]
    inner = np.flatnonzero(np.logical_not(rim))
    found = []
    nearest = nearest_inside(domain)
    for along in domain.centres.T:
        values = along.copy()
        right = -(matrix @ np.where(rim, along, 0.0))[inner]
        values[inner] = spsolve(matrix[inner][:, inner].tocsc(), right)
        image = np.zeros(mask.shape)
        image[mask] = values
        wide = np.asarray(continued(image[None], nearest), float)[0]
        room = (wide.shape[0] - mask.shape[0]) // 2
        origin = np.array(domain.origin) - room * np.array(domain.spacing)
        coefficients = spline_filter(wide, mode="mirror")
        found.append(ImageFunction.of(coefficients, origin, domain.spacing))
    return tuple(found)


def _matrix(diffusion: Diffusion, mask: np.ndarray) -> csr_matrix:
    """The matrix of `Diffusion.apply` on the voxels inside of the mask."""
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    rows, columns, entries = [], [], []
    for axis, k in enumerate(diffusion.conductances):
        k = np.asarray(k, float)
        low = np.take(number, range(mask.shape[axis] - 1), axis)
        high = np.take(number, range(1, mask.shape[axis]), axis)
        joined = (low >= 0) & (high >= 0)
        a, b, k = low[joined], high[joined], k[joined]
        rows += [a, b, a, b]
        columns += [b, a, a, b]
        entries += [-k, -k, k, k]
    shape = (int(mask.sum()),) * 2
    joined = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
    return csr_matrix(joined, shape=shape)

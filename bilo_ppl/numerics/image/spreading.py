"""What diffusion alone makes of a first distribution, for every diffusivity at once.

    phi w_s = div(P phi grad w),  w(x, 0) given,

without flux through the boundary of an image. With D times the diffusivity P the solution after a time t
is w(., D t): one table in s serves all D, and what grows at the rate rho besides is w(., D t) exp(rho t).
So it is the beginning of every tumour, exactly while cells are few, and a good thing to take out of one
that saturates.
"""

import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from scipy.ndimage import spline_filter1d

from bilo_ppl._types import Scalar
from bilo_ppl.numerics.image.diffusion import Diffusion
from bilo_ppl.numerics.image.image_series import continued, nearest_inside
from bilo_ppl.pde.image import ImageDomain
from bilo_ppl.pde.image_checks import as_image
from bilo_ppl.pde.image_function import ImageFunction

__all__ = ["Spreading", "spreading"]

FLOOR = 1e-12
"""Where there is less, in units of one, there is so much."""

BEYOND = 4
"""Nodes on both sides of the table in s, by extrapolation: splines are wrong near their ends."""

STABLE = 0.9
"""Of the longest step that keeps values positive."""


class Spreading(eqx.Module):
    """logit w at a point of space and a time s, twice continuously differentiable in both.

    Beyond the end of the table it stays as it is there.
    """

    logits: ImageFunction
    """Of a point and ``log(1 + s / scale)``."""
    scale: float = eqx.field(static=True)
    end: float = eqx.field(static=True)

    def __call__(self, x: Shaped[Any, " d"], s: Any) -> Scalar:
        """At a point ``(d,)`` of space, further coordinates being none of its business."""
        x = jnp.asarray(x)
        space = x[: len(self.logits.spacing) - 1]
        place = jnp.log1p(jnp.minimum(jnp.asarray(s, x.dtype), self.end) / self.scale)
        return self.logits(jnp.concatenate([space, place[None]]))


def spreading(
    domain: ImageDomain,
    initial: Any,
    *,
    diffusivity: Any,
    end: float,
    scale: float,
    phase: Any = None,
    nodes: int = 48,
) -> Spreading:
    """The solution on the voxels of a domain of space (time is left out), up to the time ``end``.

    **Arguments**

    - ``initial``, ``diffusivity``, ``phase``: images w(., 0) in (0, 1), P and phi (1 by default).
    - ``scale``: the time after which the first distribution has changed much; the table is even in
      log(1 + s / scale), with ``nodes`` of them after the first.

    By Heun's method in steps that keep values positive, however small they are: an implicit one has
    rounding errors where a tumour has not arrived. Always in double precision. Raises a ``ValueError``
    for images that do not fit.
    """
    if not (0 < scale < math.inf and 0 < end < math.inf and nodes >= 2 * BEYOND):
        raise ValueError(
            f"spreading: needs a positive end and scale, and at least {2 * BEYOND} nodes, got "
            f"end={end}, scale={scale}, nodes={nodes}."
        )
    shape = domain.mask.shape
    first = as_image(initial, shape, "spreading: initial")
    inside = first[domain.mask]
    if not ((inside >= 0) & (inside < 1)).all() or not inside.any():
        raise ValueError(
            "spreading: initial must lie between 0 and 1 inside of the mask, and not be 0 everywhere."
        )
    P = as_image(diffusivity, shape, "spreading: diffusivity")
    capacity = np.ones(shape) if phase is None else as_image(phase, shape, "spreading: phase")
    if P[domain.mask].min() < 0 or capacity[domain.mask].min() <= 0:
        raise ValueError(
            "spreading: inside of the mask phase must be positive, diffusivity not < 0."
        )
    step = math.log1p(end / scale) / nodes
    times = scale * np.expm1(step * np.arange(nodes + 1))
    images = np.stack(list(_images(domain, first, P, capacity, times)))
    logits = np.log(np.maximum(images, FLOOR)) - np.log1p(-np.minimum(images, 1 - FLOOR))
    # Room as in an `ImageSeries`, from where the splines' own ends do not matter.
    logits = np.asarray(continued(logits, nearest_inside(domain)), float)
    room = (logits.shape[1] - shape[0]) // 2
    before, after = _extrapolated(logits), _extrapolated(logits[::-1])[::-1]
    coefficients = np.concatenate([before, logits, after])
    for axis in range(coefficients.ndim):
        coefficients = spline_filter1d(coefficients, axis=axis, mode="mirror")
    origin = np.array(domain.origin) - room * np.array(domain.spacing)
    table = ImageFunction.of(
        np.moveaxis(coefficients, 0, -1), (*origin, -BEYOND * step), (*domain.spacing, step)
    )
    return Spreading(table, float(scale), float(end))


def _images(
    domain: ImageDomain, first: np.ndarray, P: np.ndarray, capacity: np.ndarray, times: np.ndarray
) -> Iterator[np.ndarray]:
    """w at the times, the first of which is 0; 1/2 outside of the mask."""
    mask = domain.mask
    weight = np.where(mask, capacity, 1.0)
    diffusion = Diffusion.of(jnp.asarray(P), mask, jnp.asarray(capacity), domain.spacing)
    conductances = [np.asarray(k, float) for k in diffusion.conductances]
    longest = STABLE / float((np.asarray(diffusion.diagonal, float) / weight).max())
    w = np.where(mask, first, 0.0)

    def slope(w):
        return -_outflow(conductances, w) / weight

    for before, time in zip([0.0, *times], times, strict=False):
        count = math.ceil((time - before) / longest)
        for _ in range(count):
            dt = (time - before) / count
            ahead = w + dt * slope(w)
            w = (w + ahead + dt * slope(ahead)) / 2
        yield np.where(mask, w, 0.5)


def _outflow(conductances: list[np.ndarray], w: np.ndarray) -> np.ndarray:
    """As `Diffusion.apply`."""
    total = np.zeros_like(w)
    for axis, k in enumerate(conductances):
        flux = np.moveaxis(k * np.diff(w, axis=axis), axis, 0)
        view = np.moveaxis(total, axis, 0)
        view[:-1] -= flux
        view[1:] += flux
    return total


def _extrapolated(values: np.ndarray) -> np.ndarray:
    """So many nodes before the first, by cubics."""
    found = list(values[:4])
    for _ in range(BEYOND):
        a, b, c, d = found[:4]
        found.insert(0, 4 * a - 6 * b + 4 * c - d)
    return np.stack(found[:BEYOND])

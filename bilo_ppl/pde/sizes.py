"""Sizes that nobody has stated: collocation points and network, by the dimension and the unknowns.

They are what the models of this package and the gallery of its benchmarks do with. What is too few in
points is seen where no fit has been, and added there; what is too small in the network the run says.
"""

from typing import Any, NamedTuple

import numpy as np

from bilo_ppl._types import Theta
from bilo_ppl.pde.domain import Box

__all__ = ["POINTS_FOR_FEATURES", "Sizes", "unknowns_in", "usual_features", "usual_sizes"]

POINTS_OF_TIME = 81
"""Of an ordinary differential equation, whose solution may oscillate."""

POINTS = {1: 51, 2: 1000, 3: 3000}
"""By the dimension, time included: in two as many as a grid of 31 x 31 has, and a few more."""

MOST_POINTS = 5000
"""Of more dimensions."""

POINTS_PER_UNKNOWN = 4
"""With fewer rows than that, what many unknowns do is not told apart."""

WIDTH, DEPTH, DEEPER = 64, 2, 3
"""A network in three dimensions has one layer more."""


FEATURES, FEATURES_OF_A_LINE, POINTS_PER_FEATURE = 256, 128, 2
"""Of an output layer that is fine-tuned alone, and how many points it must have at least."""

POINTS_FOR_FEATURES = 512
"""Collocation points that features have at least: at so many they cost next to nothing."""


class Sizes(NamedTuple):
    """Numbers that follow from a problem."""

    points: int
    """Collocation points."""
    width: int
    """Units of a hidden layer."""
    depth: int
    """Hidden layers."""
    fourier: int
    """Random Fourier features: none, since frequencies cannot be seen in a domain."""


def usual_sizes(domain: Box, unknowns: int) -> Sizes:
    """The sizes for a domain and a number of unknown scalars (`unknowns_in`)."""
    dimension = domain.dimension
    points = POINTS_OF_TIME if not domain.space else POINTS.get(dimension, MOST_POINTS)
    return Sizes(
        points=max(points, POINTS_PER_UNKNOWN * unknowns),
        width=WIDTH,
        depth=DEPTH if dimension < 3 else DEEPER,
        fourier=0,
    )


def usual_features(domain: Box, points: int) -> int:
    """The number of features on a domain whose weights so many points determine."""
    usual = FEATURES_OF_A_LINE if domain.dimension == 1 else FEATURES
    return max(1, min(usual, points // POINTS_PER_FEATURE))


def unknowns_in(theta: Theta) -> int:
    """Number of scalars in theta; a function counts as one, whatever it is made of."""
    return sum(1 if callable(value) else _size(value) for value in theta.values())


def _size(value: Any) -> int:
    return int(np.prod(np.shape(value)))

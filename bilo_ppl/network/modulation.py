"""Modulation: how the features of a network follow theta, one factor a feature, affine in theta.

Feature-wise linear modulation (Perez et al., 2018, arXiv:1709.07871). About one theta the solution is
nearly affine in theta. A network that sees theta through its first activation has to compose that from
saturating functions, and between the thetas that it was fitted to it is often wrong.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl.network.trainable import Frozen

__all__ = ["Modulation", "close_modulations", "is_modulated", "open_modulations"]

M = TypeVar("M")


class Modulation(eqx.Module):
    """h becomes h (1 + G t), with t the normalised theta, which is zero at home.

    G starts at zero. It is frozen in a solve at one theta, where it has nothing to add to the weights;
    a fit to many thetas opens it. ``width`` is the number of features, ``inputs`` that of the numbers in
    theta.

    Examples:
        >>> from bilo_ppl.network import Modulation
        >>> modulation = Modulation(2, 1, jnp.float64)
        >>> h, t = jnp.array([1.0, 2.0]), jnp.array([0.5])
        >>> modulation(h, t).tolist()  # G = 0
        [1.0, 2.0]
        >>> fitted = eqx.tree_at(lambda m: m.matrix, modulation, jnp.array([[1.0], [0.0]]))
        >>> fitted(h, t).tolist()
        [1.5, 2.0]
    """

    matrix: Any
    """G ``(width, inputs)``: `Frozen`, or an array to be trained."""

    def __init__(self, width: int, inputs: int, dtype: Any):
        self.matrix = Frozen(jnp.zeros((width, inputs), dtype))

    def __call__(self, h: Float[Array, " width"], t: Float[Array, " inputs"] | None):
        """The features at the normalised theta ``t``; None: as they are."""
        return h if t is None else h * (1 + _array(self.matrix) @ t)


def open_modulations(module: M) -> M:
    """The module with its modulations among its weights."""
    return _with_matrices(module, _array)


def close_modulations(module: M) -> M:
    """The module with its modulations frozen."""
    return _with_matrices(module, lambda matrix: Frozen(_array(matrix)))


def is_modulated(module: Any) -> bool:
    """Whether a fit to many thetas has set the modulations."""
    return any(np.any(_array(node.matrix)) for node in _modulations(module))


def _array(matrix: Any) -> Any:
    return matrix.value if isinstance(matrix, Frozen) else matrix


def _is_modulation(node: Any) -> bool:
    return isinstance(node, Modulation)


def _modulations(module: Any) -> list[Modulation]:
    return [n for n in jax.tree.leaves(module, is_leaf=_is_modulation) if _is_modulation(n)]


def _with_matrices(module: M, change: Any) -> M:
    def replace(node):
        return (
            eqx.tree_at(lambda n: n.matrix, node, change(node.matrix))
            if _is_modulation(node)
            else node
        )

    return jax.tree.map(replace, module, is_leaf=_is_modulation)

"""Low-rank adaptation (LoRA) of an Equinox module: W x becomes W x + B (A x).

Hu et al., 2021 (arXiv:2106.09685). Layers whose matrix is no larger than the pair (A, B) would be,
such as the first and the last one of a network on a low-dimensional domain, are trained directly.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Key
from bilo_ppl.network.mlp import Linear

__all__ = ["LowRankLinear", "add_lora", "count_parameters", "merge_lora", "trainable"]

M = TypeVar("M")


class LowRankLinear(eqx.Module):
    """A linear layer with a frozen matrix, a trainable increment B A, and a trainable bias.

    The increment is applied in factored form, so that a per-point Jacobian with respect to A and B
    never forms an ``out x in`` matrix for each point.
    """

    base: Float[Array, "out in"]
    A: Float[Array, "rank in"]
    B: Float[Array, "out rank"]
    bias: Float[Array, " out"]

    def __init__(self, layer: Linear, rank: int, *, key: Key):
        size_out, size_in = layer.weight.shape
        if not 1 <= rank <= min(size_out, size_in):
            raise ValueError(
                f"LoRA: rank {rank} is not between 1 and {min(size_out, size_in)}, the smaller side "
                f"of a {size_out} x {size_in} layer; choose a smaller rank, or 0 for full "
                "fine-tuning."
            )
        self.base = layer.weight
        dtype = layer.weight.dtype
        self.A = jax.random.normal(key, (rank, size_in), dtype) / jnp.sqrt(size_in).astype(dtype)
        self.B = jnp.zeros((size_out, rank), dtype)
        self.bias = layer.bias

    def __call__(self, x):
        """Value at ``x`` (in,): (out,)."""
        return self.base @ x + self.B @ (self.A @ x) + self.bias

    def merged(self) -> Linear:
        """The ordinary layer with matrix W + B A."""
        return Linear(self.base + self.B @ self.A, self.bias)


def _is_layer(node: Any) -> bool:
    return isinstance(node, (Linear, LowRankLinear))


def _pays(layer: Any, rank: int) -> bool:
    """Whether (A, B) has fewer entries than the matrix it changes."""
    size_out, size_in = layer.weight.shape
    return rank * (size_out + size_in) < size_out * size_in


def add_lora(module: M, rank: int, *, key: Key) -> M:
    """Replace the linear layers of a module by low-rank increments that start at zero.

    Raises a ``ValueError`` when the module has increments already (merge them first) or when the
    rank is larger than the smaller side of its largest layer.
    """
    layers = [n for n in jax.tree.leaves(module, is_leaf=_is_layer) if _is_layer(n)]
    if any(isinstance(n, LowRankLinear) for n in layers):
        raise ValueError("add_lora: the module has LoRA increments already; merge_lora them first.")
    largest = max((min(n.weight.shape) for n in layers), default=0)
    if not 1 <= rank <= largest:
        raise ValueError(
            f"add_lora: rank {rank} is not between 1 and {largest}, the width of the layers; choose a "
            "smaller rank, or 0 for full fine-tuning."
        )
    if not any(_pays(layer, rank) for layer in layers):
        raise ValueError(
            f"add_lora: with rank {rank} no layer would have fewer weights to train than it has "
            "entries; choose a smaller rank, or 0 for full fine-tuning."
        )
    keys = iter(jax.random.split(key, len(layers)))

    def replace(node):
        if not _is_layer(node):
            return node
        layer_key = next(keys)
        return LowRankLinear(node, rank, key=layer_key) if _pays(node, rank) else node

    return jax.tree.map(replace, module, is_leaf=_is_layer)


def merge_lora(module: M) -> M:
    """Fold every increment into its matrix: the same function, with ordinary layers."""
    return jax.tree.map(
        lambda n: n.merged() if isinstance(n, LowRankLinear) else n, module, is_leaf=_is_layer
    )


def trainable(module: Any) -> Any:
    """Filter (a pytree of bools) of what the inner solver may change.

    Matrices and biases of ordinary layers; A, B and the bias of low-rank ones. Everything outside
    the layers (theta embedding, Fourier frequencies, the problem) is frozen.
    """

    def mark(node):
        if not _is_layer(node):
            return jax.tree.map(lambda _: False, node)
        free = jax.tree.map(eqx.is_inexact_array, node)
        return (
            eqx.tree_at(lambda n: n.base, free, False) if isinstance(node, LowRankLinear) else free
        )

    return jax.tree.map(mark, module, is_leaf=_is_layer)


def count_parameters(module: Any) -> int:
    """Number of trainable weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(module, trainable(module))))

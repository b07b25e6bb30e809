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
from bilo_ppl.network.trainable import Frozen

__all__ = ["LowRankLinear", "add_lora", "merge_lora", "rank_of", "saves"]

M = TypeVar("M")


class LowRankLinear(eqx.Module):
    """A linear layer with a frozen matrix, a trainable increment B A, and a trainable bias.

    The increment is applied in factored form, so that a per-point Jacobian with respect to A and B
    never forms an ``out x in`` matrix for each point.
    """

    base: Frozen
    """The matrix ``(out, in)`` of the layer."""
    A: Float[Array, "rank in"]
    B: Float[Array, "out rank"]
    bias: Float[Array, " out"] | None
    shell: Any
    """The layer without its arrays: what `merged` fills again."""

    def __init__(self, layer: Any, rank: int, *, key: Key):
        size_out, size_in = layer.weight.shape
        if not 1 <= rank <= min(size_out, size_in):
            raise ValueError(
                f"LoRA: rank {rank} is not between 1 and {min(size_out, size_in)}, the smaller side "
                f"of a {size_out} x {size_in} layer; choose a smaller rank, or 0 for full "
                "fine-tuning."
            )
        self.base = Frozen(layer.weight)
        dtype = layer.weight.dtype
        self.A = jax.random.normal(key, (rank, size_in), dtype) / jnp.sqrt(size_in).astype(dtype)
        self.B = jnp.zeros((size_out, rank), dtype)
        self.bias = layer.bias
        self.shell = _filled(layer, None, None)

    def __call__(self, x, *, key: Any = None):
        """Value at ``x`` (in,): (out,). ``key`` is not used; layers of Equinox have it."""
        y = self.base.value @ x + self.B @ (self.A @ x)
        return y if self.bias is None else y + self.bias

    def merged(self) -> Any:
        """The ordinary layer with matrix W + B A."""
        return _filled(self.shell, self.base.value + self.B @ self.A, self.bias)


def _filled(layer: Any, weight: Any, bias: Any) -> Any:
    return eqx.tree_at(
        lambda n: (n.weight, n.bias), layer, (weight, bias), is_leaf=lambda leaf: leaf is None
    )


def _is_layer(node: Any) -> bool:
    return isinstance(node, (Linear, eqx.nn.Linear, LowRankLinear))


def _is_node(node: Any) -> bool:
    """Where the search for layers ends: what is frozen is none."""
    return _is_layer(node) or isinstance(node, Frozen)


def _layers(module: Any) -> list[Any]:
    return [n for n in jax.tree.leaves(module, is_leaf=_is_node) if _is_layer(n)]


def _pays(layer: Any, rank: int) -> bool:
    """Whether (A, B) has fewer entries than the matrix it changes."""
    size_out, size_in = layer.weight.shape
    return rank * (size_out + size_in) < size_out * size_in


def add_lora(module: M, rank: int, *, key: Key) -> M:
    """Replace the linear layers of a module by low-rank increments that start at zero.

    Layers are `Linear` and ``equinox.nn.Linear``, wherever they are in the module.

    Raises a ``ValueError`` when the module has increments already (merge them first) or when the
    rank is larger than the smaller side of its largest layer.
    """
    layers = _layers(module)
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

    return jax.tree.map(replace, module, is_leaf=_is_node)


def merge_lora(module: M) -> M:
    """Fold every increment into its matrix: the same function, with ordinary layers."""
    return jax.tree.map(
        lambda n: n.merged() if isinstance(n, LowRankLinear) else n, module, is_leaf=_is_node
    )


def saves(module: Any, rank: int) -> bool:
    """Whether increments of a rank have fewer weights than some layer that they change."""
    return any(_pays(layer, rank) for layer in _layers(merge_lora(module)))


def rank_of(module: Any) -> int:
    """Rank of the low-rank increments of a module; 0 if there are none."""
    low = [layer for layer in _layers(module) if isinstance(layer, LowRankLinear)]
    return max((layer.A.shape[0] for layer in low), default=0)

"""Which numbers of a module may be changed: all floating-point arrays but the frozen ones."""

from typing import Any, TypeVar

import equinox as eqx
import jax

__all__ = ["Frozen", "cast_arrays", "count_parameters", "trainable"]

M = TypeVar("M")


class Frozen(eqx.Module):
    """What is no weight: random Fourier frequencies, the matrix below a low-rank increment, a module.

    Examples:
        >>> class Wave(eqx.Module):
        ...     amplitude: jax.Array
        ...     frequency: bilo.Frozen
        ...     def __call__(self, x):
        ...         return self.amplitude * jnp.sin(self.frequency.value * x[0])
        >>> wave = Wave(jnp.array(2.0), bilo.Frozen(jnp.array(3.0)))
        >>> bilo.field_weights(wave).tolist()
        [2.0]
    """

    value: Any


def _is_frozen(node: Any) -> bool:
    return isinstance(node, Frozen)


def trainable(module: Any) -> Any:
    """Filter (a pytree of bools) of what may be changed: inexact arrays outside of `Frozen`."""

    def mark(node):
        if _is_frozen(node):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return jax.tree.map(mark, module, is_leaf=_is_frozen)


def count_parameters(module: Any) -> int:
    """Number of trainable weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(module, trainable(module))))


def cast_arrays(module: M, dtype: Any) -> M:
    """The module with its floating-point arrays in another precision."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, module
    )

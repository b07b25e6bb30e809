"""Snapshots: how a loop stands, as arrays and JSON values that another process can go on from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._log import Record

__all__ = ["Resumable", "Saved", "Snapshot", "filled", "flat"]


class Snapshot(NamedTuple):
    """How a loop stands between two blocks. Nothing in it may be changed afterwards."""

    tree: Any
    """A pytree of arrays."""
    notes: Mapping[str, Any]
    """JSON values."""
    parts: Sequence[Any] = ()
    """Pytrees of arrays of the blocks so far: those that are there stay as they are."""


class Saved:
    """A snapshot that was read."""

    def __init__(self, record: Record, parts: Sequence[Record] = ()):
        self.notes, self._record, self._parts = record.notes, record, parts

    def tree(self, like: Any) -> Any:
        """The arrays, in a pytree like another; a ``ValueError`` where shapes or types differ."""
        return filled(like, self._record.arrays)

    def arrays(self) -> list[np.ndarray]:
        """All arrays, one after the other."""
        return list(self._record.arrays)

    def first(self, like: Any, count: int) -> Any:
        """As `tree`, of the first arrays."""
        return filled(like, self._record.arrays[:count])

    def parts(self, like: Any) -> list[Any]:
        """The parts, as NumPy arrays in pytrees of the structure of another, whatever their sizes."""
        structure = jax.tree.structure(like)
        return [jax.tree.unflatten(structure, record.arrays) for record in self._parts]


@runtime_checkable
class Resumable(Protocol):
    """What goes through a loop and can go on in another process."""

    def snapshot(self) -> Snapshot:
        """How it stands, between two blocks."""
        ...

    def restore(self, saved: Saved) -> None:
        """Stand so again; a ``ValueError``, before anything is changed, where it does not fit."""
        ...


def flat(tree: Any) -> list[np.ndarray]:
    """The arrays and numbers of a pytree as NumPy arrays; of random keys, their data."""
    leaves = filter(_is_kept, jax.tree.leaves(tree))
    return [np.asarray(jax.device_get(_data(leaf))) for leaf in leaves]


def filled(like: Any, arrays: Sequence[np.ndarray]) -> Any:
    """A pytree like another, with other values of its arrays, random keys and numbers.

    Raises a ``ValueError`` where their number, shapes or types differ.
    """
    leaves, structure = jax.tree.flatten(like)
    wanted = sum(map(_is_kept, leaves))
    if wanted != len(arrays):
        raise ValueError(f"it has {len(arrays)} arrays, and {wanted} are needed")
    given = iter(arrays)
    found = [_leaf(leaf, next(given)) if _is_kept(leaf) else leaf for leaf in leaves]
    return jax.tree.unflatten(structure, found)


def _leaf(like: Any, array: np.ndarray) -> Any:
    wanted = np.asarray(like) if _is_number(like) else jax.eval_shape(_data, like)
    if (wanted.shape, wanted.dtype) != (array.shape, array.dtype):
        raise ValueError(
            f"an array of it is {array.dtype}{array.shape}, needed is {wanted.dtype}{wanted.shape}"
        )
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    if _is_number(like):
        return type(like)(array.item())
    return array if isinstance(like, np.ndarray) else jnp.asarray(array)


def _is_kept(leaf: Any) -> bool:
    """Not what says what the arrays mean, such as the domain of a problem."""
    return hasattr(leaf, "dtype") or _is_number(leaf)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, (bool, int, float))


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf

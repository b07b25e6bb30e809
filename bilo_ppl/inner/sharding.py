"""Rows over several devices: the mesh, where arrays lie on it, and what the devices tell each other.

Every row depends on one item only (a point, or a point and a theta) and on all weights. So items are
spread over the devices, weights are the same on all, and rows, their Jacobian J and products J d need
no communication. What is summed over rows needs one all-reduce: the loss, ``J^T y``, and ``J^T J``, each
the sum of what the devices have. Nothing that is as long as the rows and as wide as the weights is ever
gathered.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

__all__ = [
    "device_mesh",
    "everywhere",
    "on_each_device",
    "repeated_on_all",
    "spread",
    "sum_of_rows",
    "to_host",
    "turned",
]

ROWS = "rows"
"""Name of the only axis of a mesh."""


def device_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis over ``devices``, over which the rows of large fits can be spread.

    By default these are all that JAX has: of all processes too, after `jax.distributed.initialize`.
    Raises a ``ValueError`` for no devices.

    Examples:
        >>> mesh = bilo.device_mesh(jax.devices()[:1])
        >>> dict(mesh.shape)
        {'rows': 1}
    """
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("device_mesh: no devices; leave the argument out for all that there are.")
    return jax.make_mesh((len(devices),), (ROWS,), (AxisType.Auto,), devices=devices)


def on_each_device(
    mesh: Mesh, function: Callable[[Any, Any], Any], weights: Any, items: Any
) -> Any:
    """``function(weights, items)`` of the items of each device, the results one after the other.

    The leading axes of ``items`` are multiples of the number of devices. No communication but what
    ``function`` asks for.
    """
    # Made whole on every device, of which each keeps its part: the draw of a part of the items, say,
    # would otherwise be spread too, and then gathered.
    items = jax.lax.with_sharding_constraint(items, NamedSharding(mesh, P()))
    items = jax.lax.with_sharding_constraint(items, NamedSharding(mesh, P(ROWS)))
    # Without the check of varying axes: a user's residual may hold loops, whose carry it would refuse.
    parts = {"in_specs": (P(), P(ROWS)), "out_specs": P(ROWS), "check_vma": False}
    return jax.shard_map(function, mesh=mesh, **parts)(weights, items)


def sum_of_rows(mesh: Mesh, function: Callable[..., Any], *by_rows: Any) -> Any:
    """The sum over devices of ``function(...)`` of the rows that each has: one all-reduce."""

    def summed(*own):
        return jax.lax.psum(function(*own), ROWS)

    specs = (P(ROWS),) * len(by_rows)
    return jax.shard_map(summed, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)(
        *by_rows
    )


def repeated_on_all(mesh: Mesh, rows: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """A vector of rows, whole on every device: one all-reduce of its pieces, each amid zeros."""

    def amid_zeros(own):
        begin = jax.lax.axis_index(ROWS) * len(own)
        zeros = jnp.zeros(mesh.size * len(own), own.dtype)
        return jax.lax.dynamic_update_slice(zeros, own, (begin,))

    return sum_of_rows(mesh, amid_zeros, rows)


def turned(J: Float[Array, "own p"], devices: int) -> Float[Array, "rows part"]:
    """On each device: from its rows of a matrix to its part of the columns, by one all-to-all.

    Columns of zeros fill the last parts up.
    """
    filled = jnp.pad(J, ((0, 0), (0, -J.shape[1] % devices)))
    return jax.lax.all_to_all(filled, ROWS, split_axis=1, concat_axis=0, tiled=True)


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """All arrays of a tree, the same on every device of the mesh: those of process 0, if there are more.

    What every process has computed for itself may differ by rounding.
    """
    arrays, others = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    if mesh.is_multi_process:
        arrays = broadcast_one_to_all(arrays)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, P())), others)


def spread(tree: Any, mesh: Mesh, rows: int | None = None) -> Any:
    """Arrays of a compiled function laid out: vectors of ``rows`` entries as rows are, others everywhere.

    So what a function returns lies as what it is given, and it is compiled once.
    """

    def place(leaf):
        spec = P(ROWS) if leaf.shape == (rows,) else P()
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def to_host(tree: Any) -> Any:
    """Arrays that are the same on every device, as those of the default device alone."""
    return jax.tree.map(jnp.asarray, jax.device_get(tree))

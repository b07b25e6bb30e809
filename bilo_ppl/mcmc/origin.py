"""What the draws of a sampler depend on, as far as it can be compared."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bilo_ppl._snapshot import flat
from bilo_ppl._types import Key
from bilo_ppl.mcmc.blocks import BlockSampler

__all__ = ["differences", "origin_of"]


def origin_of(sampler: BlockSampler, key: Key) -> dict[str, Any]:
    """The sampler's numbers, the key, and a checksum of all arrays among the model's arguments."""
    arrays = [
        leaf
        for leaf in jax.tree.leaves((sampler.args, sampler.kwargs))
        if isinstance(leaf, (jax.Array, np.ndarray, float, int))
    ]
    found = hashlib.sha256()
    for array in flat(arrays):
        found.update(str((array.dtype, array.shape)).encode() + array.tobytes())
    return {
        "kernel": type(sampler.kernel).__name__,
        "num_chains": sampler.chains,
        "num_warmup": sampler.warmup,
        "chain_method": sampler.method,
        "key": flat(key)[0].tolist(),
        "arguments of the model": found.hexdigest(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is another now, in words."""
    return [
        f"{name}: of other values"
        if name.startswith("arguments")
        else f"{name}: {then.get(name)} then, {value} now"
        for name, value in now.items()
        if then.get(name) != value
    ]

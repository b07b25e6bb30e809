"""Sampling that Ctrl-C may end early without losing the draws there are."""

from collections.abc import Callable
from typing import Any

from bilo_ppl._blocks import Ended
from bilo_ppl._types import Key
from bilo_ppl.mcmc.blocks import BlockSampler
from bilo_ppl.mcmc.draws import Draws

__all__ = ["sample_in_blocks"]

LARGEST_BLOCK = 100
"""Most draws of a block; how many there are follows from the time that they take."""


def sample_in_blocks(
    kernel: Any,
    key: Key,
    *model_args: Any,
    num_warmup: int,
    num_samples: int,
    num_chains: int = 1,
    chain_method: str = "sequential",
    progress: bool = True,
    save: Callable[[Draws], Any] | None = None,
    **model_kwargs: Any,
) -> Draws:
    """Run a kernel as `numpyro.infer.MCMC` would, but so that Ctrl-C keeps the draws there are.

    ``kernel`` is a `numpyro.infer.HMC` or ``NUTS``, a `BiLOHMC` or a `BiLONUTS`, made with a model whose
    arguments are ``model_args`` and ``model_kwargs``. ``chain_method`` is "sequential", "vectorized",
    or "parallel": chains spread over JAX's devices, several on each if need be. ``save(draws)`` is
    called about once a minute, and when the sampling is interrupted.

    Ctrl-C in warm-up raises KeyboardInterrupt, since there are no draws. Raises a ``ValueError`` for a
    chain whose potential energy is not finite where it starts, and for bad arguments.
    """
    if num_samples < 1:
        raise ValueError(f"sample_in_blocks: num_samples={num_samples}; the least is 1.")
    sampler = BlockSampler(
        kernel,
        model_args,
        model_kwargs,
        chains=num_chains,
        chain_method=chain_method,
        warmup=num_warmup,
        block=min(LARGEST_BLOCK, max(num_warmup, num_samples)),
    )
    sampler.start(key)
    warmed = sampler.run(num_warmup, keep=False, progress=progress, label="warm-up")
    if warmed is Ended.INTERRUPTED:
        raise KeyboardInterrupt
    sampler.run(
        num_samples,
        keep=True,
        progress=progress,
        label="sampling",
        save=None if save is None else lambda: save(sampler.collected()),
    )
    return sampler.collected()

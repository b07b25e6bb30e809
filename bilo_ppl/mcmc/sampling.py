"""Sampling that loses no draws, however it ends, and that another process goes on with."""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bilo_ppl._blocks import Ended
from bilo_ppl._checkpoint import Checkpoint, keeping
from bilo_ppl._log import Log, has_log
from bilo_ppl._types import Key
from bilo_ppl.mcmc.blocks import BlockSampler
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.mcmc.origin import differences, origin_of

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
    save: Callable[[Draws], Any] | str | os.PathLike | None = None,
    resume: bool = False,
    **model_kwargs: Any,
) -> Draws:
    """Run a kernel as `numpyro.infer.MCMC` would, but so that no draws are lost, however it ends.

    ``kernel`` is a `numpyro.infer.HMC` or ``NUTS``, a `BiLOHMC`, a `BiLONUTS` or a `TwoStage`, made with
    a model whose arguments are ``model_args`` and ``model_kwargs``. ``chain_method`` is "sequential",
    "vectorized", or "parallel": chains spread over JAX's devices, several on each if need be.

    ``save`` is the path of a checkpoint, to which warm-up and draws are written while they are made: at
    most a minute apart, or a block of transitions, if that is longer. With ``resume`` the chains go on
    from there, if the file exists, and give the draws, bit for bit, that they would have given without
    an interruption; more ``num_samples`` than before extend a run that has ended. All other arguments
    must be as they were; of the kernel and the model, which cannot be compared, only the sizes of the
    state are looked at. Or ``save(draws)`` is called about once a minute, and at an interrupt.

    Ctrl-C keeps the draws there are; in warm-up it raises KeyboardInterrupt, since there are none. Raises
    a ``ValueError`` for a chain whose potential energy is not finite where it starts, for bad arguments,
    and for a file that belongs to another run or, without ``resume``, is there already.

    Examples:
        >>> path = folder / "draws.bin"
        >>> short = bilo.sample_in_blocks(
        ...     NUTS(model), key, exact, x, y, num_warmup=20, num_samples=20, save=path, progress=False
        ... )
        >>> short.samples["r"].shape, path.exists()
        ((1, 20), True)
    """
    if num_samples < 1:
        raise ValueError(f"sample_in_blocks: num_samples={num_samples}; the least is 1.")
    calls = save if callable(save) else None
    path = None if save is None or callable(save) else pathlib.Path(save)
    if resume and path is None:
        raise ValueError("sample_in_blocks: resume=True needs save=, the path of the checkpoint.")
    sampler = BlockSampler(
        kernel,
        model_args,
        model_kwargs,
        chains=num_chains,
        chain_method=chain_method,
        warmup=num_warmup,
        block=min(LARGEST_BLOCK, max(num_warmup, num_samples)),
    )
    origin = origin_of(sampler, key)
    with contextlib.nullcontext() if path is None else _kept(path, resume, origin, sampler):
        sampler.start(key)
        warmed = sampler.run(num_warmup, keep=False, progress=progress, label="warm-up")
        if warmed is Ended.INTERRUPTED:
            raise KeyboardInterrupt
        sampler.run(
            num_samples,
            keep=True,
            progress=progress,
            label="sampling",
            save=None if calls is None else lambda: calls(sampler.collected()),
        )
    sampler.leave_out_beyond(num_samples)
    return sampler.collected()


@contextlib.contextmanager
def _kept(path: pathlib.Path, resume: bool, origin: Any, sampler: BlockSampler) -> Iterator[None]:
    if path.exists() and not resume:
        raise ValueError(
            f"sample_in_blocks: {path} exists; give resume=True to go on from it, or another path."
        )
    goes_on = path.exists()
    if goes_on and not has_log(path):
        raise ValueError(f"sample_in_blocks: {path} is no checkpoint of this version.")
    checkpoint = Checkpoint(Log(path), lambda text: warnings.warn(text, stacklevel=2))
    try:
        before = checkpoint.recall("origin")
        if before is None:
            checkpoint.remember("origin", {**origin, "block": sampler.block})
        elif differing := differences(before.notes, origin):
            raise ValueError(
                f"sample_in_blocks: {path} belongs to another run: {'; '.join(differing)}. Only "
                "num_samples and progress may differ."
            )
        else:
            sampler.block = before.notes["block"]
        with keeping(checkpoint):
            yield
    finally:
        checkpoint.close()

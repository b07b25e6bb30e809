"""Chains in blocks: progress between them, and an interrupt that loses no finished one."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpyro.infer import HMC

from bilo_ppl._blocks import BlockReport, Ended, Lengths, run_blocks
from bilo_ppl._expected import Work
from bilo_ppl._snapshot import Saved, Snapshot
from bilo_ppl._types import Key
from bilo_ppl.mcmc._numpyro import fresh_kernel
from bilo_ppl.mcmc.chain_kernel import ChainKernel
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.mcmc.first_states import make_first_states
from bilo_ppl.mcmc.second_stage import STATISTICS
from bilo_ppl.mcmc.tally import Tally
from bilo_ppl.mcmc.two_stage import TwoStage

__all__ = ["CHAIN_METHODS", "BlockSampler", "fresh", "strong"]

CHAIN_METHODS = ("sequential", "vectorized", "parallel")

_FIELDS = ("diverging", "num_steps", "accept_prob", "potential_energy", "energy")
_INNER_FIELDS = ("inner_steps", "inner_loss", "inner_converged")


class BlockSampler:
    """Runs the chains of a NumPyro kernel a block of transitions at a time.

    Warm-up and sampling share one compiled function: the kernel's state says which it is, and the
    length of a block is an argument, at most ``block``. Chains are vectorised, run one after another
    ("sequential"), or spread over the devices that JAX has ("parallel"), as many as divide their number.
    `sample_in_blocks` does all that with one call.

    **Arguments**

    - ``kernel``: HMC, NUTS, `BiLOHMC`, `BiLONUTS` or `TwoStage`, with a model.
    - ``args``, ``kwargs``: arguments of the model.
    - ``chains``, ``warmup``: number of chains, and of warm-up transitions of each.
    - ``chain_method``: "sequential", "vectorized" or "parallel".
    - ``block``: most transitions between two looks at the clock and at Ctrl-C.

    Raises a ``ValueError`` for another kernel or method, and for numbers that are too small.

    Examples:
        >>> from bilo_ppl.mcmc import BlockSampler
        >>> options = {"chains": 2, "chain_method": "vectorized", "warmup": 20, "block": 10}
        >>> sampler = BlockSampler(NUTS(model), (exact, x, y), **options)
        >>> sampler.start(key)
        >>> sampler.run(20, keep=False, progress=False, label="warm-up").value
        'finished'
        >>> _ = sampler.run(30, keep=True, progress=False, label="sampling")
        >>> sampler.collected().samples["r"].shape
        (2, 30)
        >>> sampler.leave_out_beyond(25)
        >>> sampler.collected().samples["r"].shape
        (2, 25)
    """

    def __init__(
        self,
        kernel: Any,
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        chains: int,
        chain_method: str,
        warmup: int,
        block: int,
    ):
        if not isinstance(kernel, (HMC, ChainKernel, TwoStage)) or kernel.model is None:
            raise ValueError(
                f"{type(kernel).__name__}: in blocks run HMC and NUTS, BiLOHMC, BiLONUTS and TwoStage, "
                "each with a model; others in numpyro.infer.MCMC."
            )
        if chain_method not in CHAIN_METHODS:
            raise ValueError(
                f"chain_method is {chain_method!r}; it must be one of {', '.join(CHAIN_METHODS)}."
            )
        for name, value, least in (
            ("chains", chains, 1),
            ("warmup", warmup, 0),
            ("block", block, 1),
        ):
            if value < least:
                raise ValueError(f"BlockSampler: {name}={value}; the least is {least}.")
        self.kernel = fresh(kernel)
        self.args, self.kwargs = args, dict(kwargs or {})
        self.chains, self.warmup, self.block = chains, warmup, block
        # A single chain is no batch: NumPyro's kernels take it as it is.
        self.method = "sequential" if chains == 1 else chain_method
        self.draws: list[dict[str, Any]] = []
        self.warmup_divergences = 0
        self.state: Any = None

    def start(self, key: Key, positions: Any = None) -> None:
        """Make the first states, each chain at a start of its own.

        ``positions`` are unconstrained values by site with a leading chain axis; without them the
        kernel's ``init_strategy`` says where.
        Raises a ``ValueError`` or ``RuntimeError`` where the kernel finds no valid start.
        """
        keys = jax.random.split(key, self.chains)
        vectorized = self.method == "vectorized"
        state = make_first_states(
            self.kernel, self.args, self.kwargs, keys, self.warmup, vectorized, positions
        )
        self.state = strong(state)
        self._many = self._compiled()

    def _compiled(self) -> Callable:
        """``(state, length) -> (state, what is kept)``, compiled."""
        if self.method == "vectorized":
            # The draw axis comes first where the kernel itself maps over chains.
            def swapped(state, length):
                state, kept = self._transitions(state, length)
                return state, jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), kept)

            return jax.jit(swapped)

        def one_by_one(states, length):
            return jax.lax.map(lambda state: self._transitions(state, length), states)

        if self.method == "sequential":
            return jax.jit(one_by_one)
        mesh = _mesh(self.chains)
        # Placed as it will come back: otherwise the second block would be compiled anew.
        self.state = jax.device_put(self.state, NamedSharding(mesh, P("chain")))
        parts = {"in_specs": (P("chain"), P()), "out_specs": P("chain"), "check_vma": False}
        return jax.jit(jax.shard_map(one_by_one, mesh=mesh, **parts))

    def _transitions(self, state: Any, length: Any) -> tuple[Any, dict[str, Any]]:
        """``length`` transitions and what is kept of them, in arrays of size ``block``."""

        def body(i, carry):
            state, kept = carry
            state = self.kernel.sample(state, self.args, self.kwargs)
            new = self._kept(state)
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), kept, new)

        shapes = jax.eval_shape(self._kept, state)
        kept = jax.tree.map(lambda leaf: jnp.zeros((self.block, *leaf.shape), leaf.dtype), shapes)
        state, kept = jax.lax.fori_loop(0, length, body, (state, kept))
        return strong(state), kept

    def _kept(self, state: Any) -> dict[str, Any]:
        names = [n for n in (*_FIELDS, *_INNER_FIELDS, *STATISTICS) if n in state._fields]
        fields = {name: getattr(state, name) for name in names}
        return {"z": state.z, "adapt_state.step_size": state.adapt_state.step_size, **fields}

    def run(
        self,
        count: int,
        *,
        keep: bool,
        progress: bool,
        label: str,
        save: Callable[[], Any] | None = None,
        enough: Callable[[], bool] | None = None,
    ) -> Ended:
        """``count`` transitions of every chain; with ``keep`` their draws are collected.

        ``enough()`` is asked after each block, and says whether the draws so far will do.

        Ctrl-C ends it after the block that is running, which is kept. The length of a block follows
        its time, which Ctrl-C has to wait for; the draws do not depend on it. ``save()`` is called
        between blocks now and then, see `run_blocks`.
        """
        tally = Tally()

        def block(length: int) -> BlockReport:
            state, kept = self._many(self.state, length)
            kept = jax.tree.map(partial(_first, length), kept)
            self.state = state
            if keep:
                self.draws.append(kept)
            else:
                self.warmup_divergences += int(kept["diverging"].sum())
            return BlockReport(length, tally.add(kept))

        return run_blocks(
            block,
            count,
            label=label,
            unit="draw" if keep else "transition",
            lengths=Lengths(self.block),
            progress=progress,
            save=save,
            work=Work("transition", 1.0),
            at_most=enough is not None,
            resumable=self,
            enough=enough,
        )

    def snapshot(self) -> Snapshot:
        """The chains between two blocks, and the draws so far: see `bilo_ppl._checkpoint`."""
        notes = {"warmup_divergences": self.warmup_divergences, "block": self.block}
        return Snapshot(self.state, notes, list(self.draws))

    def restore(self, saved: Saved) -> None:
        """Go on from a snapshot: the chains give the draws that they would have given there.

        The sampler has been started, with the same kernel, arguments and number of chains. Raises a
        ``ValueError`` where the snapshot is of others.
        """
        state = saved.tree(self.state)
        draws = saved.parts(jax.eval_shape(self._kept, self.state))
        # Where the chains lie, on one device or on several, stays as it is.
        self.state = jax.tree.map(_placed, state, self.state)
        self.draws = draws
        self.warmup_divergences = saved.notes["warmup_divergences"]

    def leave_out_beyond(self, count: int) -> None:
        """Keep the first draws of every chain only, where there are more."""
        kept, rest = [], count
        for part in self.draws:
            kept.append(jax.tree.map(partial(_first, rest), part))
            rest = max(rest - part["diverging"].shape[1], 0)
        self.draws = [part for part in kept if part["diverging"].size]

    @property
    def count(self) -> int:
        """Draws of each chain so far."""
        return sum(part["diverging"].shape[1] for part in self.draws)

    @property
    def positions(self) -> Any:
        """Draws so far in unconstrained space, arrays ``(chains, draws, ...)`` by site; None of none."""
        if not self.draws:
            return None
        parts = [part["z"] for part in self.draws]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *parts)

    def collected(self) -> Draws:
        """All draws so far, mapped to the model's sites."""
        if not self.draws:
            raise ValueError("BlockSampler: there are no draws yet; run(..., keep=True) first.")
        constrain = jax.vmap(jax.vmap(self.kernel.postprocess_fn(self.args, self.kwargs)))
        statistics = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.draws)
        samples = jax.device_get(jax.jit(constrain)(statistics.pop("z")))
        return Draws(self.kernel.model, self.args, self.kwargs, samples, statistics)


def fresh(kernel: Any) -> Any:
    """The kernel, not initialised, so that it has nothing of another run."""
    if isinstance(kernel, HMC):
        return fresh_kernel(kernel)
    return kernel.fresh() if isinstance(kernel, TwoStage) else copy.copy(kernel)


def _mesh(chains: int) -> jax.sharding.Mesh:
    """The local devices over which chains are spread evenly."""
    devices = jax.local_devices()
    number = max(n for n in range(1, len(devices) + 1) if chains % n == 0)
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((number,), ("chain",), auto, devices=devices[:number])


def strong(state: Any) -> Any:
    """The state with types that do not give way: one of weak types would be compiled anew."""

    def of_leaf(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(of_leaf, state)


def _placed(leaf: Any, like: Any) -> Any:
    spread = isinstance(like.sharding, NamedSharding)
    return jax.device_put(leaf, like.sharding) if spread else leaf


def _first(length: int, leaf: Any) -> np.ndarray:
    return np.asarray(leaf)[:, :length]

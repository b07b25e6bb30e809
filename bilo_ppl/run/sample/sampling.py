"""Chains in blocks: progress between them, and an interrupt that loses no finished one."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to
from numpyro.infer import HMC, NUTS, init_to_sample, init_to_uniform
from tqdm import tqdm

from bilo_ppl._types import Key, Theta
from bilo_ppl.fields.weights import field_weights
from bilo_ppl.mcmc import BiLOHMC, BiLONUTS
from bilo_ppl.ppl.handlers import warm_start
from bilo_ppl.run.sample.starts import first_states
from bilo_ppl.run.settings import RunSettings

__all__ = ["BlockSampler", "Draws", "make_kernel"]

JITTER = 0.01
"""Standard deviation, in unconstrained space, of the chains' starts about the pretrained theta."""

FIRST_STEP = 0.1
"""First step size, before adaptation. NumPyro's 1.0 leaps, in unconstrained space, to thetas that
cost an inner solver all its steps."""

SCALED_STEP = 0.7
"""First step size where the mass matrix is known from adaptation."""

TRAJECTORY = 1.5
"""Length of an HMC trajectory where the mass matrix is the posterior's: near pi / 2, at which a
draw from a Gaussian is independent of the one before (2 pi would lead back to it)."""

TREE_DEPTH = (6, 10)
"""Largest NUTS tree in warm-up, where the first step sizes are far too small, and in sampling."""

BLOCK_SECONDS = 1.0
"""Wall time that a block of transitions should take."""

_FIELDS = ("diverging", "num_steps", "accept_prob", "potential_energy")
_INNER_FIELDS = ("inner_steps", "inner_loss", "inner_converged")


def make_kernel(
    settings: RunSettings, model: Callable, start: Theta, inverse_mass_matrix: Any = None
) -> Any:
    """The NumPyro kernel of a run, in the units that adaptation has found, if it has."""
    init = near(start) if settings.init == "start" else init_to_sample
    common: dict[str, Any] = {"step_size": FIRST_STEP, "init_strategy": init}
    if inverse_mass_matrix is not None:
        matrix = jnp.asarray(inverse_mass_matrix)
        common |= {"step_size": SCALED_STEP, "inverse_mass_matrix": matrix}
    accept = settings.accept_unconverged
    if settings.sampler == "bilo-nuts":
        return BiLONUTS(model, max_tree_depth=TREE_DEPTH, accept_unconverged=accept, **common)
    if settings.sampler == "bilo-hmc":
        return BiLOHMC(model, trajectory_length=TRAJECTORY, accept_unconverged=accept, **common)
    model = accepting(model) if accept else model
    if settings.sampler == "nuts":
        depth: Any = TREE_DEPTH  # annotated as an int in NumPyro, documented as possibly a pair
        return NUTS(model, max_tree_depth=depth, **common)
    return HMC(model, trajectory_length=TRAJECTORY, **common)


def accepting(model: Callable) -> Callable:
    """The model with unconverged solves left to stand."""

    def accepted(*args, **kwargs):
        with warm_start(accept_unconverged=True):
            return model(*args, **kwargs)

    return accepted


def near(values: Mapping[str, Any], site: Any = None) -> Any:
    """A NumPyro ``init_strategy``: given values with a little jitter; other sites at random."""
    if site is None:
        return partial(near, values)
    if site["type"] != "sample" or site["is_observed"] or site["name"] not in values:
        return init_to_uniform(site)
    transform = biject_to(site["fn"].support)
    value = values[site["name"]]
    value = field_weights(value) if callable(value) else value
    z = transform.inv(jnp.asarray(value, jnp.result_type(float)))
    key = site["kwargs"].get("rng_key")
    return transform(z if key is None else z + JITTER * jax.random.normal(key, z.shape))


class Draws:
    """Draws and statistics, with what `diagnostics.to_arviz` asks of a `numpyro.infer.MCMC`."""

    def __init__(self, sampler: Any, args: tuple, fields: Mapping[str, Any]):
        self.sampler, self._args, self._kwargs = sampler, args, {}
        self._fields = fields

    def get_samples(self, group_by_chain: bool = True) -> dict[str, np.ndarray]:
        """Draws by site name, ``(chains, draws, ...)``."""
        return self._fields["z"]

    def get_extra_fields(self, group_by_chain: bool = True) -> dict[str, np.ndarray]:
        """Statistics of the transitions, ``(chains, draws)``."""
        return {name: value for name, value in self._fields.items() if name != "z"}


class BlockSampler:
    """Runs the chains of a NumPyro kernel a block of transitions at a time.

    Warm-up and sampling share one compiled function: the kernel's state says which it is, and the
    length of a block is an argument, at most ``block``. Chains are vectorised, mapped over devices
    ("parallel"), or run one after another ("sequential").
    """

    def __init__(
        self, kernel: Any, args: tuple, *, chains: int, chain_method: str, warmup: int, block: int
    ):
        self.kernel, self.args, self.chains, self.block = kernel, args, chains, block
        self.warmup, self.method = warmup, chain_method
        self.draws: list[dict[str, Any]] = []
        self.warmup_divergences = 0
        self.state: Any = None

    def start(self, key: Key) -> None:
        """Make the first states, each chain at a start of its own.

        Raises a ``ValueError`` or ``RuntimeError`` where the kernel finds no valid start.
        """
        keys = jax.random.split(key, self.chains)
        vectorized = self.method == "vectorized" and self.chains > 1
        state = first_states(self.kernel, self.args, keys, self.warmup, vectorized)
        self.state = jax.tree.map(_strong, state)
        self._run = self._compiled()

    def _compiled(self) -> Callable:
        if self.method == "vectorized" and self.chains > 1:
            # The draw axis comes first where the kernel itself maps over chains.
            def swapped(state, length):
                state, kept = self._advance(state, length)
                return state, jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), kept)

            return jax.jit(swapped)
        if self.method == "parallel":
            return jax.pmap(self._advance, in_axes=(0, None))
        return jax.jit(lambda s, n: jax.lax.map(lambda state: self._advance(state, n), s))

    def _advance(self, state: Any, length: Any) -> tuple[Any, dict[str, Any]]:
        """``length`` transitions and what is kept of them, in arrays of size ``block``."""

        def body(i, carry):
            state, kept = carry
            state = self.kernel.sample(state, self.args, {})
            new = self._kept(state)
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), kept, new)

        shapes = jax.eval_shape(self._kept, state)
        kept = jax.tree.map(lambda leaf: jnp.zeros((self.block, *leaf.shape), leaf.dtype), shapes)
        state, kept = jax.lax.fori_loop(0, length, body, (state, kept))
        return jax.tree.map(_strong, state), kept

    def _kept(self, state: Any) -> dict[str, Any]:
        names = [n for n in (*_FIELDS, *_INNER_FIELDS) if n in state._fields]
        fields = {name: getattr(state, name) for name in names}
        return {"z": state.z, "adapt_state.step_size": state.adapt_state.step_size, **fields}

    def advance(self, count: int, *, keep: bool, progress: bool, label: str) -> None:
        """``count`` transitions of every chain; with ``keep`` their draws are collected.

        Ctrl-C ends it after the block that is running; blocks finished before are kept. The length
        of a block follows its time, which Ctrl-C has to wait for; the draws do not depend on it.
        """
        bar = tqdm(total=count, desc=label, disable=not progress, file=sys.stderr, unit="draw")
        with bar:
            done, length = 0, 1
            while done < count:
                begun, length = time.perf_counter(), min(length, self.block, count - done)
                state, kept = self._run(self.state, length)
                kept = jax.tree.map(partial(_first, length), kept)
                self.state = state
                if keep:
                    self.draws.append(kept)
                else:
                    self.warmup_divergences += int(kept["diverging"].sum())
                done += length
                bar.update(length)
                bar.set_postfix_str(_postfix(kept))
                fitting = BLOCK_SECONDS * length / (time.perf_counter() - begun)
                length = int(np.clip(fitting, 1, 2 * length))

    def collected(self) -> Draws:
        """All draws so far, mapped to the model's sites: ``(chains, draws, ...)``."""
        constrain = jax.vmap(jax.vmap(self.kernel.postprocess_fn(self.args, {})))
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.draws)
        joined["z"] = jax.device_get(jax.jit(constrain)(joined["z"]))
        return Draws(self.kernel, self.args, joined)


def _strong(leaf: Any) -> Any:
    """The array with a type that does not give way: a state of weak types would be compiled anew."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def _first(length: int, leaf: Any) -> np.ndarray:
    return np.asarray(leaf)[:, :length]


def _postfix(kept: Mapping[str, Any]) -> str:
    """Acceptance, work and divergences of the last block, for the progress bar."""
    leapfrogs = max(int(kept["num_steps"].sum()), 1)
    parts = [
        f"acceptance {kept['accept_prob'].mean():.2f}",
        f"{leapfrogs / kept['num_steps'].size:.1f} leapfrog steps",
        f"step {kept['adapt_state.step_size'][:, -1].mean():.2g}",
    ]
    if "inner_steps" in kept:
        parts.append(f"{kept['inner_steps'].sum() / leapfrogs:.1f} inner steps each")
    if kept["diverging"].any():
        parts.append(f"{kept['diverging'].sum()} divergences")
    return ", ".join(parts)

"""First states of chains: one compiled evaluation of the potential for all of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import potential_energy

from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl.mcmc._numpyro import searches_for_step_size
from bilo_ppl.mcmc.chain_kernel import ChainKernel
from bilo_ppl.mcmc.initial_position import finite_chains, priors_only
from bilo_ppl.mcmc.model_kernel import split_keys
from bilo_ppl.mcmc.two_stage import TwoStage

__all__ = ["make_first_states"]


def make_first_states(
    kernel: Any,
    args: tuple,
    kwargs: Mapping[str, Any],
    keys: Any,
    num_warmup: int,
    vectorized: bool,
    positions: Any = None,
) -> Any:
    """States of a kernel for a batch of keys, a leading chain axis on every array.

    The chains start at unconstrained ``positions`` by site, if they are given, else where the kernel's
    ``init_strategy`` says.

    NumPyro's kernels evaluate the potential step by step outside of any compiled function, and again
    at every call. So they are made with the priors alone, and the potential is put in afterwards.

    Raises a ``ValueError`` for a chain whose potential or gradient is not finite where it starts, or a
    kernel of NumPyro's that searches for a step size there; a ``RuntimeError`` where the priors give no
    start at all.
    """
    options: dict[str, Any] = {
        "init_params": positions,
        "model_args": args,
        "model_kwargs": dict(kwargs),
    }
    if isinstance(kernel, TwoStage):
        own, of_first = split_keys(keys)
        first = make_first_states(
            kernel.kernel, args, kwargs, of_first, num_warmup, vectorized, positions
        )
        return kernel.begin(first, own, num_warmup, args, kwargs)
    if isinstance(kernel, ChainKernel):
        return kernel.init(keys, num_warmup, **options)
    if searches_for_step_size(kernel):
        raise ValueError(
            f"{type(kernel).__name__}: find_heuristic_step_size is not possible in blocks; give "
            "step_size, or a kernel of bilo_ppl."
        )
    with priors_only():
        options["init_params"] = None
        if vectorized:
            states = kernel.init(keys, num_warmup, **options)
        else:
            each = [kernel.init(key, num_warmup, **options) for key in keys]
            states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    if positions is not None:
        states = states._replace(z=jax.tree.map(jnp.asarray, positions))

    def potential(z):
        return potential_energy(kernel.model, args, dict(kwargs), z)

    energy, gradient = jit_once(lambda z: jax.lax.map(jax.value_and_grad(potential), z))(states.z)
    _check(states.z, energy, gradient)
    return states._replace(
        potential_energy=energy.astype(states.potential_energy.dtype), z_grad=gradient
    )


def _check(z: Any, energy: Any, gradient: Any) -> None:
    finite = finite_chains(energy, gradient)
    if finite.all():
        return
    chain = int(np.argmin(finite))
    where = jax.tree.map(lambda leaf: np.asarray(leaf[chain]).tolist(), z)
    raise ValueError(
        f"the chain cannot start at {where} (unconstrained; chain {chain} of {len(finite)}): U is "
        f"{float(energy[chain]):g}, or its gradient is not finite. {see('A chain that cannot start')}"
    )

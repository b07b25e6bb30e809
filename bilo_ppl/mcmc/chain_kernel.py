"""A chain that carries the inner solver's state, as a kernel for `numpyro.infer.MCMC`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from bilo_ppl.mcmc._numpyro import MCMCKernel, is_prng_key
from bilo_ppl.mcmc.chain import BiLOState, Chain, Settings
from bilo_ppl.mcmc.initial_position import (
    InitialPosition,
    check_first_state,
    find_initial_position,
)
from bilo_ppl.mcmc.transitions import AbstractTransition
from bilo_ppl.ppl.potential import StatefulPotential

__all__ = ["ChainKernel"]


class ChainKernel(MCMCKernel):
    """NumPyro's interface to a `Chain`; kernels differ in how a trajectory is built."""

    def __init__(
        self,
        model: Any,
        potential_fn: Any,
        move: AbstractTransition,
        settings: Settings,
        *,
        init_strategy: Any,
        accept_unconverged: bool,
    ):
        if potential_fn is not None:
            raise ValueError(
                f"{type(self).__name__}: potential_fn is not accepted, since a function of the "
                "position alone has no solver state to carry; give model= (for a "
                "StatefulPotential, its .model)."
            )
        if not callable(model):
            raise ValueError(f"{type(self).__name__}: give a NumPyro model.")
        self._model, self._move, self._settings = model, move, settings
        self._init_strategy, self._accept_unconverged = init_strategy, accept_unconverged
        self._num_warmup: int | None = None
        self._start: InitialPosition | None = None

    @property
    def model(self) -> Callable:
        """The NumPyro model."""
        return self._model

    @property
    def sample_field(self) -> str:
        """Where `MCMC` finds the draw."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields collected unasked: NumPyro's, and the inner solver's next to the divergences."""
        return ("z", "diverging", "inner_steps", "inner_loss", "inner_converged")

    @property
    def _sample_fn(self) -> Callable | None:
        """NumPyro's `MCMC` calls `init` anew, even for a chain that it resumes, if this is None."""
        return None if self._num_warmup is None else self.sample

    def get_diagnostics_str(self, state: BiLOState) -> str:
        """The text next to the progress bar."""
        taken = int(state.num_steps)
        return (
            f"{taken} steps of size {float(state.adapt_state.step_size):.2e}. "
            f"acc. prob={float(state.mean_accept_prob):.2f}. "
            f"{int(state.inner_steps) / max(taken, 1):.1f} inner steps per step"
        )

    def postprocess_fn(self, model_args: tuple, model_kwargs: Mapping[str, Any]) -> Callable:
        """Map unconstrained values to the model's sites.

        Without deterministic sites no solve takes place. A deterministic site that depends on the
        solution is recomputed from the operator's stored state, a solve for each draw.
        """
        if self._start is None:
            return lambda z: z
        return self._start.postprocess_fn(*model_args, **model_kwargs)

    def init(
        self,
        rng_key: Any,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> BiLOState:
        """First state of a chain, or of one chain for each key in a batch ``(chains, ...)``.

        ``init_params`` are unconstrained values by site. Raises a ``ValueError`` where the
        potential energy is not finite at the start, saying what the inner solver did there.
        """
        single, model_kwargs = is_prng_key(rng_key), dict(model_kwargs or {})
        split = jax.random.split if single else jax.vmap(jax.random.split, out_axes=1)
        key_chain, key_model = split(rng_key)
        self._start = find_initial_position(
            key_model, self._model, model_args, model_kwargs, self._init_strategy
        )
        self._num_warmup = num_warmup
        chain = self._chain(model_args, model_kwargs)
        solver_state = chain.potential.init_state(key_model if single else key_model[0])
        z = self._start.z if init_params is None else init_params
        first = chain.first if single else jax.vmap(chain.first, in_axes=(0, 0, None))
        state = jax.jit(first)(z, key_chain, solver_state)
        check_first_state(state, self._model, model_args, model_kwargs)
        return state

    def sample(
        self,
        state: BiLOState,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> BiLOState:
        """One transition, of one chain or of a batch of chains."""
        chain = self._chain(model_args, model_kwargs or {})
        if is_prng_key(state.rng_key):
            return chain.next(self._settings.adaptation.find_heuristic_step_size, state)
        # Under vmap both branches of a cond run: the search would run at every iteration.
        return jax.vmap(partial(chain.next, False))(state)

    def _chain(self, model_args: tuple, model_kwargs: Mapping[str, Any]) -> Chain:
        if self._num_warmup is None:
            raise RuntimeError(f"{type(self).__name__}: call init before sample.")
        potential = StatefulPotential(
            self._model, model_args, model_kwargs, accept_unconverged=self._accept_unconverged
        )
        return Chain(potential, self._move, self._settings, self._num_warmup)

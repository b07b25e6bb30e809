"""A chain that carries the inner solver's state, as a kernel for `numpyro.infer.MCMC`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from bilo_ppl.mcmc._numpyro import is_prng_key
from bilo_ppl.mcmc.chain import BiLOState, Chain, Settings
from bilo_ppl.mcmc.initial_position import check_first_state
from bilo_ppl.mcmc.model_kernel import StartingKernel, split_keys
from bilo_ppl.mcmc.transitions import AbstractTransition
from bilo_ppl.ppl.potential import StatefulPotential

__all__ = ["ChainKernel"]


class ChainKernel(StartingKernel):
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
                f"{type(self).__name__}: potential_fn is not accepted, having no solver state to carry; "
                "give model=."
            )
        if not callable(model):
            raise ValueError(f"{type(self).__name__}: give a NumPyro model.")
        super().__init__(model, init_strategy)
        self._move, self._settings = move, settings
        self._accept_unconverged = accept_unconverged

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields collected unasked: NumPyro's, and the inner solver's next to the divergences."""
        return ("z", "diverging", "inner_steps", "inner_loss", "inner_converged")

    def get_diagnostics_str(self, state: BiLOState) -> str:
        """The text next to the progress bar."""
        taken = int(state.num_steps)
        return (
            f"{taken} steps of size {float(state.adapt_state.step_size):.2e}. "
            f"acc. prob={float(state.mean_accept_prob):.2f}. "
            f"{int(state.inner_steps) / max(taken, 1):.1f} inner steps per step"
        )

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
        key_chain, key_model = split_keys(rng_key)
        z = self._begin(key_model, num_warmup, init_params, model_args, model_kwargs)
        chain = self._chain(model_args, model_kwargs)
        solver_state = chain.potential.init_state(key_model if single else key_model[0])
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
        num_warmup = self._warmup()
        potential = StatefulPotential(
            self._model, model_args, model_kwargs, accept_unconverged=self._accept_unconverged
        )
        return Chain(potential, self._move, self._settings, num_warmup)

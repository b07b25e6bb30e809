"""`BiLOHMC` and `BiLONUTS`: NumPyro kernels whose chain carries the inner solver's state.

Each leapfrog step solves the PDE from the state of the step before it; a rejected trajectory
leaves state, potential energy and gradient of the chain as they were, never recomputed. This is the
papers' algorithm. The law of such a chain is exact only up to the solver's tolerance, because
U(theta) depends on the path by which theta was reached.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from bilo_ppl.mcmc._numpyro import MCMCKernel, init_to_uniform, is_prng_key
from bilo_ppl.mcmc.chain import BiLOState, Chain, Settings
from bilo_ppl.mcmc.first_states import Start, check_start, find_start
from bilo_ppl.mcmc.transitions import AbstractTransition, FixedLength, NoUTurn
from bilo_ppl.ppl.potential import StatefulPotential

__all__ = ["BiLOHMC", "BiLONUTS"]


class _BiLOKernel(MCMCKernel):
    """NumPyro's interface to a `Chain`; the two kernels differ in how a trajectory is built."""

    def __init__(self, model: Any, potential_fn: Any, move: AbstractTransition, settings: Settings):
        if potential_fn is not None:
            raise ValueError(
                f"{type(self).__name__}: potential_fn is not accepted, since a function of the "
                "position alone has no solver state to carry; give model= (for a "
                "StatefulPotential, its .model)."
            )
        if not callable(model):
            raise ValueError(f"{type(self).__name__}: give a NumPyro model.")
        self._model, self._move, self._settings = model, move, settings
        self._num_warmup: int | None = None
        self._start: Start | None = None

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
        self._start = find_start(
            key_model, self._model, model_args, model_kwargs, self._settings.init_strategy
        )
        self._num_warmup = num_warmup
        chain = self._chain(model_args, model_kwargs)
        solver_state = chain.potential.init_state(key_model if single else key_model[0])
        z = self._start.z if init_params is None else init_params
        first = chain.first if single else jax.vmap(chain.first, in_axes=(0, 0, None))
        state = jax.jit(first)(z, key_chain, solver_state)
        check_start(state, self._model, model_args, model_kwargs)
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
            return chain.next(self._settings.find_heuristic_step_size, state)
        # Under vmap both branches of a cond run: the search would run at every iteration.
        return jax.vmap(partial(chain.next, False))(state)

    def _chain(self, model_args: tuple, model_kwargs: Mapping[str, Any]) -> Chain:
        if self._num_warmup is None:
            raise RuntimeError(f"{type(self).__name__}: call init before sample.")
        accept = self._settings.accept_unconverged
        potential = StatefulPotential(
            self._model, model_args, model_kwargs, accept_unconverged=accept
        )
        return Chain(potential, self._move, self._settings, self._num_warmup)


class BiLOHMC(_BiLOKernel):
    """Hamiltonian Monte Carlo that carries the solver state along the trajectory.

    Arguments are those of `numpyro.infer.HMC`, and ``accept_unconverged``: let points whose solve
    missed its tolerance stand, instead of rejecting them as divergences. Differences:
    ``potential_fn`` is refused; a start is found without solving and must have a finite potential;
    a trajectory ends, rejected, at the first point where the potential is not finite, and has at most
    1023 steps if ``trajectory_length`` is given (longer steps if need be); the search of
    ``find_heuristic_step_size`` runs at initialisation and, for chains that are not vectorised, at
    the ends of warm-up windows, and its inner steps are not counted.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Any = None,
        kinetic_fn: Callable | None = None,
        step_size: float = 1.0,
        inverse_mass_matrix: Any = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool | list = False,
        target_accept_prob: float = 0.8,
        num_steps: int | None = None,
        trajectory_length: float | None = 2 * math.pi,
        init_strategy: Any = init_to_uniform,
        find_heuristic_step_size: bool = False,
        forward_mode_differentiation: bool = False,
        regularize_mass_matrix: bool = True,
        accept_unconverged: bool = False,
    ):
        settings = Settings.of(locals())
        if num_steps is None and trajectory_length is None:
            raise ValueError("BiLOHMC: give num_steps or trajectory_length.")
        if adapt_step_size and num_steps is not None and trajectory_length is not None:
            warnings.warn(
                "BiLOHMC: with both num_steps and trajectory_length the step size is a quotient "
                "and does not adapt; give trajectory_length=None to adapt it.",
                stacklevel=2,
            )
        super().__init__(model, potential_fn, FixedLength(num_steps), settings)


class BiLONUTS(_BiLOKernel):
    """The no-U-turn sampler that carries a solver state on each edge of its tree.

    Arguments are those of `numpyro.infer.NUTS`, and ``accept_unconverged``; ``max_tree_depth`` may
    be a pair, for warm-up and sampling. The differences to NumPyro are those of `BiLOHMC`.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Any = None,
        kinetic_fn: Callable | None = None,
        step_size: float = 1.0,
        inverse_mass_matrix: Any = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool | list = False,
        target_accept_prob: float = 0.8,
        trajectory_length: float | None = None,
        max_tree_depth: int | tuple[int, int] = 10,
        init_strategy: Any = init_to_uniform,
        find_heuristic_step_size: bool = False,
        forward_mode_differentiation: bool = False,
        regularize_mass_matrix: bool = True,
        accept_unconverged: bool = False,
    ):
        settings = Settings.of(locals())
        depths = max_tree_depth if isinstance(max_tree_depth, tuple) else (max_tree_depth,) * 2
        super().__init__(model, potential_fn, NoUTurn(*depths), settings)

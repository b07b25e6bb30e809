"""`BiLOHMC` and `BiLONUTS`: NumPyro kernels whose chain carries the inner solver's state.

Each leapfrog step solves the PDE from the state of the step before it; a rejected trajectory
leaves state, potential energy and gradient of the chain as they were, never recomputed. This is the
papers' algorithm. The law of such a chain is exact only up to the solver's tolerance, because
U(theta) depends on the path by which theta was reached.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

from bilo_ppl.mcmc._numpyro import init_to_uniform
from bilo_ppl.mcmc.chain import Adaptation, Settings
from bilo_ppl.mcmc.chain_kernel import ChainKernel
from bilo_ppl.mcmc.kinetic import kinetic_energy
from bilo_ppl.mcmc.transitions import FixedLength, NoUTurn

__all__ = ["BiLOHMC", "BiLONUTS"]


class BiLOHMC(ChainKernel):
    """Hamiltonian Monte Carlo that carries the solver state along the trajectory.

    Arguments are those of `numpyro.infer.HMC`, and ``accept_unconverged``: let points whose solve
    missed its tolerance stand, instead of rejecting them as divergences, and ``learn_in_warmup``:
    rejected trajectories of warm-up pass the solver state of their end on, so that an operator with
    theta as an input learns the region; U of the point that stays is then that of the earlier
    weights, to the tolerance. In sampling a rejection restores everything. Differences:
    ``potential_fn`` is refused; a start is found without solving and must have a finite potential;
    a trajectory ends, rejected, at the first point where the potential is not finite, and has at most
    1023 steps if ``trajectory_length`` is given (longer steps if need be); the search of
    ``find_heuristic_step_size`` runs at initialisation and, for chains that are not vectorised, at
    the ends of warm-up windows, and its inner steps are not counted. Raises a ``ValueError`` if
    neither ``num_steps`` nor ``trajectory_length`` is given.

    Examples:
        >>> kernel = bilo.BiLOHMC(model, step_size=0.1, trajectory_length=0.3)
        >>> mcmc = MCMC(kernel, num_warmup=10, num_samples=20, progress_bar=False)
        >>> mcmc.run(key, exact, x, y, extra_fields=("inner_steps", "inner_converged"))
        >>> mcmc.get_samples()["r"].shape
        (20,)
        >>> bool(mcmc.get_extra_fields()["inner_converged"].all())
        True
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
        learn_in_warmup: bool = False,
    ):
        settings = Settings(
            adaptation=Adaptation(
                adapt_step_size=adapt_step_size,
                adapt_mass_matrix=adapt_mass_matrix,
                dense_mass=dense_mass,
                target_accept_prob=target_accept_prob,
                find_heuristic_step_size=find_heuristic_step_size,
                regularize_mass_matrix=regularize_mass_matrix,
            ),
            kinetic_fn=kinetic_fn or kinetic_energy,
            step_size=step_size,
            inverse_mass_matrix=inverse_mass_matrix,
            trajectory_length=trajectory_length,
            forward_mode_differentiation=forward_mode_differentiation,
        )
        if num_steps is None and trajectory_length is None:
            raise ValueError("BiLOHMC: give num_steps or trajectory_length.")
        if adapt_step_size and num_steps is not None and trajectory_length is not None:
            warnings.warn(
                "BiLOHMC: with num_steps and trajectory_length the step size does not adapt; give "
                "trajectory_length=None.",
                stacklevel=2,
            )
        super().__init__(
            model,
            potential_fn,
            FixedLength(num_steps, learn_in_warmup),
            settings,
            init_strategy=init_strategy,
            accept_unconverged=accept_unconverged,
        )


class BiLONUTS(ChainKernel):
    """The no-U-turn sampler that carries a solver state on each edge of its tree.

    Arguments are those of `numpyro.infer.NUTS`, and ``accept_unconverged``; ``max_tree_depth`` may
    be a pair, for warm-up and sampling. The differences to NumPyro are those of `BiLOHMC`.

    Examples:
        >>> kernel = bilo.BiLONUTS(model, init_strategy=bilo.init_near(start), max_tree_depth=3)
        >>> mcmc = MCMC(kernel, num_warmup=10, num_samples=20, progress_bar=False)
        >>> mcmc.run(key, exact, x, y, extra_fields=("inner_steps",))
        >>> mcmc.get_samples()["r"].shape, int(mcmc.get_extra_fields()["inner_steps"].sum())
        ((20,), 0)
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
        settings = Settings(
            adaptation=Adaptation(
                adapt_step_size=adapt_step_size,
                adapt_mass_matrix=adapt_mass_matrix,
                dense_mass=dense_mass,
                target_accept_prob=target_accept_prob,
                find_heuristic_step_size=find_heuristic_step_size,
                regularize_mass_matrix=regularize_mass_matrix,
            ),
            kinetic_fn=kinetic_fn or kinetic_energy,
            step_size=step_size,
            inverse_mass_matrix=inverse_mass_matrix,
            trajectory_length=trajectory_length,
            forward_mode_differentiation=forward_mode_differentiation,
        )
        depths = max_tree_depth if isinstance(max_tree_depth, tuple) else (max_tree_depth,) * 2
        super().__init__(
            model,
            potential_fn,
            NoUTurn(*depths),
            settings,
            init_strategy=init_strategy,
            accept_unconverged=accept_unconverged,
        )

"""Adaptation of the operator to the posterior, in warm-up, like the step size and the mass matrix.

A short chain that carries the inner solver's state finds out where the posterior is. The operator is
then consolidated: fitted to the lower-level rows of many thetas of that region at once, until a fresh
theta needs no inner step. From then on `solution` is a pure and cheap function of theta.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro import handlers
from numpyro.infer import init_to_value
from numpyro.infer.util import constrain_fn

from bilo_ppl._types import Key, Theta
from bilo_ppl.effects import find_solutions, replace_operator, without_solving
from bilo_ppl.mcmc import BiLONUTS
from bilo_ppl.pretrain import FitReport, fit
from bilo_ppl.sensitivity import ImplicitDifferentiation
from bilo_ppl.solution_operators import FineTuned
from bilo_ppl.solvers import LevenbergMarquardt, solve

__all__ = ["AdaptReport", "Adapted", "adapt"]


class AdaptReport(NamedTuple):
    """How an adaptation went."""

    fraction_ready: float
    """Fraction of fresh thetas of the region whose loss is below the tolerance without a step."""
    worst_loss: float
    """Largest loss of a fresh theta before any inner step."""
    rounds: int
    """Consolidations."""
    thetas: int
    """Thetas that the operator was fitted to."""
    fits: list[FitReport]
    tolerance: float
    ready: bool
    """Whether the wanted fraction was reached."""
    cpu_seconds: float

    def __str__(self) -> str:
        reached = "" if self.ready else "; the budget ended before the wanted fraction was reached"
        return (
            f"{100 * self.fraction_ready:.1f} % of fresh thetas need no inner step (worst loss "
            f"{self.worst_loss:.1e}, tolerance {self.tolerance:.0e}) after {self.rounds} "
            f"consolidations over {self.thetas} thetas, {self.cpu_seconds:.1f} CPU s{reached}"
        )


class Adapted(NamedTuple):
    """The adapted operator, the report, and a mass matrix for the sampler that comes next."""

    operator: FineTuned
    report: AdaptReport
    inverse_mass_matrix: Float[np.ndarray, " dim"] | None
    """Variances of the unconstrained sites, in the order of their names; None without a chain.

    With it a kernel starts in the right units: far from the posterior every solve is dear.
    """


class _Region(NamedTuple):
    """Unconstrained positions that a chain has visited, ``(draws, dimension)``, and its state."""

    positions: Float[np.ndarray, "draws dim"]
    chain: Any


def adapt(
    model: Callable,
    key: Key,
    *model_args: Any,
    site: str | None = None,
    thetas: Theta | None = None,
    rank: int = 8,
    ready: float = 0.95,
    max_rounds: int = 4,
    draws: int = 200,
    spread: float = 2.0,
    count: int | None = None,
    fit_steps: int = 80,
    progress: bool = True,
    **model_kwargs: Any,
) -> Adapted:
    """Adapt the operator of a model's solution site to the posterior of the model's data.

    ``model(*model_args, **model_kwargs)`` is an ordinary NumPyro model with one solution site (or
    name it by ``site``) whose operator is a `FineTuned`. A chain of ``draws`` transitions explores;
    its region is widened by the factor ``spread`` about its mean; ``count`` thetas spread over it
    (default 6 + 4 for every parameter, at most 48) are consolidated through increments of ``rank``
    (0: all weights) by at most ``fit_steps`` Levenberg-Marquardt steps; then the chain goes on with
    the new operator, and the loss of the thetas it visits is checked. This is repeated until a
    fraction ``ready`` of fresh thetas is below the tolerance, at most ``max_rounds`` times.

    With ``thetas`` (a mapping of batches, for example prior draws) no chain is run: the operator is
    fitted to a spread-out subset of them and checked on all of them.

    The increments are merged, so the result has the rank that the operator had before, starting from
    zero. Use it by `replace_operator`, or as the model's argument; `save_operator` keeps it.
    """
    start = time.process_time()
    name, operator = _the_operator(model, key, model_args, model_kwargs, site)
    key_chain, key_lora = jax.random.split(key)
    explore = _Explorer(model, model_args, model_kwargs, name, operator, draws, key_chain)
    given = None if thetas is None else _batch_of(operator, thetas)
    fits: list[FitReport] = []
    chosen = None
    region = None
    fraction, worst = 0.0, np.inf
    for round_number in range(max_rounds + 1):
        if given is None:
            region = explore(operator, region)
            candidates = explore.thetas(_widened(region.positions, spread))
            fresh = explore.thetas(_widened(region.positions, 1.0))
        else:
            candidates = fresh = given
        losses = _losses(operator, fresh)
        fraction, worst = float(np.mean(losses <= operator.solver.tolerance)), float(losses.max())
        if round_number == max_rounds or (
            fraction >= ready and (round_number or given is not None)
        ):
            break
        wanted = count or min(6 + 4 * _dimension(candidates), 48)
        solvable = _solvable(operator, candidates, wanted)
        chosen = solvable if chosen is None else _joined(chosen, solvable)
        operator, report = _consolidate(
            operator, chosen, rank, fit_steps, jax.random.fold_in(key_lora, round_number), progress
        )
        fits.append(report)
    report = AdaptReport(
        fraction_ready=fraction,
        worst_loss=worst,
        rounds=len(fits),
        thetas=0 if chosen is None else _length(chosen),
        fits=fits,
        tolerance=operator.solver.tolerance,
        ready=fraction >= ready,
        cpu_seconds=time.process_time() - start,
    )
    variances = None if region is None else region.positions.var(axis=0)
    return Adapted(operator, report, variances)


def _the_operator(model, key, args, kwargs, site) -> tuple[str, FineTuned]:
    """The solution site to adapt, and its operator; nothing is solved."""
    found = find_solutions(handlers.seed(model, key))
    found(*args, **kwargs)
    names = list(found.sites)
    if site is None and len(names) != 1:
        raise ValueError(f"adapt: the model has the solution sites {names}; name one by site=.")
    if site is not None and site not in names:
        raise ValueError(f"adapt: the model has no solution site {site!r}, only {names}.")
    name = site or names[0]
    operator = found.sites[name][0]
    if not isinstance(operator, FineTuned):
        raise ValueError(
            f"adapt: the operator of site {name!r} is a {type(operator).__name__}; only a FineTuned "
            "operator has weights to adapt."
        )
    return name, operator


class _Explorer:
    """A chain over the posterior with the operator as an argument: compiled once for all rounds."""

    def __init__(self, model, args, kwargs, name, operator, draws, key):
        self.args, self.kwargs, self.name, self.draws, self.key = args, kwargs, name, draws, key
        self.model = model
        self.kernel = BiLONUTS(
            self._model_of_arrays,
            max_tree_depth=4,
            step_size=0.1,
            init_strategy=init_to_value(values=_first_guess(operator)),
        )
        self.run = jax.jit(self._run)

    def _model_of_arrays(self, arrays):
        operator = eqx.combine(arrays, self.static)
        with replace_operator(operators={self.name: operator}):
            return self.model(*self.args, **self.kwargs)

    def _run(self, state, arrays):
        def step(state, _):
            state = self.kernel.sample(state, (arrays,), {})
            return state, state.z

        return jax.lax.scan(step, state, None, self.draws)

    def __call__(self, operator: FineTuned, region: _Region | None) -> _Region:
        """Positions visited in the second half of ``draws`` transitions."""
        arrays, self.static = eqx.partition(_exploring(operator), eqx.is_array)
        if region is None:
            state = self.kernel.init(self.key, self.draws // 2, model_args=(arrays,))
        else:
            state = region.chain._replace(solver_state={self.name: operator.init_state()})
        state, visited = self.run(state, arrays)
        self._, self.unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], visited))
        flat = jax.vmap(lambda z: ravel_pytree(z)[0])(visited)
        return _Region(np.asarray(flat)[self.draws // 2 :], state)

    def thetas(self, positions: Float[np.ndarray, "n dim"]) -> Theta:
        """What the solution site is asked to solve at unconstrained positions; nothing is solved."""

        def theta_at(position):
            with without_solving():
                values = constrain_fn(self.model, self.args, self.kwargs, self.unravel(position))
            found = find_solutions(handlers.substitute(self.model, data=values))
            found(*self.args, **self.kwargs)
            return dict(found.sites[self.name][1])

        return jax.jit(jax.vmap(theta_at))(jnp.asarray(positions))


def _first_guess(operator: FineTuned) -> dict[str, Any]:
    """The theta of pretraining, in the precision of the sampler."""
    centre = operator.operator.embedding.centre
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in centre.items()}


def _exploring(operator: FineTuned) -> FineTuned:
    """The operator as it finds the region: residual rows only, a looser tolerance, few steps."""
    limit = operator.solver.tolerance
    tolerance = max(limit, min(100 * limit, 1e-3))
    solver = LevenbergMarquardt(tolerance=tolerance, max_steps=8)
    return FineTuned(operator.operator, solver, ImplicitDifferentiation(), operator.row_weights)


def _widened(positions: np.ndarray, factor: float) -> np.ndarray:
    """Positions stretched about their mean."""
    mean = positions.mean(axis=0)
    return mean + factor * (positions - mean)


def _batch_of(operator: FineTuned, thetas: Theta) -> Theta:
    lengths = {name: np.shape(value)[:1] for name, value in thetas.items()}
    missing = [name for name in operator.problem.parameters if name not in thetas]
    if missing or len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            f"adapt: thetas needs a batch of equal length for each of {operator.problem.parameters}; "
            f"got {lengths}."
        )
    return {name: jnp.asarray(value) for name, value in thetas.items()}


def _length(thetas: Theta) -> int:
    return jax.tree.leaves(thetas)[0].shape[0]


def _dimension(thetas: Theta) -> int:
    return ravel_pytree(jax.tree.map(lambda leaf: leaf[0], thetas))[0].size


def _rows_of(thetas: Theta, index: Any) -> Theta:
    return jax.tree.map(lambda leaf: leaf[index], thetas)


def _joined(first: Theta, second: Theta) -> Theta:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def _losses(operator: FineTuned, thetas: Theta) -> Float[np.ndarray, " n"]:
    """Lower-level loss of the stored weights at each theta."""
    weights, lower_level = operator.init_state(), operator.lower_level
    return np.asarray(jax.jit(jax.vmap(lambda t: lower_level.at(t).loss(weights)))(thetas))


def _solvable(operator: FineTuned, candidates: Theta, count: int) -> Theta:
    """``count`` spread-out candidates, less those at which the PDE could not be solved."""
    chosen = _rows_of(candidates, farthest_points(_as_matrix(candidates), count))
    operator = _exploring(operator)
    solver, lower_level, weights = operator.solver, operator.lower_level, operator.init_state()
    solved = jax.jit(jax.vmap(lambda t: solve(solver, lower_level.at(t), weights).converged))
    kept = np.flatnonzero(np.asarray(solved(chosen)))
    if not len(kept):
        raise ValueError(
            f"adapt: the inner solver reached a loss of {solver.tolerance:.0e} at none of {count} "
            "thetas of the region; allow more inner steps, a larger rank, or pretrain nearer to it."
        )
    return _rows_of(chosen, kept)


def _as_matrix(thetas: Theta) -> Float[np.ndarray, "n dim"]:
    """Thetas as rows, in units of their standard deviations."""
    rows = np.asarray(jax.vmap(lambda t: ravel_pytree(t)[0])(thetas), dtype=float)
    sd = rows.std(axis=0)
    return rows / np.where(sd > 0, sd, 1)


def farthest_points(rows: Float[np.ndarray, "n dim"], count: int) -> np.ndarray:
    """Indices of ``count`` rows, each the farthest from those before; the first is the most central."""
    chosen = [int(np.argmin(((rows - rows.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((rows - rows[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(rows)) and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen)


def _consolidate(
    operator: FineTuned, thetas: Theta, rank: int, steps: int, key: Key, progress: bool
) -> tuple[FineTuned, FitReport]:
    """Fit the operator to the rows of all thetas at once, then merge and start afresh."""
    local = operator.operator.with_lora(rank, key=key)
    wide = eqx.tree_at(lambda o: o.operator, operator, local)
    # Well below the tolerance: what is left of the loss is what the posterior is wrong by.
    solver = LevenbergMarquardt(tolerance=operator.solver.tolerance / 100, max_steps=steps)
    weights, report = fit(
        solver,
        lambda: wide.lower_level.at_many(thetas),
        local.weights,
        progress=progress,
        label=f"consolidate {_length(thetas)} thetas",
    )
    fine_rank = operator.operator.rank
    merged = local.with_weights(weights).with_lora(fine_rank, key=jax.random.fold_in(key, 1))
    return eqx.tree_at(lambda o: o.operator, operator, merged), report

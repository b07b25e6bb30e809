"""A certificate: how far the sampled posterior can be from the one with an exact PDE solution.

For a subset of draws the potential energy is recomputed with a solution that is much nearer to exact:
corrected to a loss a hundred times smaller at more points, or by a numerical operator. The differences of
the energies give importance weights, and their statistics say what the better solution would have
changed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import ModelLook
from bilo_ppl.validation.certificate import PROBABILITIES, Certificate
from bilo_ppl.validation.energies import (
    Energies,
    by_site,
    corrected_operators,
    energies_at,
    flattened,
    look_at_draw,
)
from bilo_ppl.validation.importance import importance_weights, weighted_quantiles

__all__ = ["Certificate", "certify"]

SHORT_OF_ALL = 0.5
"""Part of the draws up to which those where the correction fell short are solved again."""


def certify(
    model: Callable,
    samples: Mapping[str, Any],
    *model_args: Any,
    reference: AbstractSolutionOperator | Mapping[str, AbstractSolutionOperator] | None = None,
    energies: Any = None,
    subset: int = 200,
    draws: str = "some",
    factor: float = 100.0,
    max_steps: int = 60,
    seed: int = 0,
    **model_kwargs: Any,
) -> Certificate:
    """Compare draws with a much better solution of the PDE.

    ``samples`` are constrained values by site, ``(chains, draws, ...)``; ``subset`` of them are
    recomputed. Without ``reference`` every `FineTuned` operator of the model is corrected on the
    residual rows (in double precision where JAX has it enabled) at two to five times as many collocation
    points, most of which no fit has seen: by chord steps of all weights (of increments of rank 8,
    where these are too many), until nothing is gained any more, which should be ``factor`` times below
    the tolerance. Draws that are far from what the operator was fitted to, where such steps lead nowhere,
    are solved by Levenberg-Marquardt of at most ``max_steps`` steps. With ``reference`` (one operator for
    all solution sites, or one a site) that operator is taken as exact.

    With ``draws="all"`` none is left out, whatever ``subset`` is: the certificate then has the
    Pareto-smoothed ``weights`` of all draws, whose means, standard deviations and quantiles are those
    of the better solution as long as ``pareto_k`` is below 0.7 (`Certificate.can_reweight`).

    ``energies``, ``(chains, draws)``, are the potential energies that the sampler had at the draws:
    NumPyro's field ``potential_energy``. A chain that carries the weights along needs them, since
    its energies depend on its path; without them the model as given is solved again at the draws.

    Raises a ``ValueError`` if the model has no solution site or one that cannot be solved more
    tightly, if ``energies`` do not fit the draws, or if no draw has a finite energy both ways.

    Examples:
        >>> numerical = bilo.FiniteDifferences(problem, nodes=51, theta=start)
        >>> certificate = bilo.certify(model, draws, numerical, x, y, reference=exact, subset=40)
        >>> certificate.trustworthy, certificate.energy_error_sd < 0.05
        (True, True)
    """
    flat = flattened("certify", samples)
    if subset < 1:
        raise ValueError(f"certify: subset is {subset}; at least one draw must be recomputed.")
    if draws not in ("some", "all"):
        raise ValueError(
            f"certify: draws is {draws!r}; it must be 'some' (``subset`` of them) or 'all'."
        )
    total = len(next(iter(flat.values())))
    picked = (
        np.arange(total)
        if draws == "all"
        else np.random.default_rng(seed).permutation(total)[: min(subset, total)]
    )
    look = look_at_draw("certify", model, _central(flat), model_args, model_kwargs)
    latent, operators = list(look.latent), look.operators
    chosen = {name: jnp.asarray(flat[name][picked]) for name in latent}
    energies_by = partial(energies_at, model, model_args, model_kwargs)
    if energies is None:
        sampled = energies_by(chosen, {}, accept=False).energy
    else:
        sampled = _picked_energies(energies, samples, picked)
    if reference is None:
        tight = {n: _tightened(n, op, factor, max_steps) for n, op in operators.items()}
        better = _better(partial(energies_by, accept=True), chosen, look, tight, factor)
        against = f"solving to a loss of {np.median(better.loss):.0e}"
    else:
        given = by_site(reference, operators)
        against, better = "the numerical operator", energies_by(chosen, given, accept=False)
    found = _certificate(flat, picked, sampled, better, against)
    if draws == "some":
        return dataclasses.replace(found, weights=None)
    shape = np.shape(next(iter(samples.values())))[:2]
    return dataclasses.replace(found, weights=found.weights.reshape(shape))


def _better(
    energies_by: Callable, draws: Any, look: ModelLook, tight: Mapping[str, Any], factor: float
) -> Energies:
    """The energies of corrected solutions; of tighter ones at draws where the correction fell short.

    Where it fell short at most draws, only those are solved again that it left above the sampler's
    tolerance: it is as good as it gets at the others.
    """
    near = corrected_operators(look, look.operators, factor)
    if len(near) < len(look.operators):
        return energies_by(draws, tight)
    found = energies_by(draws, near)
    sampled = max(operator.loss_tolerance or 0.0 for operator in look.operators.values())
    if not np.median(found.loss) <= sampled:
        return energies_by(draws, tight)
    short = np.flatnonzero(~found.converged)
    if len(short) > SHORT_OF_ALL * len(found.loss):
        short = np.flatnonzero(~(found.loss <= sampled))
    if not len(short):
        return found
    again = energies_by({name: values[short] for name, values in draws.items()}, tight)
    return Energies(*(_with(old, short, new) for old, new in zip(found, again, strict=True)))


def _with(values: np.ndarray, index: np.ndarray, new: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[index] = new
    return changed


def _central(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The draw that is nearest to the mean, in units of the standard deviations."""
    away = np.zeros(len(next(iter(flat.values()))))
    for _, column in _scalars(flat):
        away += (column - column.mean()) ** 2 / max(column.var(), np.finfo(float).tiny)
    return {name: np.asarray(values[np.argmin(away)]) for name, values in flat.items()}


def _tightened(
    name: str, operator: AbstractSolutionOperator, factor: float, max_steps: int
) -> AbstractSolutionOperator:
    """The operator with a tighter tolerance."""
    try:
        return operator.tightened(factor, max_steps)
    except NotImplementedError as error:
        raise ValueError(f"certify: site {name!r}: {error} Give reference=.") from error


def _picked_energies(energies: Any, samples: Mapping[str, Any], picked: np.ndarray) -> np.ndarray:
    shape = np.shape(next(iter(samples.values())))[:2]
    if np.shape(energies) != shape:
        raise ValueError(
            f"certify: energies have shape {np.shape(energies)}, the draws {shape}; give the field "
            "potential_energy, grouped by chain."
        )
    return np.asarray(energies, dtype=float).ravel()[picked]


def _certificate(
    flat: Mapping[str, np.ndarray],
    picked: np.ndarray,
    sampled: Float[np.ndarray, " n"],
    better: Energies,
    against: str,
) -> Certificate:
    """What the weights exp(U - U_better) of the picked draws say."""
    log_ratio = np.asarray(sampled - better.energy, dtype=float)
    finite = np.isfinite(log_ratio)
    if not finite.any():
        raise ValueError(
            f"certify: no draw has a finite energy both as sampled and by {against}; were the "
            "samples drawn from this model and data?"
        )
    found = importance_weights(log_ratio)
    means, sds, quantiles = {}, {}, {}
    for label, values in _scalars(flat):
        chosen = values[picked]
        mean = float(found.weights @ chosen)
        means[label] = (float(chosen.mean()), mean)
        sds[label] = (float(chosen.std()), float(np.sqrt(found.weights @ (chosen - mean) ** 2)))
        even = np.full(len(chosen), 1 / len(chosen))
        quantiles[label] = (
            weighted_quantiles(chosen, even, PROBABILITIES),
            weighted_quantiles(chosen, found.weights, PROBABILITIES),
        )
    return Certificate(
        against=against,
        draws=len(picked),
        unsolved=int((~better.converged).sum()),
        left_out=int((~finite).sum()),
        achieved_loss=float(np.median(better.loss)),
        energy_error_sd=float(log_ratio[finite].std()),
        kl_divergence=found.kl_divergence,
        effective_fraction=found.effective_fraction,
        pareto_k=found.pareto_k,
        means=means,
        sds=sds,
        quantiles=quantiles,
        weights=found.weights,
    )


def _scalars(flat: Mapping[str, np.ndarray]):
    """Every scalar component of every site, with a label."""
    for name, values in flat.items():
        columns = values.reshape(len(values), -1)
        for j in range(columns.shape[1]):
            yield name if values.ndim == 1 else f"{name}[{j}]", columns[:, j]

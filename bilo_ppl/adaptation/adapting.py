"""Adaptation of the operator to the posterior, in warm-up, like the step size and the mass matrix.

A point estimate and a Gaussian about it say where the posterior should be; the operator is
consolidated there: fitted to the lower-level rows of many thetas at once, until a fresh theta needs no
inner step. Short chains from dispersed starts then confirm the region, or move it. From then on
`solution` is a pure and cheap function of theta.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from bilo_ppl._types import Key, Theta
from bilo_ppl.adaptation.batches import batch_of, count_of, home_like, joined, losses
from bilo_ppl.adaptation.given import FromBatch, prior_thetas
from bilo_ppl.adaptation.model_sites import ModelSites, find_sites
from bilo_ppl.adaptation.report import Adapted, AdaptReport
from bilo_ppl.adaptation.sources import FromPosterior
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.operators.base import AbstractSolutionOperator

__all__ = ["adapt"]

MUCH = 0.1
"""Part of the tolerance of a descent below which its mode is looked for again."""


LONGER = 2
"""Rounds, in units of ``max_rounds``, up to which chains that nearly agree go on."""


def adapt(
    model: Callable,
    key: Key,
    *model_args: Any,
    site: str | None = None,
    thetas: Theta | Literal["prior"] | None = None,
    rank: int = 8,
    ready: float = 0.95,
    max_rounds: int = 4,
    max_cpu_seconds: float = math.inf,
    draws: int = 80,
    spread: float = 2.0,
    count: int | None = None,
    fit_steps: int = 80,
    tolerance_at: Callable[[Any, Mapping[str, Any]], float] | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
    **model_kwargs: Any,
) -> Adapted:
    """Adapt the operators of a model's solution sites to the posterior of the model's data.

    ``model(*model_args, **model_kwargs)`` is an ordinary NumPyro model whose operators can be fitted
    to thetas, as a `FineTuned` can. Any number of solution sites, of one operator or of several, are
    adapted together; ``site`` names one that is adapted alone.

    **Where the thetas come from**

    - by default from the posterior. `find_map` descends to its mode, in unconstrained space, from the
      theta of pretraining; where the operator cannot follow, it is settled at the best point so far.
      Descents from the prior draws of least U look for other modes: a better one is moved to, another
      one reported.
      Draws of the Gaussian about the mode, widened by ``spread``, are fitted. Then eight chains of
      ``draws`` transitions from dispersed starts explore it. Half of them give thetas to check, and,
      where another round is needed, the others thetas to fit, widened about their mean;
    - ``thetas="prior"``: ``draws`` draws from the prior;
    - ``thetas`` a mapping of batches (a leading axis on every array).

    In the last two cases no chain is run: the operator is fitted to a spread-out part of them, less
    those at which the PDE could not be solved, and checked on the rest.

    **A round** consolidates the operator over ``count`` more thetas (for d unknowns by default six
    times the larger of 6 + 4 d and 2 d (d + 1), at most 400) through increments of ``rank`` (0: all
    weights) and the modulations by at most ``fit_steps`` Levenberg-Marquardt steps, then checks fresh
    thetas. After a fit that has missed the tolerance the next one is of all weights. Rounds end when a
    fraction ``ready`` of these is below the tolerance, and the chains agree (split R-hat); where only
    they do not, a round makes them longer. Or they end with the budget: ``max_rounds``, twice as many
    where the chains nearly agree, or ``max_cpu_seconds``, looked at between rounds.

    ``tolerance_at(operator, values)`` may give each operator, settled at the mode where the latent sites
    have these values, the tolerance that the posterior asks for; by default, and where thetas are given,
    it keeps its own. One that is far tighter makes the descent go on from there.

    ``mesh`` (`device_mesh`) spreads the rows of the fits over its devices; all else runs on one.

    The increments are merged, so the result has the rank that the operator had before, starting from
    zero. Use it by `replace_operator`, or as the model's argument, also with other data of the same
    problem; `save_operator` keeps its ``operator``. Raises a ``ValueError`` for arguments out of
    their ranges, a model without solution site, an operator that cannot be fitted, and where the PDE can
    be solved at none of the thetas.

    Examples:
        >>> thetas = {"r": jnp.linspace(7.0, 11.0, 12)}
        >>> adapted = bilo.adapt(model, key, tuned, x, y, thetas=thetas, rank=2, progress=False)
        >>> operator, report, variances = adapted
        >>> float(report.fraction_ready), report.ready
        (1.0, True)
        >>> variances is None  # no chain has been run
        True
    """
    start = time.process_time()
    _check(ready, max_rounds, draws, spread, fit_steps)
    if isinstance(thetas, str) and thetas != "prior":
        raise ValueError(f'adapt: thetas is {thetas!r}; give "prior" or a mapping of batches.')
    sites, operators = find_sites(model, key, model_args, model_kwargs, site)
    key_source, key_lora = jax.random.split(key)
    source: Any
    if thetas is None:
        source = FromPosterior(sites, draws, spread, key_source, progress)
    else:
        source = FromBatch(_given(sites, operators, thetas, key_source, draws))
    operators = source.begin(operators)
    if tolerance_at is not None and thetas is None:
        before = [operator.loss_tolerance or 0.0 for operator in operators]
        operators = [op.to_tolerance(tolerance_at(op, source.mode)) for op in operators]
        now = [operator.loss_tolerance or 0.0 for operator in operators]
        pairs = zip(operators, now, before, strict=True)
        if any(op.heeds_tolerance and new < MUCH * old for op, new, old in pairs):
            # The mode was one of solutions that were far too wrong.
            operators = source.search_on(operators)
            anew = [tolerance_at(operator, source.mode) for operator in operators]
            pairs = zip(operators, now, anew, strict=True)
            operators = [op.to_tolerance(min(old, new)) for op, old, new in pairs]
    chosen: list[Any] = [None] * len(operators)
    fits: list[FitReport] = []
    found = [np.array([np.inf])]
    fraction, rounds = 0.0, 0
    while not (fraction >= ready and source.settled):
        # Chains that nearly agree go on for longer: nothing is fitted for them.
        longer = fraction >= ready and source.nearly_settled
        if rounds >= max_rounds * (LONGER if longer else 1):
            break
        if fits and time.process_time() - start > max_cpu_seconds:
            break
        rounds += 1
        # Where only the chains do not agree yet, they go on with the operators as they are.
        fitting = [] if fraction >= ready else source.to_fit(operators, count)
        for group, more in enumerate(fitting):
            known = chosen[group]
            known = home_like(more, operators[group]) if known is None else known
            chosen[group] = joined(known, more)
            missed = len(fits) >= len(operators) and not fits[-len(operators)].loss <= (
                operators[group].loss_tolerance or 0.0
            )
            operators[group], fit = operators[group].fitted_to(
                chosen[group],
                # What increments could not be fitted to, all weights may.
                rank=0 if missed else rank,
                steps=fit_steps,
                key=jax.random.fold_in(key_lora, len(fits)),
                progress=progress,
                mesh=mesh,
            )
            fits.append(fit)
        found = _losses(operators, source.to_check(operators))
        fraction = _fraction_ready(operators, found)
    return Adapted(
        operators=sites.by_name(operators),
        report=AdaptReport(
            fraction_ready=fraction,
            worst_loss=float(max(losses.max() for losses in found)),
            rounds=len(fits) // len(operators),
            thetas=sum(count_of(part) for part in chosen),
            fresh=sum(len(losses) for losses in found),
            fits=fits,
            tolerance=max(operator.loss_tolerance or 0.0 for operator in operators),
            ready=fraction >= ready and source.settled and source.elsewhere is None,
            notes=source.notes,
            cpu_seconds=time.process_time() - start,
            other_mode=None if source.elsewhere is None else str(source.elsewhere),
        ),
        inverse_mass_matrix=source.variances,
        positions=source.positions,
        unravel=sites.unravel,
        about_mode=source.about_mode,
    )


def _given(
    sites: ModelSites,
    operators: Sequence[AbstractSolutionOperator],
    thetas: Any,
    key: Key,
    draws: int,
) -> list[Theta]:
    """A batch of thetas for each operator."""
    if isinstance(thetas, str):
        return [prior_thetas(sites, group, key, draws) for group in range(len(operators))]
    if len(operators) > 1:
        raise ValueError(
            f"adapt: the model has {len(operators)} operators; name the solution site by site= for "
            "which thetas are given."
        )
    return [batch_of(operators[0].problem.parameters, thetas)]


def _losses(
    operators: Sequence[AbstractSolutionOperator], thetas: Sequence[Theta]
) -> list[np.ndarray]:
    return [losses(operator, part) for operator, part in zip(operators, thetas, strict=True)]


def _fraction_ready(
    operators: Sequence[AbstractSolutionOperator], found: Sequence[np.ndarray]
) -> float:
    """Part of the fresh thetas that need no inner step, of the worst operator."""
    parts = zip(operators, found, strict=True)
    return min(float(np.mean(loss <= (operator.loss_tolerance or 0.0))) for operator, loss in parts)


def _check(ready, max_rounds, draws, spread, fit_steps) -> None:
    wrong = {
        "ready": not 0 < ready <= 1 and ready,
        "max_rounds": max_rounds < 1 and max_rounds,
        "draws": draws < 20 and draws,
        "spread": not spread >= 1 and spread,
        "fit_steps": fit_steps < 1 and fit_steps,
    }
    for name, value in wrong.items():
        if value is not False:
            raise ValueError(
                f"adapt: {name}={value}; needed are 0 < ready <= 1, max_rounds >= 1, draws >= 20, "
                "spread >= 1 and fit_steps >= 1."
            )

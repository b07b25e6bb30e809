"""Adaptation of the operator to the posterior, in warm-up, like the step size and the mass matrix.

A short chain that carries the inner solver's state finds out where the posterior is. The operator is
then consolidated: fitted to the lower-level rows of many thetas of that region at once, until a fresh
theta needs no inner step. From then on `solution` is a pure and cheap function of theta.
"""

import math
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl._types import Key, Theta
from bilo_ppl.adaptation.batches import batch_of, count_of, joined, losses, rows_of
from bilo_ppl.adaptation.exploration import Explorer, Site, prior_thetas
from bilo_ppl.adaptation.sources import FromBatch, FromChain
from bilo_ppl.inner.pretraining import FitReport
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import look_at

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
    fresh: int
    """Thetas that it was checked on."""
    fits: list[FitReport]
    tolerance: float
    ready: bool
    """Whether the wanted fraction was reached."""
    cpu_seconds: float

    def __str__(self) -> str:
        reached = "" if self.ready else "; the budget ended before the wanted fraction was reached"
        return (
            f"{100 * self.fraction_ready:.1f} % of {self.fresh} fresh thetas need no inner step "
            f"(worst loss {self.worst_loss:.1e}, tolerance {self.tolerance:.0e}) after {self.rounds} "
            f"consolidations over {self.thetas} thetas, {self.cpu_seconds:.1f} CPU s{reached}"
        )


class Adapted(NamedTuple):
    """The adapted operator, the report, and a mass matrix for the sampler that comes next."""

    operator: AbstractSolutionOperator
    report: AdaptReport
    inverse_mass_matrix: Float[np.ndarray, " dim"] | None
    """Variances of the unconstrained sites, in the order of their names; None without a chain.

    With it a kernel starts in the right units: far from the posterior every solve is dear.
    """


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
    draws: int = 200,
    spread: float = 2.0,
    count: int | None = None,
    fit_steps: int = 80,
    progress: bool = True,
    **model_kwargs: Any,
) -> Adapted:
    """Adapt the operator of a model's solution site to the posterior of the model's data.

    ``model(*model_args, **model_kwargs)`` is an ordinary NumPyro model with one solution site (or
    name it by ``site``) whose operator can be fitted to thetas, as a `FineTuned` can.

    **Where the thetas come from**

    - by default a chain of ``draws`` transitions explores the posterior at temperature
      ``spread ** 2``, which widens a Gaussian one by the factor ``spread``; the check is made on the
      thetas that it then visits at temperature 1;
    - ``thetas="prior"``: ``draws`` draws from the prior;
    - ``thetas`` a mapping of batches (a leading axis on every array).

    In the last two cases no chain is run: the operator is fitted to a spread-out part of them, less
    those at which the PDE could not be solved, and checked on the rest.

    **A round** consolidates the operator over ``count`` more thetas (default 6 + 4 for every
    parameter, at most 48) through increments of ``rank`` (0: all weights) by at most ``fit_steps``
    Levenberg-Marquardt steps, then checks fresh thetas. Rounds end when a fraction ``ready`` of
    these is below the tolerance, or with the budget: ``max_rounds``, or ``max_cpu_seconds``, looked
    at between rounds.

    The increments are merged, so the result has the rank that the operator had before, starting from
    zero. Use it by `replace_operator`, or as the model's argument, also with other data of the same
    problem; `save_operator` keeps it.
    """
    start = time.process_time()
    _check(ready, max_rounds, draws, spread, fit_steps)
    place, operator = _the_operator(model, key, model_args, model_kwargs, site)
    key_source, key_lora = jax.random.split(key)
    source: Any
    if thetas is None:
        source = FromChain(Explorer(place, operator, draws, key_source), spread)
    else:
        given = prior_thetas(place, key_source, draws) if thetas == "prior" else thetas
        source = FromBatch(batch_of(operator.problem.parameters, given))
    tolerance = operator.loss_tolerance or 0.0
    fits: list[FitReport] = []
    chosen: Any = None
    found = np.array([np.inf])
    fraction = 0.0
    while fraction < ready and len(fits) < max_rounds:
        if fits and time.process_time() - start > max_cpu_seconds:
            break
        more = source.to_fit(operator, count)
        chosen = joined(_home(operator, more) if chosen is None else chosen, more)
        operator, fit = operator.fitted_to(
            chosen,
            rank=rank,
            steps=fit_steps,
            key=jax.random.fold_in(key_lora, len(fits)),
            progress=progress,
        )
        fits.append(fit)
        found = losses(operator, source.to_check(operator))
        fraction = float(np.mean(found <= tolerance))
    report = AdaptReport(
        fraction_ready=fraction,
        worst_loss=float(found.max()),
        rounds=len(fits),
        thetas=count_of(chosen),
        fresh=len(found),
        fits=fits,
        tolerance=tolerance,
        ready=fraction >= ready,
        cpu_seconds=time.process_time() - start,
    )
    return Adapted(operator, report, source.variances)


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


def _the_operator(model, key, args, kwargs, site) -> tuple[Site, AbstractSolutionOperator]:
    """The solution site to adapt, and its operator; nothing is solved."""
    operators = look_at(model, args, kwargs, key=key).operators
    names = list(operators)
    if site is None and len(names) != 1:
        raise ValueError(f"adapt: the model has the solution sites {names}; name one by site=.")
    if site is not None and site not in names:
        raise ValueError(f"adapt: the model has no solution site {site!r}, only {names}.")
    name = site or names[0]
    operator = operators[name]
    if not operator.can_be_fitted:
        raise ValueError(
            f"adapt: the operator of site {name!r} is a {type(operator).__name__}, which has no "
            "weights to adapt, as a FineTuned operator has."
        )
    return Site(model, args, kwargs, name), operator


def _home(operator: AbstractSolutionOperator, thetas: Theta) -> Theta:
    """The theta of pretraining as a batch, like ``thetas``; nothing if it is not known.

    Fitted with the rest, it stays a theta at which a sampler can start. Of a field the operator knows
    no more than a typical value.
    """
    home = operator.home
    if not all(name in home and hasattr(v, "shape") for name, v in thetas.items()):
        return rows_of(thetas, slice(0))
    return {name: jnp.asarray(home[name], v.dtype)[None] for name, v in thetas.items()}

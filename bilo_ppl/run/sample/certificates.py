"""Certificates of a run: how far its posterior can be from that of better solutions of the PDE.

A numerical operator has an error of its own. Where it disagrees with the draws, and can be refined, it is
asked again on a grid twice as fine: an alarm that its own error has raised goes away, or becomes smaller.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

from bilo_ppl.inner.arithmetic import CORRECTED
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.run.record import warn
from bilo_ppl.run.sample.kept_results import CERTIFICATE
from bilo_ppl.run.sample.results import Results
from bilo_ppl.validation.certificate import Certificate
from bilo_ppl.validation.certifying import certify

__all__ = ["add_certificates"]

TIGHTER_DRAWS, NUMERICAL_DRAWS = 64, 200
"""Draws that are solved again: by the network, on more points, a solve is dear."""

CERTIFIED_POINTS = 5
"""So many times as many as those of the operator."""

MANY_POINTS, FEWER_DRAWS = 500, 24
"""Collocation points beyond which fewer draws must do for the tighter certificate."""

REFINED = ("refined once", "refined twice")
"""As often as a numerical operator is refined at most, in words."""

NEARER = 0.8
"""The part to which that has to bring a disagreement to be done again: in first order, about one half."""


def add_certificates(results: Results) -> None:
    """Fill in ``results.certificates``, and their names in ``results.ways``, unless none are wanted."""
    settings, record = results.plan.settings, results.record
    if not (settings.certify and settings.fine_tuned):
        return
    makers: dict[str, Callable[[], Certificate]] = {}
    if results.second is None:
        makers["tighter"] = partial(_kept, results, None, "tighter")
    if results.plan.file.reference is not None:
        makers["numerical"] = partial(_numerically, results, results.plan.file.reference())
    results.ways = tuple(makers)
    title = "Certificates: a subset of the draws, solved again."
    if settings.reweight:
        title = "Certificates: a subset of the draws, and all of them numerically, solved again."
    passes = CORRECTED * CERTIFIED_POINTS * results.passes(_tighter_draws(results))
    with record.stage("certify", title, passes):
        for name, make in makers.items():
            try:
                results.certificates[name] = make()
            except ValueError as error:
                warn(f"no certificate ({name}): {error}")
                record[f"certificate_{name}"] = f"not available: {error}"
    record["certificates"] = {n: c.as_dict() for n, c in results.certificates.items()}


def _numerically(results: Results, numerical: AbstractSolutionOperator) -> Certificate:
    """By the numerical operator, refined until it can tell; of all draws, if so wanted."""
    found, finest = _kept(results, numerical, "numerical"), numerical
    for refined in REFINED:
        try:
            finer = finest.refined() if found.distorted else None
            if finer is None:
                break
            results.record.say(
                f"The numerical operator would move a mean by {found.largest_shift:.2f} posterior sd: "
                "it is asked again on a finer grid."
            )
            closer = _kept(results, finer, f"numerical, {refined}")
        except ValueError as error:
            results.record.say(f"There it has no answer: {error}")
            break
        if not closer.conclusive:
            break
        nearer = closer.energy_error_sd < NEARER * found.energy_error_sd
        found = dataclasses.replace(closer, against=f"{closer.against}, {refined},")
        results.finest = finest = finer
        if not nearer:
            break
    if not results.plan.settings.reweight:
        return found
    of_all = _kept(results, finest, "numerical, all", draws="all")
    return dataclasses.replace(of_all, against=found.against)


def _kept(
    results: Results,
    better: AbstractSolutionOperator | None,
    what: str,
    draws: str = "some",
) -> Certificate:
    """A certificate, or that of a process before: see `Results.kept`."""
    make = partial(_certificate, results, better, draws)
    return results.kept(f"certificate ({what})", CERTIFICATE, make)


def _certificate(
    results: Results, better: AbstractSolutionOperator | None, draws: str = "some"
) -> Certificate:
    """By corrected solutions of the same operator, or by a better one."""
    return certify(
        results.plan.file.model,
        results.samples,
        results.operator,
        *results.args,
        reference=better,
        energies=results.draws.statistics["potential_energy"],
        draws=draws,
        subset=_tighter_draws(results) if better is None else NUMERICAL_DRAWS,
        seed=results.plan.settings.seed,
        **results.kwargs,
    )


def _tighter_draws(results: Results) -> int:
    many = len(results.plan.file.problem.points) > MANY_POINTS
    return FEWER_DRAWS if many else TIGHTER_DRAWS

"""The stages that make the solution operator: pretraining and adaptation."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax

from bilo_ppl._blocks import Interrupts
from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.adaptation.adapting import adapt
from bilo_ppl.adaptation.report import AdaptReport
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.pretraining import pretrain
from bilo_ppl.inner.solvers import LevenbergMarquardt
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.operator_file import save_operator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.run.checks import Plan
from bilo_ppl.run.record import Record, warn
from bilo_ppl.run.settings import RunFailedError

__all__ = ["Prepared", "make_operator"]


class Prepared(NamedTuple):
    """What sampling starts from."""

    operator: AbstractSolutionOperator
    inverse_mass_matrix: Any
    """Variances of the unconstrained sites where adaptation has found them, else None."""
    starts: Callable[[int], Any]
    """From a number of chains to their unconstrained starts by site, where adaptation has ended."""


PRETRAIN_STEPS = 300
LEAST_READY = 0.5
"""Part of fresh thetas that must need no inner step: with less, sampling is slow and its law in doubt."""

HEADROOM = 0.5
"""Pretraining aims at this part of the tolerance, so that the start does not lie on its edge."""


def make_operator(plan: Plan, record: Record, interrupts: Interrupts) -> Prepared:
    """The numerical operator, or a fine-tuned one: loaded or pretrained, and adapted if asked for.

    Raises `RunFailedError` if the tolerance is out of reach at the first guess.
    """
    if plan.numerical is not None:
        record.say("\nThe PDE is solved numerically: nothing to pretrain, adapt or certify.")
        return Prepared(plan.numerical, None, _nowhere)
    if plan.loaded is not None:
        record.say(f"\nOperator loaded from {plan.settings.operator_file}.")
        fine = plan.fine_tuned(plan.loaded)
    else:
        fine = _pretrained(plan, record, interrupts)
    if plan.settings.adapts:
        return _adapted(plan, record, interrupts, fine)
    return Prepared(fine, None, _nowhere)


def _pretrained(plan: Plan, record: Record, interrupts: Interrupts) -> FineTuned:
    settings, start = plan.settings, plan.file.start
    solver = LevenbergMarquardt(tolerance=HEADROOM * settings.tol, max_steps=PRETRAIN_STEPS)
    with record.stage("pretrain", f"Pretraining the operator at {_text(start)}."):
        operator, report = pretrain(
            plan.file.problem,
            start,
            key=jax.random.key(settings.seed),
            solver=solver,
            sensitivity=plan.sensitivity(),
            progress=not settings.quiet,
            **plan.file.architecture,
        )
        _save(plan, record, operator, report, "operator.eqx")
    record["pretrain"] = _fit_entry(report)
    record.say(str(report))
    interrupts.raise_if_any()
    fine = plan.fine_tuned(operator)
    if not report.loss <= settings.tol:
        with record.stage("check operator"):
            _check_start(plan, record, fine)
    return fine


def _text(theta: Theta) -> str:
    return ", ".join(f"{name} = {value}" for name, value in theta.items())


def _save(plan: Plan, record: Record, operator: LocalOperator, report: Any, name: str) -> None:
    metadata = {"tolerance": plan.settings.tol, "report": str(report)}
    save_operator(record.path(name), operator, metadata)
    record.say(f"Saved {record.folder.path / name}.")


def _fit_entry(report: FitReport) -> dict:
    entry = report._asdict()
    return {name: entry[name] for name in ("loss", "terms", "steps", "converged", "tolerance")}


def _check_start(plan: Plan, record: Record, fine: FineTuned) -> None:
    """Solve at the first guess: what pretraining left over, the inner solver must be able to do."""
    solve = jit_once(lambda: fine.solve(plan.file.start, fine.init_state())[2])
    info = jax.device_get(solve())
    record["solve_at_start"] = info
    if not info.converged and not plan.settings.tolerates_unconverged:
        raise RunFailedError(
            f"The operator does not reach the tolerance {plan.settings.tol:g} at the first guess "
            f"{_text(plan.file.start)}: the loss is {float(info.loss):.2e} after {int(info.steps)} "
            "inner steps. Choose a larger --tol, a larger --rank (0: all weights) or more "
            "--max-inner-steps, or look whether the PDE has a solution there. A loss that stalls "
            "near 1e-9 is the limit of single precision."
        )
    if info.steps:
        record.say(
            f"Pretraining ended above the tolerance; the inner solver needs {int(info.steps)} "
            "steps at the first guess."
        )


def _adapted(plan: Plan, record: Record, interrupts: Interrupts, fine: FineTuned) -> Prepared:
    settings = plan.settings
    with record.stage("adapt", "Adapting the operator to the posterior region."):
        try:
            adapted = adapt(
                plan.file.model,
                jax.random.key(settings.seed + 2),
                fine,
                *plan.observations.model_args,
                progress=not settings.quiet,
            )
        except ValueError as error:
            raise RunFailedError(f"the operator cannot be adapted: {error}") from error
        fine, report = cast(FineTuned, adapted.operator), adapted.report
        _save(plan, record, fine.operator, report, "operator-adapted.eqx")
    record["adapt"] = {k: v for k, v in report._asdict().items() if k != "fits"}
    record.say(str(report))
    interrupts.raise_if_any()
    if report.fraction_ready < LEAST_READY:
        raise RunFailedError(f"the operator cannot be adapted: {_what_is_missing(report)}")
    if not report.ready:
        warn(_what_is_missing(report))
    return Prepared(fine, adapted.inverse_mass_matrix, adapted.starts)


def _what_is_missing(report: AdaptReport) -> str:
    """Why adaptation ended before the operator was ready, and what it means."""
    found = " ".join(report.notes)
    return (
        f"the operator is not fully adapted ({found}). Where the chains of the exploration do not agree, "
        "the posterior may have parts that no chain finds from where it starts: compare several seeds. "
        "Where thetas need inner steps, sampling is slower, and rejected where these do not suffice."
    )


def _nowhere(chains: int) -> None:
    """No starts are known: the kernel finds its own."""

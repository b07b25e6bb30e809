"""The stage that pretrains an operator, or what an operator of a file is used with."""

from functools import partial
from typing import Any

import jax

from bilo_ppl._blocks import Interrupts
from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._types import Theta
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.pretraining import pretrain
from bilo_ppl.inner.solvers import LevenbergMarquardt
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.operator_file import save_operator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.sizes import described
from bilo_ppl.run.tolerance import HEADROOM, tolerance_at_prior_draws, tolerance_of
from bilo_ppl.validation.accuracy import Accuracy, PredictionError

__all__ = ["loaded", "pretrained", "save"]

PRETRAIN_STEPS = 300

PRECISION = 1e-12
"""A loss that nothing aims below."""


def pretrained(
    plan: Plan, record: Record, interrupts: Interrupts, error: PredictionError | None
) -> FineTuned:
    """The operator pretrained at the first guess, saved, and good enough to go on from.

    ``error`` tells how right it is, where the tolerance follows from the noise. Raises `RunFailedError`
    if the tolerance is out of reach at the first guess.
    """
    settings, start = plan.settings, plan.file.start
    tolerance = PRECISION if error else HEADROOM * plan.tolerance
    found: list[Accuracy] = []

    def worst(operator: LocalOperator) -> float:
        assert error is not None
        found.append(error(operator, start, plan.first_guess))
        return found[-1].worst

    record["sizes"] = plan.sizes
    record.say(f"\n{described(plan.sizes, plan.file)}")
    with record.stage("pretrain", f"Pretraining the operator at {_text(start)}."):
        operator, report = pretrain(
            plan.file.problem,
            start,
            key=jax.random.key(settings.seed),
            solver=LevenbergMarquardt(tolerance=tolerance, max_steps=PRETRAIN_STEPS),
            sensitivity=plan.sensitivity(),
            error=worst if error else None,
            progress=not settings.quiet,
            mesh=plan.mesh,
            **plan.file.architecture,
        )
        # For its file: another run may ask for others.
        if operator.collocation is None and not plan.sizes["points"].stated:
            operator = operator.with_points(plan.file.problem.points)
        if error:
            # The last one is that of the operator as it is.
            at_draws = partial(tolerance_at_prior_draws, plan, error, operator)
            tolerance = tolerance_of(record, found[-1], report.loss, at_draws, operator.dtype)
            plan = plan.with_tolerance(tolerance)
            reached = report.loss <= plan.tolerance
            report = report._replace(tolerance=plan.tolerance, converged=reached)
        save(plan, record, operator, report, "operator.eqx")
    record["pretrain"] = _fit_entry(report)
    record.say(str(report))
    if not report.adequate:
        record.alarm(
            "The collocation points do not suffice at the first guess: the loss is "
            f"{report.loss:.1e} at them and {report.unseen_loss:.1e} between. Give more. "
            + see("Too few points")
        )
    interrupts.raise_if_any()
    fine = plan.fine_tuned(operator)
    if not report.loss <= plan.tolerance:
        with record.stage("check operator"):
            _check_start(plan, record, fine)
    return fine


def loaded(
    plan: Plan, record: Record, operator: LocalOperator, error: PredictionError | None
) -> FineTuned:
    """An operator of a file, with the tolerance that the noise asks for."""
    if error:
        home = operator.home if len(operator.home) == len(operator.problem.parameters) else None
        theta = home or plan.file.start
        loss = jit_once(lambda: plan.fine_tuned(operator).loss_of_home_state(theta))()
        found = error(operator, theta, plan.first_guess)
        at_draws = partial(tolerance_at_prior_draws, plan, error, operator)
        tolerance = tolerance_of(record, found, float(loss), at_draws, operator.dtype)
        plan = plan.with_tolerance(tolerance)
    return plan.fine_tuned(operator)


def save(plan: Plan, record: Record, operator: LocalOperator, report: Any, name: str) -> None:
    """Write an operator and what is to be said of it."""
    metadata = {"tolerance": plan.tolerance, "report": str(report)}
    save_operator(record.path(name), operator, metadata)
    record.say(f"Saved {record.folder.path / name}.")


def _check_start(plan: Plan, record: Record, fine: FineTuned) -> None:
    """Solve at the first guess: what pretraining left over, the inner solver must be able to do."""
    solve = jit_once(lambda: fine.solve(plan.file.start, fine.init_state())[2])
    info = jax.device_get(solve())
    record["solve_at_start"] = info
    if not info.converged and not plan.settings.tolerates_unconverged:
        raise RunFailedError(
            f"The operator does not reach the tolerance {plan.tolerance:g} at the first guess "
            f"{_text(plan.file.start)}: the loss is {float(info.loss):.2e} after {int(info.steps)} "
            f"inner steps. Give a larger --tol or --rank. {see('Tolerance not reached')}"
        )
    if info.steps:
        record.say(
            f"Pretraining ended above the tolerance; the inner solver needs {int(info.steps)} "
            "steps at the first guess."
        )


def _fit_entry(report: FitReport) -> dict:
    entry = report._asdict()
    return {name: entry[name] for name in ("loss", "terms", "steps", "converged", "tolerance")}


def _text(theta: Theta) -> str:
    return ", ".join(f"{name} = {value}" for name, value in theta.items())

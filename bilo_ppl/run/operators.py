"""The stages that make the solution operator: pretraining and adaptation."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax

from bilo_ppl._blocks import Interrupts
from bilo_ppl._pages import see
from bilo_ppl.adaptation.adapting import adapt
from bilo_ppl.adaptation.report import Adapted, AdaptReport
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.pde.inputs import fixed_inputs
from bilo_ppl.run.checkpoint import recall, remember
from bilo_ppl.run.features import featured, limit_of, tolerance_at_estimate
from bilo_ppl.run.kept_stages import Region, adapted_once, pretrained_once
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.pretraining import loaded, pretrained, save
from bilo_ppl.run.record import Record
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.run.tolerance import prediction_error, tolerance_at_mode
from bilo_ppl.validation.accuracy import PredictionError

__all__ = ["WELL_ADAPTED", "Prepared", "adapt_again", "keep_adapted", "make_operator"]


Fitted = FineTuned | OutputLayer
"""What adaptation gives back of its own kind."""


class Prepared(NamedTuple):
    """What sampling starts from."""

    operator: AbstractSolutionOperator
    inverse_mass_matrix: Any
    """Covariance of the unconstrained sites where adaptation has found it, else None; of many sites or
    of one, the variances."""
    starts: Callable[[int], Any]
    """From a number of chains to their unconstrained starts by site, where adaptation has ended."""
    report: AdaptReport | None = None
    """How adaptation went; None without."""
    error: PredictionError | None = None
    """How right solutions are, where that was asked: compiled by now."""


DENSE_UP_TO = 100
"""Unknowns up to which the mass matrix of the sampler is dense."""

WELL_ADAPTED = 0.95
"""Part of fresh thetas that need no inner step, from which on a few points tell of the others."""

FAILED = "features that do not suffice"
"""Name under which that is kept, so that a run that goes on does not try again."""

LEAST_READY = 0.5
"""Part of fresh thetas that must need no inner step: with less, sampling is slow and its law in doubt."""

WIDER = 3.0
"""Factor by which a region is widened whose operator did not suffice."""


def make_operator(
    plan: Plan, record: Record, interrupts: Interrupts, *, features: bool = True
) -> Prepared:
    """The numerical operator, or a fine-tuned one: loaded or pretrained, and adapted if asked for.

    ``features`` allows for an output layer where that may do. Raises `RunFailedError` if the tolerance
    is out of reach at the first guess.
    """
    if plan.numerical is not None:
        record.say("\nThe PDE is solved numerically: nothing to pretrain, adapt or certify.")
        return Prepared(plan.numerical, None, _nowhere)
    error = prediction_error(plan) if plan.finds_tolerance else None
    if plan.settings.output_layer:
        return _with_features(plan, record, interrupts, error)._replace(error=error)
    if (
        features
        and error is not None
        and _may_take_features(plan)
        and recall(record, FAILED) is None
    ):
        record.say("\nA layer of random features is tried first.")
        try:
            layered = plan.with_features()
            found = _with_features(layered, record, interrupts, error, limit=limit_of(layered))
            return found._replace(error=error)
        except RunFailedError as failed:
            record["features_failed"] = str(failed)
            record.say(f"\nThat does not do ({failed}): a network is trained.")
            remember(record, FAILED, {"why": str(failed)})
    return _with_network(plan, record, interrupts, error)


def _may_take_features(plan: Plan) -> bool:
    follow = fixed_inputs(plan.file.problem, plan.file.start) is None
    return plan.settings.may_take_features and not (follow or "network" in plan.file.architecture)


def _with_network(
    plan: Plan, record: Record, interrupts: Interrupts, error: PredictionError | None
) -> Prepared:
    if plan.loaded is not None:
        record.say(f"\nOperator loaded from {plan.settings.operator_file}.")
        fine = loaded(plan, record, plan.loaded, error)
    else:
        make = partial(pretrained, plan, record, interrupts, error)
        fine = pretrained_once(plan, record, make)
    if not plan.settings.adapts:
        return Prepared(fine, None, _nowhere)
    at_mode = None if error is None else partial(tolerance_at_mode, record, error)
    return _adapted(plan, record, interrupts, fine, tolerance_at=at_mode)


def _with_features(
    plan: Plan,
    record: Record,
    interrupts: Interrupts,
    error: PredictionError | None,
    *,
    limit: float | None = None,
) -> Prepared:
    layer = featured(plan, record, interrupts, error, limit=limit)
    if not plan.settings.adapts:
        return Prepared(layer, None, _nowhere)
    at_mode = None if error is None else partial(tolerance_at_estimate, record, error, limit)
    least = LEAST_READY if limit is None else WELL_ADAPTED
    return _adapted(
        *(plan, record, interrupts, layer),
        kept="adapt features",
        least=least,
        tolerance_at=at_mode,
    )


def adapt_again(
    plan: Plan, record: Record, interrupts: Interrupts, prepared: Prepared, factor: float
) -> Prepared:
    """The operator adapted once more from where it is, to a tolerance times ``factor``, more widely."""
    fine = cast(Fitted, prepared.operator)
    fine = fine.to_tolerance(factor * fine.loss_tolerance)
    return _adapted(plan, record, interrupts, fine, stage="adapt again", spread=WIDER)


def _adapted(
    plan: Plan,
    record: Record,
    interrupts: Interrupts,
    fine: Fitted,
    *,
    stage: str = "adapt",
    kept: str = "",
    least: float = LEAST_READY,
    **options: Any,
) -> Prepared:
    settings = plan.settings

    def make() -> Region:
        with record.stage(stage, "Adapting the operator to the posterior region."):
            try:
                adapted = adapt(
                    plan.file.model,
                    jax.random.key(settings.seed + 2),
                    fine,
                    *plan.observations.model_args,
                    progress=not settings.quiet,
                    mesh=plan.mesh,
                    **plan.observations.model_kwargs,
                    **options,
                )
            except ValueError as error:
                raise RunFailedError(f"the operator cannot be adapted: {error}") from error
            operator, report = cast(Fitted, adapted.operator), adapted.report
            keep_adapted(plan, record, Prepared(operator, None, _nowhere, report))
        return Region(operator, _scales(adapted), adapted.starts(settings.chains), report)

    found = adapted_once(plan, record, kept or stage, fine, make)
    report = found.report
    prepared = Prepared(found.operator, found.inverse_mass_matrix, lambda _: found.starts, report)
    record.say(str(report))
    interrupts.raise_if_any()
    if report.fraction_ready < least:
        raise RunFailedError(f"the operator cannot be adapted: {_what_is_missing(report)}")
    if report.unseen_loss is not None:
        record.alarm(
            f"The collocation points do not suffice: between them the loss is {report.unseen_loss:.1e}, "
            f"above the tolerance {report.tolerance:.0e}. Give more. {see('Too few points')}"
        )
    if not report.ready:
        record.alarm(f"the operator is not fully adapted: {_what_is_missing(report)}")
    return prepared


def _scales(adapted: Adapted) -> Any:
    variances = adapted.inverse_mass_matrix
    dense = variances is not None and 1 < len(variances) <= DENSE_UP_TO
    return adapted.covariance if dense else variances


def keep_adapted(plan: Plan, record: Record, prepared: Prepared) -> None:
    """Write the adapted operator and its report, in the place of an earlier one's."""
    fine, report = cast(Fitted, prepared.operator), prepared.report
    assert report is not None
    done = plan.with_tolerance(fine.loss_tolerance)
    save(done, record, fine.operator, report, "operator-adapted.eqx")
    record["adapt"] = {k: v for k, v in report._asdict().items() if k != "fits"}


def _what_is_missing(report: AdaptReport) -> str:
    """Why adaptation ended before the operator was ready, and what it means."""
    # Where the estimate lies, and other modes, are said elsewhere.
    notes = [note for note in report.notes[1:] if note != report.other_mode]
    return " ".join(
        [
            f"{100 * report.fraction_ready:.0f} % of fresh thetas need no inner step, "
            f"the worst loss is {report.worst_loss:.1e}.",
            *notes,
            see("Not adapted"),
        ]
    )


def _nowhere(chains: int) -> None:
    """No starts are known: the kernel finds its own."""

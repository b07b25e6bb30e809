"""The results of stages that have ended, kept in the checkpoint of a run and read when it goes on."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bilo_ppl._snapshot import Saved
from bilo_ppl.adaptation.report import AdaptReport
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.network.operator_file import load_operator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.checkpoint import recall, remember
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record, warn

__all__ = ["Region", "adapted_once", "pretrained_once"]


class Region(NamedTuple):
    """What an adaptation has found, as arrays and text."""

    operator: AbstractSolutionOperator
    inverse_mass_matrix: Any
    starts: Any
    """Unconstrained starts by site, a leading chain axis; None: not known."""
    report: AdaptReport


def pretrained_once(plan: Plan, record: Record, make: Callable[[], FineTuned]) -> FineTuned:
    """The pretrained operator, made now or read."""
    name = "the end of the stage pretrain"
    saved = recall(record, name)
    if saved is not None:
        try:
            like = _like(plan, record, "operator.eqx", saved)
            record.say("\nPretraining has ended before: its operator is read.")
            return saved.tree(like)
        except (OSError, ValueError) as error:
            _again("pretraining", error)
    fine = make()
    remember(record, name, _described(fine), fine)
    return fine


def adapted_once(
    plan: Plan,
    record: Record,
    stage: str,
    before: AbstractSolutionOperator,
    make: Callable[[], Region],
) -> Region:
    """What the adaptation of an operator has found, now or before."""
    name = f"the end of the stage {stage}"
    saved = recall(record, name)
    if saved is not None:
        try:
            region = _region(plan, record, saved, before)
            record.say("\nThe adaptation has ended before: what it found is read.")
            return region
        except (OSError, ValueError) as error:
            _again("adaptation", error)
    found = make()
    starts = found.starts or {}
    notes = _described(found.operator) | {
        "report": found.report._asdict() | {"fits": [fit._asdict() for fit in found.report.fits]},
        "starts": sorted(starts),
        "matrix": found.inverse_mass_matrix is not None,
        "reduced": _reduced(found.operator),
    }
    matrix = [] if found.inverse_mass_matrix is None else [found.inverse_mass_matrix]
    values = [starts[site] for site in sorted(starts)]
    remember(record, name, notes, (found.operator, matrix, values))
    return found


def _region(plan: Plan, record: Record, saved: Saved, before: Any) -> Region:
    notes = saved.notes["own"]
    like = before
    if isinstance(before, FineTuned):
        like = _like(plan, record, "operator-adapted.eqx", saved)
    elif isinstance(before, OutputLayer):
        like = before.to_tolerance(notes["tolerance"]).with_room_for(notes["reduced"])
    arrays = saved.arrays()
    extra = len(notes["starts"]) + notes["matrix"]
    operator = saved.first(like, len(arrays) - extra)
    rest = arrays[len(arrays) - extra :]
    matrix = rest.pop(0) if notes["matrix"] else None
    starts = dict(zip(notes["starts"], rest, strict=True)) or None
    report: dict[str, Any] = dict(notes["report"])
    report["fits"] = [_fit(fit) for fit in report["fits"]]
    report["notes"] = tuple(report["notes"])
    return Region(operator, matrix, starts, AdaptReport(**report))


def _fit(entry: dict[str, Any]) -> FitReport:
    history: Any = [(steps, loss) for steps, loss in entry["history"]]
    return FitReport(**{**entry, "history": history})


def _like(plan: Plan, record: Record, file: str, saved: Saved) -> FineTuned:
    """An operator of the structure of one that is kept."""
    path = record.folder.work / file
    local = load_operator(path, plan.file.problem, network=plan.file.architecture.get("network"))
    return plan.with_tolerance(saved.notes["own"]["tolerance"]).fine_tuned(local)


def _reduced(operator: Any) -> tuple[int, int] | None:
    """Sizes of an output layer that looks between known solutions."""
    return operator.reduced_sizes if isinstance(operator, OutputLayer) else None


def _described(operator: Any) -> dict[str, Any]:
    return {"tolerance": operator.loss_tolerance}


def _again(what: str, error: Exception) -> None:
    warn(f"the result of the {what} cannot be read ({error}): it is done again.")

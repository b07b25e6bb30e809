"""The stages of a run, one after the other, and what is left of it when one ends early."""

import jax

from bilo_ppl._blocks import Interrupts
from bilo_ppl._pages import see
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.checkpoint import checkpoint_in, find_run
from bilo_ppl.run.checks import prepare
from bilo_ppl.run.ending import conclude, to_the_end
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.model_look import made_reference
from bilo_ppl.run.operators import (
    Prepared,
    adapt_again,
    keep_adapted,
    make_operator,
)
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Clock, Record
from bilo_ppl.run.sample.certificates import add_certificates
from bilo_ppl.run.sample.chains import (
    adapted_starts,
    chain_method,
    draw,
    in_sampling,
    make_sampler,
    warm_up,
)
from bilo_ppl.run.sample.contradictions import (
    contradictions,
    may_give_way,
    tightening,
    without_remedy,
)
from bilo_ppl.run.sample.printed import print_report
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.sample.verdict import judged
from bilo_ppl.run.settings import RunFailedError, refusing

__all__ = ["sample_model"]


def sample_model(settings: SampleSettings) -> int:
    """Do a run and return its exit status: 0, 1 where its verdict is FAILED, 3 where it is DOUBTFUL and
    that is to count (``strict``), or 130 after Ctrl-C.

    Raises `BadInputError` before anything is computed or written, and `RunFailedError` if a stage
    cannot reach what the next one needs; run.json then says so.

    Examples:
        >>> from bilo_ppl.run import SampleSettings, sample_model
        >>> sample_model(SampleSettings("poisson", chains=0, out=folder / "run"))
        Traceback (most recent call last):
            ...
        bilo_ppl.run.errors.BadInputError: chains is 0; the least is 1.
        >>> (folder / "run").exists()
        False
    """
    started = Clock()
    with refusing():
        file = load_model(settings.model, learnt=settings.fine_tuned).for_sampling()
        plan = prepare(settings, file)
        _check_second(plan)
        found = find_run(plan)
    with plan.folder, checkpoint_in(plan):
        record = Record(plan.folder, settings)
        for name, path in plan.inputs.items():
            record.read(name, path)
        record.took("check", started)
        _announce(plan, record, found)
        return to_the_end(record, lambda interrupts: _stages(plan, record, interrupts))


def _check_second(plan: Plan[SampleSettings]) -> None:
    """Raise a ``ValueError`` where the numerical operator is needed and the model file has none."""
    if plan.settings.second and plan.file.reference is None:
        raise ValueError(
            f"{plan.file.path} defines no numerical operator (a function reference()), which "
            f"--{plan.settings.second} needs."
        )
    if "prior_predictive" in plan.settings.further_groups and plan.file.reference is None:
        raise ValueError(
            f"{plan.file.path} defines no numerical operator (a function reference()), and a network "
            "does not solve all over the prior: leave prior_predictive out of --groups."
        )


def _announce(plan: Plan[SampleSettings], record: Record, found: list[str]) -> None:
    file, notes = plan.file, [*found, *_notes(plan)]
    problem = plan.described()
    record.say(
        f"Model {file.path}: {type(file.problem).__name__}, unknown "
        f"{', '.join(file.problem.parameters)}.",
        f"Data: {problem['data']}.",
        f"Results go to {plan.folder.path}.",
        *(f"Note: {note}" for note in notes),
    )
    record["problem"] = problem
    record["notes"] = notes
    record.status("started")


def _notes(plan: Plan[SampleSettings]) -> list[str]:
    """What will be done differently from what was asked."""
    settings, notes = plan.settings, []
    if chain_method(settings) != settings.chain_method:
        notes.append(
            f"{settings.chains} chains in parallel need as many devices, and JAX has "
            f"{jax.local_device_count()}: the chains run one after another. "
            + see("Try it on a CPU", "devices")
        )
    absent = [name for name in plan.file.start if name not in plan.first_guess]
    if absent and (settings.init == "start" or not (settings.init or settings.adapts)):
        notes.append(
            f"The model has no sample sites {absent} of the shapes in start, only {list(plan.latent)}: "
            "chains start at random in what the pretrained theta does not determine."
        )
    return notes


def _stages(plan: Plan[SampleSettings], record: Record, interrupts: Interrupts) -> int:
    prepared = make_operator(plan, record, interrupts)
    results, interrupted = _attempt(plan, record, prepared)
    found = [] if interrupted else contradictions(results)
    again = may_give_way(plan, prepared.operator)
    if found and again and (reason := without_remedy(results, found)):
        results.no_remedy, found = reason, [f"{found[0]} {reason}"]
    elif found and again:
        record.say(
            "", "The draws contradict the adaptation, which is done again from there:", *found
        )
        record["first_attempt"] = {"contradictions": found, "tolerance": results.tolerance}
        try:
            other = _again(plan, record, interrupts, prepared, results)
            results, interrupted = _attempt(plan, record, other)
            found = [] if interrupted else contradictions(results)
        except RunFailedError as error:
            # What was drawn with the first operator is kept, with what speaks against it.
            found.append(f"A second adaptation failed: {error}")
            keep_adapted(plan, record, prepared)
            results.write()
    # What the draws say, the verdict has from them.
    alarms = list(record.content.get("alarms", ()))
    for text in found:
        record.alarm(f"{text} Part of the posterior may be missing or misplaced.")
    verdict = judged(results, alarms, interrupted=interrupted)
    results.draw_figures(verdict.state.value)
    print_report(results)
    return conclude(record, verdict, "interrupted in sampling" if interrupted else None)


def _again(
    plan: Plan[SampleSettings],
    record: Record,
    interrupts: Interrupts,
    prepared: Prepared,
    results: Results,
) -> Prepared:
    """What is better than an operator whose draws contradict it."""
    if isinstance(prepared.operator, OutputLayer):
        return make_operator(plan, record, interrupts, features=False)
    factor = 1.0 if plan.settings.tol else tightening(results)
    return adapt_again(plan, record, interrupts, prepared, factor)


def _attempt(
    plan: Plan[SampleSettings], record: Record, prepared: Prepared
) -> tuple[Results, bool]:
    """Draws with an operator, and what can be said of them; whether they were interrupted.

    Raises `RunFailedError` where the chains would start about one of several modes: they would say
    nothing of how much the modes weigh.
    """
    other_mode = None if prepared.report is None else prepared.report.other_mode
    if other_mode is not None and plan.settings.init != "prior":
        raise RunFailedError(
            f"{other_mode} Restrict the prior to one of them; --init prior samples all the same. "
            + see("Several modes")
        )
    operator = in_sampling(plan.settings, prepared)
    second = made_reference(plan.file) if plan.settings.exact else None
    sampler = make_sampler(plan, operator, prepared.inverse_mass_matrix, second)
    warm_up(plan, record, sampler, adapted_starts(plan, prepared))
    interrupted = draw(plan, record, sampler)
    results = Results(plan, record, _at_all_points(prepared), sampler, operator, second)
    results.write()
    results.add_inner_statistics()
    if not interrupted:
        add_certificates(results)
        results.compare_with_exact()
        results.add_groups()
    results.write()
    return results, interrupted


def _at_all_points(prepared: Prepared) -> AbstractSolutionOperator:
    """The operator by which the draws are looked at again."""
    operator = prepared.operator
    return operator.checked_at_all() if isinstance(operator, OutputLayer) else operator

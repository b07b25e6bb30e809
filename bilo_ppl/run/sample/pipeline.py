"""The stages of a run, one after the other, and what is left of it when one ends early."""

import jax

from bilo_ppl.run.checks import Plan, prepare
from bilo_ppl.run.ending import INTERRUPTED, to_the_end
from bilo_ppl.run.interrupts import Interrupts
from bilo_ppl.run.operators import Prepared, make_operator
from bilo_ppl.run.record import Clock, Record
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.sampling import BlockSampler, make_kernel
from bilo_ppl.run.settings import BadInputError, RunFailedError, RunSettings

__all__ = ["run"]

BLOCKS = 20
"""Blocks in which the samples are drawn: what Ctrl-C can lose is one of them."""


def run(settings: RunSettings) -> int:
    """Do a run and return its exit status: 0, or 130 after Ctrl-C.

    Raises `BadInputError` before anything is computed or written, and `RunFailedError` if a stage
    cannot reach what the next one needs; run.json then says so.
    """
    started = Clock()
    try:
        plan = prepare(settings)
    except (ValueError, FileNotFoundError) as error:
        raise BadInputError(str(error)) from error
    record = Record(plan.folder, settings)
    record.took("check", started)
    _announce(plan, record)
    return to_the_end(record, lambda interrupts: _stages(plan, record, interrupts))


def _announce(plan: Plan, record: Record) -> None:
    settings, file = plan.settings, plan.file
    source = settings.data or f"synthetic, seed {settings.data_seed}"
    record.say(
        f"Model {file.path}: {type(file.problem).__name__}, unknown "
        f"{', '.join(file.problem.parameters)}.",
        f"Data: {plan.observations} ({source}).",
        f"Results go to {plan.folder}.",
        *(f"Note: {note}" for note in plan.notes),
    )
    record["notes"] = list(plan.notes)
    record.status("started")


def _stages(plan: Plan, record: Record, interrupts: Interrupts) -> int:
    prepared = make_operator(plan, record, interrupts)
    sampler = _sampler(plan, prepared)
    _warm_up(plan, record, sampler)
    interrupted = _sample(plan, record, sampler)
    results = Results(plan, record, prepared.operator, sampler)
    results.write()
    results.add_inner_statistics()
    if not interrupted:
        results.add_reference()
        results.add_certificates()
    results.write()
    results.draw_figures()
    results.report()
    if interrupted:
        record.status("interrupted in sampling")
        return INTERRUPTED
    record.status("finished")
    return 0


def _sampler(plan: Plan, prepared: Prepared) -> BlockSampler:
    settings = plan.settings
    model = plan.model(prepared.operator)
    kernel = make_kernel(settings, model, plan.file.start, prepared.inverse_mass_matrix)
    return BlockSampler(
        kernel,
        plan.observations.model_args,
        chains=settings.chains,
        chain_method=plan.chain_method,
        warmup=settings.warmup,
        block=-(-settings.samples // BLOCKS),
    )


def _warm_up(plan: Plan, record: Record, sampler: BlockSampler) -> None:
    settings = plan.settings
    title = f"Warm-up: {settings.sampler}, {settings.chains} chains, {plan.chain_method}."
    with record.stage("warmup", title):
        try:
            sampler.start(jax.random.key(settings.seed + 3))
        except (RuntimeError, ValueError) as error:
            raise RunFailedError(f"the chains cannot start: {error}") from error
        sampler.advance(settings.warmup, keep=False, progress=not settings.quiet, label="warm-up")
    number, total = sampler.warmup_divergences, settings.chains * settings.warmup
    record["warmup"] = {"transitions": total, "diverging": number}
    if number:
        record.say(
            f"In warm-up {number} of {total} transitions diverged, as first step sizes do: leaps to "
            "thetas at which the PDE was not solved, or too large an energy error. None was kept."
        )


def _sample(plan: Plan, record: Record, sampler: BlockSampler) -> bool:
    """Draw; whether it was interrupted. Without a finished block KeyboardInterrupt goes on."""
    settings = plan.settings
    try:
        with record.stage("sampling", "Sampling."):
            sampler.advance(
                settings.samples, keep=True, progress=not settings.quiet, label="sampling"
            )
    except KeyboardInterrupt:
        if not sampler.draws:
            raise
        record.say("\nInterrupted: the blocks finished so far are kept. Ctrl-C again to stop now.")
        return True
    return False

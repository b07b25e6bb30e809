"""The chains of a run: where they start, their warm-up, and their draws."""

from typing import Any

import jax

from bilo_ppl._blocks import Ended
from bilo_ppl.mcmc import BlockSampler, TwoStage
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.run.checkpoint import as_before
from bilo_ppl.run.operators import WELL_ADAPTED, Prepared
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample.enough import EnoughDraws
from bilo_ppl.run.sample.kernel import make_kernel
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.settings import RunFailedError

__all__ = [
    "adapted_starts",
    "chain_method",
    "draw",
    "first_values",
    "in_sampling",
    "make_sampler",
    "warm_up",
]

BLOCKS = 20
"""Blocks in which the samples are drawn: what Ctrl-C can lose is one of them."""


def adapted_starts(plan: Plan[SampleSettings], prepared: Prepared) -> Any:
    """Where chains start in the region that adaptation has found, unless something else was asked."""
    asked = plan.settings.init not in (None, "adapted")
    return None if asked else prepared.starts(plan.settings.chains)


def first_values(plan: Plan[SampleSettings]) -> dict[str, Any] | None:
    """Values of latent sites near which chains start, unless adaptation says where; None: prior draws."""
    init = plan.settings.init
    if init == "prior":
        return None
    return plan.first_guess if init == "start" else plan.first_guess | plan.chains_near


def in_sampling(settings: SampleSettings, prepared: Prepared) -> AbstractSolutionOperator:
    """The operator; one that is adapted looks at a few of many points first.

    Side by side, chains would do what one of them needs, and gain nothing. What the solves at the draws
    are on all points, the results say.
    """
    operator, report = prepared.operator, prepared.report
    if report is None or settings.stateful or chain_method(settings) == "vectorized":
        return operator
    if not isinstance(operator, FineTuned) or report.fraction_ready < WELL_ADAPTED:
        return operator
    return operator.checked_at_few()


def chain_method(settings: SampleSettings) -> str:
    """The chain method; one chain after another where there are too few devices."""
    too_few = settings.chains > jax.local_device_count()
    return (
        "sequential" if settings.chain_method == "parallel" and too_few else settings.chain_method
    )


def make_sampler(
    plan: Plan[SampleSettings],
    operator: AbstractSolutionOperator,
    inverse_mass_matrix: Any,
    second: AbstractSolutionOperator | None,
) -> BlockSampler:
    """The chains as they were asked for, with an operator; with ``second`` in two stages."""
    settings = plan.settings
    kernel = make_kernel(settings, plan.model(operator), first_values(plan), inverse_mass_matrix)
    if second is not None:
        kernel = TwoStage(kernel, second)
    return BlockSampler(
        kernel,
        plan.observations.model_args,
        plan.observations.model_kwargs,
        chains=settings.chains,
        chain_method=chain_method(settings),
        warmup=settings.warmup,
        # More samples later on do not make it another program.
        block=as_before("block of draws", -(-settings.samples // BLOCKS)),
    )


def warm_up(plan: Plan[SampleSettings], record: Record, sampler: BlockSampler, starts: Any) -> None:
    """Start the chains, and adapt their steps; raises `RunFailedError` where they cannot start."""
    settings = plan.settings
    title = f"Warm-up: {settings.sampler}, {settings.chains} chains, {chain_method(settings)}."
    with record.stage("warmup", title):
        try:
            sampler.start(jax.random.key(settings.seed + 3), starts)
        except (RuntimeError, ValueError) as error:
            raise RunFailedError(f"the chains cannot start: {error}") from error
        ended = sampler.run(
            settings.warmup, keep=False, progress=not settings.quiet, label="warm-up"
        )
        if ended is Ended.INTERRUPTED:
            raise KeyboardInterrupt
    number, total = sampler.warmup_divergences, settings.chains * settings.warmup
    record["warmup"] = {"transitions": total, "diverging": number}
    if number:
        record.say(
            f"In warm-up {number} of {total} transitions diverged, as first step sizes do.",
            "None was kept: the PDE was not solved there, or the energy error was too large.",
        )


def draw(plan: Plan[SampleSettings], record: Record, sampler: BlockSampler) -> bool:
    """Draw; whether it was interrupted."""
    settings = plan.settings
    enough = EnoughDraws(sampler, settings.ess, settings.samples) if settings.ess else None
    with record.stage("sampling", "Sampling."):
        ended = sampler.run(
            settings.samples,
            keep=True,
            progress=not settings.quiet,
            label="sampling",
            enough=enough,
        )
    if ended is Ended.FINISHED:
        sampler.leave_out_beyond((enough and enough.at) or settings.samples)
        if enough is not None:
            record.say(enough.report)
        return False
    record.say("\nInterrupted: the draws so far are kept. Ctrl-C again to stop now.")
    return True

"""What is known of the draws of a run, for the verdict on them."""

from collections.abc import Sequence

import numpy as np

from bilo_ppl import diagnostics
from bilo_ppl.diagnostics.verdict import Evidence, Verdict, judge
from bilo_ppl.run.remedies import for_draws, operating
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.solves import over_sites

__all__ = ["judged"]


def judged(results: Results, alarms: Sequence[str], *, interrupted: bool) -> Verdict:
    """The verdict on a run; ``alarms`` are those of its stages, without what the draws themselves say."""
    table, settings = results.table, results.plan.settings
    faults = diagnostics.run_faults(results.idata())
    solves = None if results.closely is None else over_sites(results.closely)
    unsolved = faults.unconverged if solves is None else int(np.sum(solves.missed))
    values = [np.asarray(draws, float) for draws in results.samples.values()]
    moves = all(np.isfinite(v).all() and (np.ptp(v, axis=(0, 1)) > 0).any() for v in values)
    certificates = {name: results.certificates.get(name) for name in results.ways}
    evidence = Evidence(
        r_hat=float(np.max(table["r_hat"].to_numpy())),
        ess=float(np.min(table[["ess_bulk", "ess_tail"]].to_numpy())),
        transitions=faults.transitions,
        diverging=faults.diverging,
        solver_failures=faults.solver_failures,
        draws_solved_anew=faults.transitions if solves is None else solves.missed.size,
        unsolved=unsolved,
        certificates=certificates,
        certifiable=settings.fine_tuned,
        fits=results.fits,
        distances=results.distances,
        moves=moves,
        alarms=alarms,
        interrupted=interrupted,
    )
    advice = for_draws(
        evidence,
        operating(settings, results.operator, results.tolerance),
        samples=results.count // settings.chains,
        warmup=settings.warmup,
        target_accept=settings.target_accept,
        nothing_solves=results.no_remedy is not None,
    )
    return judge(evidence)._replace(advice=advice)

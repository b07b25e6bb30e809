"""What a run says of its results at its end: the table, the checks, and where everything is."""

from bilo_ppl import diagnostics
from bilo_ppl._pages import see
from bilo_ppl.run.record import warn
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.table import shown_table
from bilo_ppl.validation.certificate import Certificate
from bilo_ppl.validation.distance import Distances
from bilo_ppl.validation.posterior_grid import GridPosterior

__all__ = ["print_report", "weights_note"]


def print_report(results: Results) -> None:
    """Print the table, the reports and where everything is; fill in run.json."""
    say, folder = results.record.say, results.record.folder.path
    idata = results.idata()
    limit = results.plan.settings.inner_limit if results.tolerance is not None else None
    lines, warnings = diagnostics.inner_findings(
        idata, tolerance=results.tolerance, max_steps=limit
    )
    results.record["inner_report"] = [*lines, *(f"WARNING: {text}" for text in warnings)]
    results.record["faults"] = diagnostics.run_faults(idata)
    results.record["summary"] = results.table.to_dict(orient="index")
    say("", shown_table(results.table, results.plan.file.units), "", *lines)
    if results.stages is not None:
        results.record["two_stages"] = results.stages.as_dict()
        say(f"Two stages, {results.stages}")
    for text in warnings:
        warn(text)
    several = len(results.fits) > 1
    say(*(f"fit{f' of {name}' if several else ''}: {fit}" for name, fit in results.fits.items()))
    if results.distances:
        say("", "Against the exact posterior:")
        say(*(_distance_line(n, d, results.exact) for n, d in results.distances.items()))
    for name, certificate in results.certificates.items():
        say("", f"Certificate ({name}): {certificate}")
        if name != "numerical":
            continue
        if results.plan.settings.reweight:
            say(f"  {weights_note(certificate)}")
        elif certificate.advice:
            ways = ["--reweight"] * certificate.can_reweight + ["--sampler hmc --exact"]
            say(f"  {certificate.advice} Options: {' or '.join(ways)}.{_of_grid(results)}")
    say("", results.record.times())
    say(f"Results: {folder}/posterior.nc, summary.csv, run.json and figures/.")


def _of_grid(results: Results) -> str:
    if results.finest is None:
        return ""
    return " The latter takes reference() as it is: let the model file make it finer."


def weights_note(certificate: Certificate) -> str:
    """What may be done with the weights of all draws."""
    if not certificate.can_reweight:
        advice = f"{certificate.advice} " if certificate.advice else ""
        return f"{advice}Do not use the weights in posterior.nc; --sampler hmc --exact draws anew."
    return (
        "The weights of all draws are in the group certificate of posterior.nc, and not in what else "
        f"there is. {see('Weights of the draws')}"
    )


def _distance_line(name: str, found: Distances, exact: GridPosterior | None) -> str:
    assert exact is not None
    return (
        f"  {name}: exact {exact.mean(name):.5g} +- {exact.sd(name):.3g}, draws "
        f"{found.mean:.5g} +- {found.sd:.3g}\n"
        f"    mean off by {found.mean_error:+.1f} Monte Carlo standard errors, sd by "
        f"{100 * found.sd_error:+.1f} % (standard error {100 * found.sd_error_se:.1f} %)\n"
        f"    total variation distance {found.total_variation:.3f}; as many independent draws: "
        f"{found.total_variation_iid:.3f}, in 95 % below {found.total_variation_iid95:.3f}\n"
        f"    {found.ess:.0f} effective draws: in 95 % below {found.total_variation_ess95:.3f}"
    )

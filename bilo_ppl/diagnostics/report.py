"""A table and a short text about a run: moments, convergence, inner solves, warnings."""

import os
from typing import Any

import numpy as np

from bilo_ppl._files import replacing
from bilo_ppl._pages import see
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.diagnostics.faults import Faults, count_faults, divergence_warning
from bilo_ppl.diagnostics.results import chain_diagnostics

__all__ = ["inner_findings", "inner_report", "run_faults", "summary", "write_summary_csv"]

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400
"""Limits of Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021)."""


def summary(idata: Any, names: list[str] | None = None) -> Any:
    """A pandas ``DataFrame`` with a row for every scalar of the posterior, indexed by its name.

    Columns: mean, sd, the quantiles ``5%`` and ``95%``, and those of `ChainDiagnostics`. ``names``
    restricts it to these sites. Raises a ``ValueError`` for a name that is not in the posterior.

    Examples:
        >>> table = bilo.summary(idata)
        >>> list(table.index), list(table.columns[:4])
        (['r'], ['mean', 'sd', '5%', '95%'])
        >>> abs(float(table.loc["r", "mean"]) - 9.0) < 0.5
        True
    """
    import pandas as pd

    rows = {name: _row(draws) for name, draws in scalar_draws(_posterior(idata, names)).items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "name"
    return table


def _posterior(idata: Any, names: list[str] | None) -> dict[str, np.ndarray]:
    posterior = idata["posterior"]
    available = list(posterior.data_vars)
    unknown = [name for name in names or [] if name not in available]
    if unknown:
        raise ValueError(f"summary: {unknown} are not in the posterior, which has {available}.")
    return {name: posterior[name].values for name in names or available}


def _row(draws: np.ndarray) -> dict[str, float]:
    draws = np.asarray(draws, dtype=float)
    low, high = np.quantile(draws, [0.05, 0.95])
    moments = {"mean": draws.mean(), "sd": draws.std(ddof=1), "5%": low, "95%": high}
    return moments | chain_diagnostics(draws)._asdict()


def write_summary_csv(idata: Any, path: str | os.PathLike, names: list[str] | None = None) -> Any:
    """Write `summary` as comma-separated values, whole or not at all, and return the table.

    Raises a ``ValueError`` for a name that is not in the posterior.

    Examples:
        >>> from bilo_ppl.diagnostics import write_summary_csv
        >>> table = write_summary_csv(idata, folder / "summary.csv", ["r"])
        >>> (folder / "summary.csv").read_text().splitlines()[0]
        'name,mean,sd,5%,95%,mcse_mean,ess_bulk,ess_tail,r_hat'
    """
    table = summary(idata, names)
    with replacing(path) as temporary:
        table.to_csv(temporary)
    return table


def inner_report(
    idata: Any, *, tolerance: float | None = None, max_steps: int | None = None
) -> str:
    """A few lines on a run: size, convergence, inner solves, divergences, warnings in plain words.

    ``tolerance`` and ``max_steps`` are the inner solver's, for comparison with the worst loss and
    to explain divergences. Statistics that were not recorded are named as missing.

    Examples:
        >>> text = bilo.inner_report(idata, tolerance=1e-6)
        >>> text.splitlines()[1]
        'Inner solves: not recorded. Give to_arviz the result of inner_statistics.'
    """
    lines, warnings = inner_findings(idata, tolerance=tolerance, max_steps=max_steps)
    return "\n".join(lines + [f"WARNING: {text}" for text in warnings])


def inner_findings(
    idata: Any, *, tolerance: float | None = None, max_steps: int | None = None
) -> tuple[list[str], list[str]]:
    """The lines of `inner_report`, and its warnings apart from them.

    Examples:
        >>> from bilo_ppl.diagnostics import inner_findings
        >>> lines, warnings = inner_findings(idata)
        >>> lines[0]
        '2 x 200 draws (chains x draws). Largest R-hat ...'
        >>> warnings[-1]
        'fewer than 400 effective draws for r: quantiles are imprecise.'
    """
    stats = _stats(idata)
    table = summary(idata)
    sizes = idata["posterior"].sizes
    lines = [
        f"{sizes['chain']} x {sizes['draw']} draws (chains x draws). Largest R-hat "
        f"{_text(table['r_hat'].max(), '.3f')}, smallest effective sample size "
        f"{_text(table[['ess_bulk', 'ess_tail']].min().min(), '.0f')}."
    ]
    while_sampling = stats.get("inner_solves_of") == "transition"
    lines += _solver_lines(stats, "inner_", while_sampling, tolerance)
    lines += _solver_lines(stats, "pure_inner_", False, tolerance)
    if len(lines) == 1:
        lines.append("Inner solves: not recorded. Give to_arviz the result of inner_statistics.")
    faults = run_faults(idata)
    if faults.diverging is not None:
        cause = "" if not faults.solver_failures else f", {faults.solver_failures} by failed solves"
        lines.append(f"Divergences: {faults.diverging} of {faults.transitions} transitions{cause}.")
    warnings = _convergence_warnings(table) + _solver_warnings(stats, tolerance)
    if faults.diverging:
        draws = _posterior(idata, None)
        diverging = stats["diverging"]
        warnings.append(divergence_warning(faults, diverging, draws, tolerance, max_steps))
    return lines, warnings


def run_faults(idata: Any) -> Faults:
    """Rejected proposals and failed solves of a run, as `to_arviz` has recorded them.

    Examples:
        >>> from bilo_ppl.diagnostics import run_faults
        >>> faults = run_faults(idata)
        >>> faults.diverging == int(run.statistics["diverging"].sum())
        True
    """
    sizes = idata["posterior"].sizes
    return count_faults(_stats(idata), (sizes["chain"], sizes["draw"]))


def _stats(idata: Any) -> dict[str, Any]:
    """Sampler statistics by name, with the mark that `to_arviz` leaves on the group."""
    if "sample_stats" not in idata:
        return {}
    group = idata["sample_stats"]
    mark = {"inner_solves_of": group.attrs.get("inner_solves_of", "draw")}
    return {name: group[name].values for name in group.data_vars} | mark


def _text(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "not available"


def _solver_lines(
    stats: dict[str, Any], prefix: str, while_sampling: bool, tolerance: float | None
) -> list[str]:
    """Work and outcome of the solves along trajectories, or of the pure solves at the draws."""
    if prefix + "steps" not in stats:
        return []
    steps, loss = stats[prefix + "steps"], stats[prefix + "loss"]
    work = f"{steps.mean():.3g} {'step' if steps.mean() == 1 else 'steps'} per draw"
    if while_sampling and "n_steps" in stats:
        work += f", {steps.sum() / max(stats['n_steps'].sum(), 1):.3g} per leapfrog step"
    none = f"; {np.mean(steps == 0):.0%} of the draws needed none" if np.any(steps == 0) else ""
    where = "while sampling" if while_sampling else "anew at the draws, from the stored weights"
    limit = "" if tolerance is None else f" (tolerance {tolerance:.3g})"
    what = "transitions" if while_sampling else "draws"
    return [
        f"Inner solves {where}: {work}{none}.",
        f"  Worst loss at a draw {loss.max():.3g}{limit}; {what} with an unconverged solve: "
        f"{_missed(stats, prefix)} of {steps.size}.",
    ]


def _missed(stats: dict[str, Any], prefix: str) -> int:
    return int((stats[prefix + "converged"] == 0).sum())


def _convergence_warnings(table: Any) -> list[str]:
    apart = list(table.index[table["r_hat"] > R_HAT_LIMIT])
    unknown = list(table.index[table["r_hat"].isna()])
    few = list(table.index[table[["ess_bulk", "ess_tail"]].min(axis=1) < ESS_LIMIT])
    texts = []
    if apart:
        texts.append(
            f"R-hat is above {R_HAT_LIMIT} for {_names(apart)}: the chains have not "
            "mixed, so means and quantiles cannot be trusted yet. Run longer; look at the trace."
        )
    if unknown:
        texts.append(
            f"R-hat cannot be computed for {_names(unknown)}: too few draws, "
            "values that are not finite, or a chain that never moves."
        )
    if few:
        texts.append(
            f"fewer than {ESS_LIMIT} effective draws for {_names(few)}: quantiles are imprecise."
        )
    return texts


def _names(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _solver_warnings(stats: dict[str, Any], tolerance: float | None) -> list[str]:
    texts = []
    if "inner_loss" in stats and tolerance is not None:
        above = int((~(stats["inner_loss"] <= tolerance)).sum())
        if above:
            texts.append(
                f"{above} draws were kept at a loss above the tolerance: they follow the law of an "
                "inaccurate solution, not the posterior."
            )
    while_sampling = stats.get("inner_solves_of") == "transition"
    for prefix in ("inner_", "pure_inner_"):
        if prefix + "converged" not in stats or (while_sampling and prefix == "inner_"):
            continue
        if missed := _missed(stats, prefix):
            texts.append(
                f"{missed} draws at which a solve anew missed its tolerance: there the posterior may be "
                f"cut off. {see('Divergences')}"
            )
    return texts

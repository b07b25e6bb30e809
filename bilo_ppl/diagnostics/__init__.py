"""What one looks at after sampling: inner solves, solutions, fit, ArviZ objects, tables, a report.

Importing this package imports neither ArviZ nor matplotlib; ArviZ is imported at the first call
that needs it.
"""

from bilo_ppl.diagnostics.faults import Faults
from bilo_ppl.diagnostics.fit import Fit, goodness_of_fit, solves_and_fit
from bilo_ppl.diagnostics.inner import inner_statistics, solution_draws
from bilo_ppl.diagnostics.report import (
    inner_findings,
    inner_report,
    run_faults,
    summary,
    write_summary_csv,
)
from bilo_ppl.diagnostics.results import add_certificates, add_group, load, save, to_arviz

__all__ = [
    "Faults",
    "Fit",
    "add_certificates",
    "add_group",
    "goodness_of_fit",
    "inner_findings",
    "inner_report",
    "inner_statistics",
    "load",
    "run_faults",
    "save",
    "solution_draws",
    "solves_and_fit",
    "summary",
    "to_arviz",
    "write_summary_csv",
]

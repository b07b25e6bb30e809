"""``bilo-ppl report``: one page that says what a run has found, and what speaks for it."""

from bilo_ppl.run.report.settings import ReportSettings
from bilo_ppl.run.report.writing import report_run, write_report

__all__ = ["ReportSettings", "report_run", "write_report"]

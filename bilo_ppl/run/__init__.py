"""The job behind ``bilo-ppl run``: from a model file and data to a posterior, tables and figures."""

from bilo_ppl.run.pipeline import run
from bilo_ppl.run.settings import RunFailed, RunSettings

__all__ = ["RunFailed", "RunSettings", "run"]

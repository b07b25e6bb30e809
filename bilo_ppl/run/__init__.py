"""The job behind ``bilo-ppl run``: from a model file and data to a posterior and its checks."""

from bilo_ppl.run.sample.pipeline import run
from bilo_ppl.run.settings import BadInputError, RunFailedError, RunSettings

__all__ = ["BadInputError", "RunFailedError", "RunSettings", "run"]

"""The process of one method: ``python -m bilo_ppl.run.compare.worker FOLDER``."""

import resource
import sys

import jax
from threadpoolctl import threadpool_limits

from bilo_ppl.run.compare.methods import METHODS
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.compilation import set_up_compilation

__all__ = ["main"]


def main(folder: str) -> None:
    """Do the task in a folder, and leave there what has come out."""
    # As the command line itself does.
    jax.config.update("jax_enable_x64", True)
    set_up_compilation(jax.config.values["jax_enable_compilation_cache"])
    threadpool_limits(limits=1, user_api="blas")
    task = Task.read(folder)
    outcome = METHODS[task.method].do(task)
    outcome.write(folder, task.spent, _peak_megabytes())


def _peak_megabytes() -> float:
    """Largest resident memory of the process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main(sys.argv[1])

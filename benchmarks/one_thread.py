"""Import this before JAX: one thread, on one core where the system can pin, and quick compilation.

A test that imports a benchmark is not pinned, only the script that runs.
"""

import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
for library in ("OPENBLAS", "OMP"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from bilo_ppl.run.compilation import compile_quickly  # noqa: E402  # when threads are set

compile_quickly()

HERE = pathlib.Path(__file__).resolve().parent
if pathlib.Path(sys.argv[0]).resolve().parent == HERE and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

"""Set-up of the whole suite, and the small pretrained operator that many tests share."""

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# What the commands compile here is not for the user's cache folder.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
# The matrices are small: threads of the linear algebra library would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
# A shape that was broadcast by accident is an error, not another number.
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("bilo_ppl", "beartype.beartype")

from bilo_ppl.run.compilation import compile_quickly  # noqa: E402

# Tests compile much and run little.
compile_quickly(level=0)


@pytest.fixture(scope="module", autouse=True)
def _memory_ends_with_its_file():
    """Compiled functions go, and their memory goes back to the system.

    Every one holds maps of memory, of which Linux allows a process some 65 000; and the C library keeps
    what was freed, gigabytes after a few hundred compilations.
    """
    yield
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="session")
def small_problem():
    """D u'' = -pi^2 sin(pi x) at 21 collocation points; u = sin(pi x) / D."""
    import bilo_ppl as bilo
    from models import poisson

    class SmallPoisson(poisson.Poisson):
        points = bilo.interval(0.0, 1.0).grid(21)

    return SmallPoisson()


@pytest.fixture(scope="session")
def small_pretrained(small_problem):
    """Operator (width 16, float64) and report of a pretraining at D = 1 to a loss of 1e-8."""
    import bilo_ppl as bilo

    return bilo.pretrain(
        small_problem,
        {"D": 1.0},
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=1e-8, max_steps=200),
        width=16,
        dtype=np.float64,
        progress=False,
    )


@pytest.fixture(scope="session")
def small_operator(small_pretrained):
    """A local operator of `small_problem`, pretrained at D = 1."""
    return small_pretrained.operator


@pytest.fixture(scope="session")
def tuned(small_operator):
    """`small_operator`, fine-tuned to 1e-7 by Levenberg-Marquardt, gradient as in the papers."""
    import bilo_ppl as bilo

    solver = bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=30)
    return bilo.FineTuned(small_operator, solver, bilo.ResidualGradient())

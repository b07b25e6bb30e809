"""Rows over several devices, in processes that have them: their number is read when JAX starts."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bilo_ppl as bilo

HERE = Path(__file__).parent
QUICKLY = "--xla_backend_optimization_level=0"


def environment(devices):
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    flags = f"--xla_force_host_platform_device_count={devices} {QUICKLY}"
    path = os.pathsep.join([str(HERE.parents[1]), *sys.path])
    return mine | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


def test_rows_over_eight_devices():
    """See `eight_devices.py`."""
    command = ["-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", HERE / "eight_devices.py"]
    found = subprocess.run(
        [sys.executable, *command], env=environment(8), capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout


TWO_PROCESSES = """
import sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import bilo_ppl as bilo
from bilo_ppl.inner.fitting import fit
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily

assert (jax.process_count(), jax.local_device_count()) == (2, 2)
mesh = bilo.device_mesh()
assert mesh.size == 4

def data(w, item):
    return {"data": jnp.atleast_1d(w[0] * jnp.sin(w[1] * item[0]) + w[2] - item[1])}

start = jnp.array([1.0, 2.5, 0.0])
for count in (50, 2000):  # by all rows, and by parts
    x = np.linspace(-1, 1, count)
    items = (jnp.asarray(x), jnp.asarray(2 * np.sin(3 * x) + 0.5 + 0.1 * x**2))
    problem = LeastSquares((RowFamily(data, items, {}),))
    solver = bilo.LevenbergMarquardt(tolerance=1e-30, max_steps=8)
    found = [
        fit(solver, lambda _: problem, start, progress=False, label="", mesh=over)
        for over in (mesh, None)
    ]
    (many, report), (one, alone) = found
    np.testing.assert_allclose(many, one, rtol=1e-6)
    assert abs(report.loss / alone.loss - 1) < 1e-6
    assert many.is_fully_addressable
    print("weights", np.asarray(many).tolist())
"""


@pytest.mark.slow
def test_rows_over_two_processes():
    """As on two hosts: each has two of the four devices, and both end with the same weights."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        address = f"localhost:{taken.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, address, str(number)],
            env=environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    # Gloo, which connects them, prints too.
    weights = [re.findall(r"^weights (.*)$", out, re.MULTILINE) for out, _ in said]
    assert len(weights[0]) == 2
    assert weights[0] == weights[1]


def test_a_mesh_needs_devices():
    assert bilo.device_mesh().size >= 1
    with pytest.raises(ValueError, match="no devices"):
        bilo.device_mesh([])

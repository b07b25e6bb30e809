"""The warning of a forgotten condition, for problems with and without it."""

import jax
import pytest

import bilo_ppl as bilo
from bilo_ppl.operators.random_features import random_features
from bilo_ppl.run.checks import prepare
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.tolerance import prediction_error
from bilo_ppl.run.uniqueness import warn_unless_determined

HEATED = """
import jax, numpy as np, numpyro, numpyro.distributions as dist
import bilo_ppl as bilo

class Heated(bilo.Problem):
    parameters, components = ("r",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(101)
    def residual(self, u, x, theta):
        return theta["r"] * bilo.laplacian(u)(x) + SOURCE
    def lift(self, x, raw, theta):
        return LIFTED

problem, start = Heated(), {"r": 1.0}

def model(operator, x, y=None, sigma=0.01):
    u = bilo.solution("u", operator, {"r": numpyro.sample("r", dist.LogNormal(0.0, 1.0))})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)

def synthetic_data(seed):
    x = problem.domain.interior_grid(7)
    return {"x": x, "y": np.sin(np.pi * x[:, 0]) / 8, "sigma": 0.01}
"""

SMOOTH, SHARP = "1.0", "50 * jax.numpy.exp(-((x[0] - 0.5) / 0.03) ** 2 / 2)"
BOTH_ENDS, ONE_END = "x[0] * (1 - x[0]) * raw", "x[0] * raw"


class _Record(Record):
    def __init__(self):
        self.entries, self.alarms = {}, []

    def __setitem__(self, name, value):
        self.entries[name] = value

    def alarm(self, text):
        self.alarms.append(text)


@pytest.mark.parametrize(
    ("source", "lifted", "tolerance", "warned"),
    [
        (SMOOTH, BOTH_ENDS, 1e-6, False),
        (SMOOTH, ONE_END, 1e-6, True),
        # So loose that u may change by its own size, though both ends are given.
        (SHARP, BOTH_ENDS, 1e3, False),
    ],
)
def test_only_a_forgotten_condition_is_warned_of(tmp_path, source, lifted, tolerance, warned):
    file = tmp_path / "heated.py"
    file.write_text(HEATED.replace("SOURCE", source).replace("LIFTED", lifted))
    plan = prepare(SampleSettings(str(file), out=tmp_path / "run"), load_model(str(file)))
    local = random_features(
        plan.file.problem, plan.file.start, count=32, scale=2.0, key=jax.random.key(0)
    )
    operator = bilo.OutputLayer(local, plan.file.start, tolerance=tolerance)
    record = _Record()
    warn_unless_determined(plan, record, operator, prediction_error(plan))
    assert bool(record.alarms) is warned
    change = record.entries["undetermined"]["change"]
    assert change > 0.5 if warned or source == SHARP else change < 0.1

"""NumPyro's own algorithms on a model with a fine-tuned operator, and what an import brings in."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import numpyro.optim as optim
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import HMC, MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import bilo_ppl as bilo
from models import poisson

DATA = poisson.synthetic_data(seed=0)


@pytest.fixture(scope="module")
def operator(small_operator):
    """Rank 2, tolerance 1e-3: the relative error of u is below one per cent."""
    solver = bilo.LevenbergMarquardt(tolerance=1e-3, max_steps=30)
    adapted = small_operator.with_lora(2, key=jax.random.key(1))
    return bilo.FineTuned(adapted, solver, bilo.ResidualGradient())


@pytest.fixture(scope="module")
def on_grid():
    """Mean and standard deviation of D by quadrature of the closed form."""
    D = np.linspace(0.3, 4.0, 20001)
    mismatch = DATA["y"][:, None] - np.sin(np.pi * DATA["x"]) / D
    log = np.log(D) - D - 0.5 * np.sum(mismatch**2, axis=0) / DATA["sigma"] ** 2
    weight = np.exp(log - log.max())
    mean = np.sum(weight * D) / np.sum(weight)
    return mean, np.sqrt(np.sum(weight * (D - mean) ** 2) / np.sum(weight))


@pytest.mark.parametrize("kernel", [NUTS, HMC])
def test_mcmc_finds_the_posterior(kernel, operator, on_grid):
    options = {"trajectory_length": 1.5} if kernel is HMC else {}
    mcmc = MCMC(
        kernel(poisson.model, **options), num_warmup=100, num_samples=300, progress_bar=False
    )
    mcmc.run(jax.random.key(0), operator, **DATA)
    D = np.asarray(mcmc.get_samples()["D"])
    mean, sd = on_grid
    error = D.std() / np.sqrt(effective_sample_size(D[None]))
    assert error < 0.3 * sd
    np.testing.assert_allclose(D.mean(), mean, atol=4 * error + 0.01 * mean)
    np.testing.assert_allclose(D.std(), sd, rtol=0.25)


def test_predictive_from_posterior_samples(operator):
    D = np.array([0.8, 1.0, 1.25])
    draw = Predictive(poisson.model, posterior_samples={"D": D}, num_samples=3)
    y = jax.jit(lambda key: draw(key, operator, DATA["x"], sigma=1e-4)["y"])(jax.random.key(1))
    assert y.shape == (3, 11)
    np.testing.assert_allclose(y, np.sin(np.pi * DATA["x"][:, 0]) / D[:, None], atol=0.01)


def test_predictive_from_the_prior(operator):
    draw = Predictive(poisson.model, num_samples=4)
    sites = jax.jit(lambda key: draw(key, operator, DATA["x"], sigma=1e-4))(jax.random.key(2))
    assert sites["D"].shape == (4,)
    solved = np.isfinite(sites["y"]).all(axis=1)
    assert solved.sum() >= 3
    expected = np.sin(np.pi * DATA["x"][:, 0]) / np.asarray(sites["D"])[:, None]
    np.testing.assert_allclose(sites["y"][solved], expected[solved], rtol=0.02, atol=0.02)


def test_variational_inference(operator, on_grid):
    guide = AutoNormal(poisson.model)
    svi = SVI(poisson.model, guide, optim.Adam(0.05), Trace_ELBO())
    result = svi.run(jax.random.key(3), 200, operator, **DATA, progress_bar=False)
    assert np.isfinite(result.losses[-50:]).all()
    D = guide.sample_posterior(jax.random.key(4), result.params, sample_shape=(2000,))["D"]
    mean, sd = on_grid
    np.testing.assert_allclose(D.mean(), mean, atol=0.5 * sd)
    np.testing.assert_allclose(D.std(), sd, rtol=0.4)


def test_import_is_light_and_changes_no_setting():
    code = """
import sys
import jax
import bilo_ppl
heavy = {"arviz", "matplotlib", "pandas"} & set(sys.modules)
assert not heavy, heavy
assert not jax.config.jax_enable_x64
"""
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    environment.pop("JAX_ENABLE_X64", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

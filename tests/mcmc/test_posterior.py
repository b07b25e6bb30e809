"""Whole runs against exact posteriors: problems 0 and 1, plain and stateful kernels, tolerances."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler
from models import nonlinear_poisson, poisson

MODELS = {"poisson": poisson, "nonlinear_poisson": nonlinear_poisson}
THIRD_PARTY = (
    pathlib.Path(__file__).parents[3] / "shared" / "data" / "poisson_inverse_thirdparty.json"
)


@functools.cache
def case_of(name):
    """A model file with its data and its exact posterior."""
    case = MODELS[name]
    data = case.synthetic_data(0)
    exact = bilo.grid_posterior(
        case.model, case.reference_grid, case.reference(), data["x"], data["y"]
    )
    return case, data, exact


@functools.cache
def pretrained(name):
    case = MODELS[name]
    solver = bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=300)
    local, report = bilo.pretrain(
        case.problem, case.start, key=jax.random.key(0), solver=solver, progress=False
    )
    assert report.converged
    return local


@functools.cache
def adapted(name, tolerance=1e-6):
    """An operator adapted to the data, and the mass matrix that was found."""
    case, data, _ = case_of(name)
    local = pretrained(name).with_lora(4, key=jax.random.key(1))
    solver = bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=6)
    fine = bilo.FineTuned(local, solver, bilo.PartialDerivative())
    return bilo.adapt(case.model, jax.random.key(2), fine, data["x"], data["y"], progress=False)


def draw(kernel, args, samples, warmup=200):
    sampler = BlockSampler(
        kernel, args, chains=4, chain_method="sequential", warmup=warmup, block=100
    )
    sampler.start(jax.random.key(3))
    sampler.run(warmup, keep=False, progress=False, label="")
    sampler.run(samples, keep=True, progress=False, label="")
    draws = sampler.collected()
    return {**draws.samples, **draws.statistics}


def assert_exact(fields, exact, name):
    """Mean within 3 Monte-Carlo standard errors, sd within 5 %, mixed, no divergence."""
    found = bilo.distances(fields[name], exact, name)
    assert abs(found.mean_error) < 3
    assert abs(found.sd_error) < 0.05
    assert found.total_variation < 1.2 * found.total_variation_ess95
    assert chain_diagnostics(fields[name]).r_hat < 1.01
    assert not fields["diverging"].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_plain_nuts_on_an_adapted_operator_samples_the_exact_posterior(name):
    case, data, exact = case_of(name)
    operator, report, mass = adapted(name)
    assert report.ready
    assert report.fraction_ready >= 0.95
    kernel = NUTS(
        lambda x, y: case.model(operator, x, y),
        init_strategy=init_to_value(values=case.start),
        inverse_mass_matrix=jnp.asarray(mass),
        step_size=0.7,
    )
    fields = draw(kernel, (data["x"], data["y"]), samples=2000)
    assert_exact(fields, exact, next(iter(case.start)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", [bilo.BiLOHMC, bilo.BiLONUTS])
def test_stateful_kernels_sample_the_exact_posterior(name, kind):
    case, data, exact = case_of(name)
    # A long leap from the carried weights can need more steps than a pure solve should be given.
    solver = bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=100)
    local = pretrained(name).with_lora(4, key=jax.random.key(1))
    fine = bilo.FineTuned(local, solver, bilo.ImplicitDifferentiation())
    parameter = next(iter(case.start))
    sd = exact.sd(parameter) / exact.mean(parameter)
    options = {"trajectory_length": 1.5} if kind is bilo.BiLOHMC else {}
    kernel = kind(
        lambda x, y: case.model(fine, x, y),
        init_strategy=init_to_value(values=case.start),
        inverse_mass_matrix=jnp.array([sd**2]),
        step_size=0.5,
        target_accept_prob=0.9,
        **options,
    )
    fields = draw(kernel, (data["x"], data["y"]), samples=1500)
    assert_exact(fields, exact, parameter)


@pytest.mark.slow
def test_certificate_is_quiet_on_a_good_run_and_alarms_on_a_loose_one():
    case, data, exact = case_of("nonlinear_poisson")
    samples = {"k": exact.sample("k", 0, 400).reshape(4, 100)}
    args = (data["x"], data["y"])
    good = bilo.certify(case.model, samples, adapted("nonlinear_poisson").operator, *args)
    assert good.trustworthy, str(good)
    against_reference = bilo.certify(
        case.model,
        samples,
        adapted("nonlinear_poisson").operator,
        *args,
        reference=case.reference(),
    )
    assert against_reference.trustworthy, str(against_reference)
    assert abs(against_reference.means["k"][1] - exact.mean("k")) < 0.2 * exact.sd("k")
    local = pretrained("nonlinear_poisson").with_lora(4, key=jax.random.key(1))
    loose = bilo.FineTuned(
        local, bilo.LevenbergMarquardt(tolerance=1e-1, max_steps=6), bilo.PartialDerivative()
    )
    grid = {"k": np.linspace(0.5, 1.2, 281)}
    wrong = bilo.grid_posterior(case.model, grid, loose, *args).sample("k", 0, 400)
    for reference in (None, case.reference()):
        bad = bilo.certify(
            case.model, {"k": wrong.reshape(4, 100)}, loose, *args, reference=reference
        )
        assert bad.distorted
        assert "ALARM" in str(bad)


@pytest.mark.slow
def test_levenberg_marquardt_needs_few_steps_from_the_pretrained_weights():
    # Pretrained well below the tolerance.
    local, _ = bilo.pretrain(
        nonlinear_poisson.problem,
        nonlinear_poisson.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=2e-7, max_steps=300),
        progress=False,
    )
    local = local.with_lora(4, key=jax.random.key(1))
    solver = bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=20)
    fine = bilo.FineTuned(local, solver, bilo.ImplicitDifferentiation())
    solve = jax.jit(lambda k: fine.solve({"k": k}, fine.init_state())[2])
    for k in np.linspace(0.62, 0.74, 7):
        info = solve(k)
        assert info.converged
        assert info.steps <= 5, f"k = {k}: {info.steps} steps"


@pytest.mark.slow
@pytest.mark.skipif(not THIRD_PARTY.exists(), reason="third-party data not present")
def test_third_party_observations():
    content = json.loads(THIRD_PARTY.read_text())
    stated = content["derived_posterior_exact_f_exact_bc"]["log k~N(0,1)"]
    x, y = np.array(content["x_u"])[:, None], np.array(content["u_obs"])
    case = nonlinear_poisson
    exact = bilo.grid_posterior(case.model, case.reference_grid, case.reference(), x, y)
    assert abs(exact.mean("k") - stated["mean"]) < 1e-4
    assert abs(exact.sd("k") - stated["sd"]) < 1e-4

"""`sample_in_blocks` and `Draws`: the draws of NumPyro's own loop, interrupts, chain methods."""

import os
import signal
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC, NUTS, SA, init_to_value

import bilo_ppl as bilo
from bilo_ppl.mcmc import BlockSampler
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from models import poisson

X = np.linspace(0.1, 0.9, 5)[:, None]
Y = np.sin(np.pi * X[:, 0])
KEY = jax.random.key(5)
START = init_to_value(values={"D": 0.9})


class ClosedForm(AbstractSolutionOperator):
    """u = sin(pi x) / D, with the last D as state."""

    problem: Any = poisson.problem

    def init_state(self):
        return jnp.array(1.0)

    def solve(self, theta, state):
        fixed = jax.lax.stop_gradient(theta["D"])
        info = SolveInfo.of(jnp.array(1), jnp.array(0.0), fixed < 50)
        return lambda x: jnp.sin(jnp.pi * x[0]) / theta["D"], fixed, info


OPERATOR = ClosedForm()


def model(x, y=None, *, sigma=0.2):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", OPERATOR, {"D": D})
    numpyro.deterministic("rate", 1 / D)
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def sample(kernel, **options):
    options = {"num_warmup": 100, "num_samples": 60, "progress": False, **options}
    return bilo.sample_in_blocks(kernel, KEY, X, Y, sigma=0.1, **options)


@pytest.mark.parametrize("kind", [NUTS, bilo.BiLONUTS])
@pytest.mark.parametrize("method", ["sequential", "vectorized"])
def test_draws_are_those_of_numpyros_loop(kind, method):
    options = {"num_chains": 2, "chain_method": method}
    draws = sample(kind(model, init_strategy=START, step_size=0.1), **options)
    mcmc = MCMC(
        kind(model, init_strategy=START, step_size=0.1),
        num_warmup=100,
        num_samples=60,
        progress_bar=False,
        **options,
    )
    mcmc.run(KEY, X, Y, sigma=0.1, extra_fields=("potential_energy",))
    theirs = bilo.Draws.of(mcmc)
    assert set(draws.samples) == {"D", "rate"}
    for name, value in theirs.samples.items():
        assert draws.samples[name].shape == (2, 60)
        # Only our first evaluation is compiled.
        np.testing.assert_allclose(draws.samples[name], value, rtol=1e-5)
    np.testing.assert_allclose(
        draws.statistics["potential_energy"], theirs.statistics["potential_energy"], rtol=1e-4
    )
    assert theirs.args == draws.args
    assert theirs.kwargs == draws.kwargs == {"sigma": 0.1}
    assert theirs.model is draws.model is model
    ours, idata = bilo.to_arviz(draws), bilo.to_arviz(mcmc)
    np.testing.assert_array_equal(ours["observed_data"]["y"], idata["observed_data"]["y"])
    np.testing.assert_allclose(ours["posterior"]["D"], idata["posterior"]["D"], rtol=1e-5)


@pytest.mark.parametrize("kind", [NUTS, bilo.BiLONUTS])
def test_a_kernel_can_be_used_again(kind):
    kernel = kind(model, init_strategy=START, step_size=0.1)
    first = sample(kernel, num_chains=2, chain_method="vectorized").samples["D"]
    again = sample(kernel, num_chains=2, chain_method="vectorized").samples["D"]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(sample(kernel, num_chains=2).samples["D"], first, rtol=1e-5)


def test_draws_are_read_as_from_numpyro():
    samples = {"a": np.arange(12.0).reshape(2, 3, 2)}
    draws = bilo.Draws(None, (), {}, samples, {"diverging": np.zeros((2, 3), bool)})
    assert bilo.Draws.of(draws) is draws
    assert draws.get_samples(group_by_chain=True)["a"].shape == (2, 3, 2)
    np.testing.assert_array_equal(draws.get_samples()["a"], samples["a"].reshape(6, 2))
    assert draws.get_extra_fields()["diverging"].shape == (6,)


def interrupt_block(monkeypatch, number):
    """Raise SIGINT in a block of transitions, counted from 1; lengths of the blocks so far."""
    compiled, lengths = BlockSampler._compiled, []

    def interrupting(self):
        many = compiled(self)

        def block(state, length):
            lengths.append(length)
            if len(lengths) == number:
                signal.raise_signal(signal.SIGINT)
            return many(state, length)

        return block

    monkeypatch.setattr(BlockSampler, "_compiled", interrupting)
    return lengths


def test_ctrl_c_keeps_the_draws_there_are(monkeypatch):
    kernel = NUTS(model, init_strategy=START, step_size=0.1)
    whole = sample(kernel, num_warmup=1, num_chains=2)
    lengths = interrupt_block(monkeypatch, 3)
    saved = []
    part = sample(kernel, num_warmup=1, num_chains=2, save=saved.append)
    kept = sum(lengths[1:])
    assert len(lengths) == 3
    assert part.samples["D"].shape == (2, kept)
    np.testing.assert_array_equal(part.samples["D"], whole.samples["D"][:, :kept])
    (last,) = saved
    np.testing.assert_array_equal(last.samples["D"], part.samples["D"])


def test_ctrl_c_in_warmup_leaves_nothing_to_keep(monkeypatch):
    interrupt_block(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        sample(NUTS(model, init_strategy=START))


def test_progress_is_a_line_for_each_stage(capsys):
    draws = sample(HMC(model, init_strategy=START, step_size=0.1), num_warmup=20, progress=True)
    warmup, sampling = capsys.readouterr().err.splitlines()
    assert warmup.startswith("warm-up: 20 transitions, acceptance ")
    # Warm-up does not count in it.
    accepted = draws.statistics["accept_prob"].mean()
    assert sampling.startswith(f"sampling: 60 draws, acceptance {accepted:.2f}, ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples=0; the least is 1"),
        ({"num_warmup": -1}, "warmup=-1; the least is 0"),
        ({"num_chains": 0}, "chains=0; the least is 1"),
        ({"chain_method": "pmap"}, "chain_method is 'pmap'; it must be one of sequential"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        sample(NUTS(model), **options)


def test_kernels_that_cannot_run_in_blocks():
    with pytest.raises(ValueError, match="SA: in blocks run HMC and NUTS"):
        sample(SA(model))
    with pytest.raises(ValueError, match="each with a model"):
        sample(NUTS(potential_fn=lambda z: z**2))
    with pytest.raises(ValueError, match="find_heuristic_step_size is not possible in blocks"):
        sample(NUTS(model, find_heuristic_step_size=True))
    found = sample(
        bilo.BiLONUTS(model, init_strategy=START, find_heuristic_step_size=True), num_warmup=20
    )
    assert found.samples["D"].shape == (1, 60)


def test_there_are_no_draws_before_there_are_some():
    sampler = BlockSampler(
        NUTS(model), (X, Y), chains=1, chain_method="sequential", warmup=1, block=1
    )
    with pytest.raises(ValueError, match="no draws yet"):
        sampler.collected()


PARALLEL = """
import jax, numpy as np, test_sampling as t
assert jax.local_device_count() == 2
for kind in (t.NUTS, t.bilo.BiLONUTS):
    for chains in (2, 3, 4):
        found = [
            t.sample(kind(t.model, init_strategy=t.START, step_size=0.1), num_chains=chains,
                     chain_method=method)
            for method in ("parallel", "sequential")
        ]
        np.testing.assert_array_equal(*(draws.samples["D"] for draws in found))
        assert found[0].samples["D"].shape == (chains, 60)
traces = []
def counted(*args, **kwargs):
    traces.append(None)
    t.model(*args, **kwargs)
sampler = t.BlockSampler(t.NUTS(counted, init_strategy=t.START), (t.X, t.Y), chains=2,
                         chain_method="parallel", warmup=20, block=5)
sampler.start(t.KEY)
options = {"keep": False, "progress": False, "label": ""}
sampler.run(5, **options)
before = len(traces)
sampler.run(20, **options)
assert len(traces) == before
assert {d.id for d in sampler.state.z["D"].sharding.device_set} == {0, 1}
"""


@pytest.mark.slow
def test_parallel_chains_are_the_sequential_ones():
    here = os.path.dirname(__file__)
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join([here, os.path.join(here, "..", ".."), *sys.path]),
    }
    subprocess.run([sys.executable, "-c", PARALLEL], env=environment, check=True)

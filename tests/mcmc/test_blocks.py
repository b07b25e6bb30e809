"""Chains in blocks: their starts, and that neither memory nor compilations grow with the draws."""

import gc
import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, NUTS, init_to_sample

import bilo_ppl as bilo
from bilo_ppl.mcmc import BlockSampler, init_near
from bilo_ppl.mcmc.initial_position import JITTER
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from models import poisson

TRACES = {"count": 0}
SIGMA = 0.2


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
X = np.linspace(0.1, 0.9, 5)[:, None]
Y = np.sin(np.pi * X[:, 0])


def model(x, y):
    TRACES["count"] += 1
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", OPERATOR, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), SIGMA), obs=y)


def sampler(kind, method="sequential", chains=3, block=50, **options):
    options = {"init_strategy": init_near({"D": 0.9}), "step_size": 0.3, **options}
    made = BlockSampler(
        kind(model, **options), (X, Y), chains=chains, chain_method=method, warmup=40, block=block
    )
    made.start(jax.random.key(0))
    return made


def run(made, count, keep=True):
    return made.run(count, keep=keep, progress=False, label="")


@pytest.mark.parametrize("kind", [NUTS, bilo.BiLONUTS])
def test_every_chain_has_a_start_of_its_own_with_its_own_energy(kind):
    made = sampler(kind)
    z = np.asarray(made.state.z["D"])
    assert len(np.unique(z)) == 3
    np.testing.assert_allclose(z, np.log(0.9), atol=5 * JITTER)
    D = np.exp(z)
    mismatch = Y - np.sin(np.pi * X[:, 0]) / D[:, None]
    energy = -(np.log(D) - D) - z + 0.5 * np.sum(mismatch**2, axis=1) / SIGMA**2
    constant = np.asarray(made.state.potential_energy) - energy
    np.testing.assert_allclose(constant, constant[0], atol=1e-10)
    data = np.sum(mismatch * (np.sin(np.pi * X[:, 0]) / D[:, None]), axis=1) / SIGMA**2
    np.testing.assert_allclose(made.state.z_grad["D"], -(1 - D) - 1 + data, rtol=1e-9)
    run(made, 40, keep=False)
    run(made, 60)
    draws = made.collected().samples["D"]
    assert draws.shape == (3, 60)
    assert len(np.unique(draws[:, 0])) == 3


def test_starts_at_the_prior_differ_too():
    made = sampler(NUTS, init_strategy=init_to_sample)
    assert np.ptp(made.state.z["D"]) > 0.1


@pytest.mark.parametrize("kind", [NUTS, bilo.BiLONUTS])
def test_a_chain_without_a_valid_start_is_named(kind):
    class Nowhere(ClosedForm):
        def solve(self, theta, state):
            u, state, info = super().solve(theta, state)
            return u, state, SolveInfo.of(info.steps, info.loss, theta["D"] < 0.9)

    def narrow(x, y):
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        u = bilo.solution("u", Nowhere(), {"D": D})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), SIGMA), obs=y)

    made = BlockSampler(
        kind(narrow, init_strategy=init_near({"D": 0.9})),
        (X, Y),
        chains=5,
        chain_method="sequential",
        warmup=10,
        block=10,
    )
    with pytest.raises(ValueError, match=r"chain cannot start at .*D.*chain [0-4]"):
        made.start(jax.random.key(0))


@pytest.mark.parametrize("kind", [NUTS, bilo.BiLONUTS])
def test_nothing_is_traced_again_and_memory_stays_flat_over_ten_thousand_draws(kind):
    made = sampler(kind, chains=1, block=500, max_tree_depth=3)
    run(made, 40, keep=False)
    run(made, 1000, keep=False)
    traces = TRACES["count"]
    gc.collect()
    arrays = len(jax.live_arrays())
    tracemalloc.start()
    try:
        run(made, 5000, keep=False)
        gc.collect()
        half, _ = tracemalloc.get_traced_memory()
        run(made, 5000, keep=False)
        gc.collect()
        end, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert TRACES["count"] == traces
    assert len(jax.live_arrays()) <= arrays
    assert end - half < 100_000, "ten bytes a draw would be 50 000"


def test_only_the_draws_are_kept():
    made = sampler(NUTS, chains=2, block=500, max_tree_depth=3)
    run(made, 40, keep=False)
    run(made, 2000)
    gc.collect()
    held = jax.tree.leaves(made.draws)
    assert not any(isinstance(leaf, jax.Array) for leaf in held)
    # A draw has one parameter and five statistics of at most eight bytes.
    assert sum(leaf.nbytes for leaf in held) <= 2 * 2000 * 7 * 8
    assert made.collected().samples["D"].shape == (2, 2000)


@pytest.mark.parametrize(
    "options", [{"num_steps": 2, "trajectory_length": None}, {"trajectory_length": 1.5}]
)
def test_the_first_transition_is_the_only_one_that_is_compiled(options):
    """A fixed number of steps makes NumPyro's state weakly typed after a transition."""
    made = sampler(HMC, chains=2, **options)
    run(made, 1, keep=False)
    traces = TRACES["count"]
    run(made, 30)
    assert TRACES["count"] == traces

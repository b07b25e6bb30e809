"""Two stages against Gaussian posteriors that can be written down."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl.mcmc import predicted_acceptance, sample_in_blocks
from bilo_ppl.mcmc.second_stage import walks_at
from models import poisson

pytestmark = pytest.mark.filterwarnings("ignore:There are not enough devices")

SIGMA, Y = 0.5, 0.8
X = jnp.array([0.5])


def linear(slope, shift, valid=None):
    """An operator with u = slope D + shift: with a Gaussian prior the posterior is Gaussian."""
    return bilo.ClosedForm(poisson.problem, lambda x, theta: slope * theta["D"] + shift, valid)


CHEAP, DEAR = linear(1.0, 0.0), linear(0.85, 0.2)
SPLIT = linear(1.0, 0.0, lambda theta: theta["D"] < 1.0)
"""The cheap one, but that it cannot solve for D above 1."""


def model(operator):
    D = numpyro.sample("D", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.deterministic("u at x", u(X))
    numpyro.sample("y", dist.Normal(u(X), SIGMA), obs=jnp.array(Y))


def posterior(slope, shift):
    """Mean and standard deviation: precision 1 + slope^2 / sigma^2."""
    precision = 1 + slope**2 / SIGMA**2
    return slope * (Y - shift) / SIGMA**2 / precision, precision**-0.5


MEAN, SD = posterior(0.85, 0.2)
START = init_to_value(values={"D": 0.3})


def two_stage(operators=DEAR, walk_share=0.1, transitions=3, **options):
    options = {"trajectory_length": 1.5, "step_size": 0.3, "init_strategy": START, **options}
    return bilo.TwoStage(
        HMC(model, **options), operators, transitions=transitions, walk_share=walk_share
    )


def sample(kernel, cheap=CHEAP, **options):
    options = {"num_warmup": 100, "num_samples": 2000, "num_chains": 2, **options}
    return sample_in_blocks(kernel, jax.random.key(0), cheap, progress=False, **options)


def one_transition(cheap, count=10_000, **options):
    """Draws from the exact posterior, and where one transition takes each of them."""
    kernel = two_stage({"u": DEAR}, adapt_step_size=False, adapt_mass_matrix=False, **options)
    before = MEAN + SD * np.random.default_rng(1).normal(size=count)
    keys = jax.random.split(jax.random.key(2), count)
    state = kernel.init(keys, 0, {"D": jnp.asarray(before)}, (cheap,))
    after = jax.jit(lambda s: kernel.sample(s, (cheap,)))(state)
    return before, np.asarray(after.z["D"]), after


def z_score(values):
    return values.mean() / (values.std() / math.sqrt(len(values)))


@pytest.fixture(scope="module")
def sequential():
    return sample(two_stage())


@pytest.mark.parametrize("walk_share", [0.0, 0.99])
def test_a_transition_leaves_the_exact_posterior_and_is_reversible(walk_share):
    # With 0.99 the first transition of a chain is one on V, the second a step of the random walk.
    before, after, state = one_transition(CHEAP, walk_share=walk_share)
    assert abs(z_score(after - MEAN)) < 4
    assert abs(z_score((after - MEAN) ** 2 - SD**2)) < 4
    assert abs(z_score(before * after**2 - before**2 * after)) < 4
    assert np.mean(before != after) > 0.5
    assert not state.walked.any()


def test_steps_of_the_random_walk_leave_the_exact_posterior_and_are_reversible():
    # Half of the draws: the second of each pair.
    kernel = two_stage({"u": DEAR}, 0.5, adapt_step_size=False, adapt_mass_matrix=False)
    count = 10_000
    before = MEAN + SD * np.random.default_rng(1).normal(size=count)
    keys = jax.random.split(jax.random.key(2), count)
    state = kernel.init(keys, 0, {"D": jnp.asarray(before)}, (SPLIT,))
    state = state._replace(i=state.i + 1)
    state = jax.jit(lambda s: kernel.sample(s, (SPLIT,)))(state)
    after = np.asarray(state.z["D"])
    assert state.walked.all()
    assert abs(z_score(after - MEAN)) < 4
    assert abs(z_score((after - MEAN) ** 2 - SD**2)) < 4
    assert abs(z_score(before * after**2 - before**2 * after)) < 4
    np.testing.assert_array_equal(np.isinf(state.first_energy), after >= 1)
    assert 0.2 < np.mean(before != after) < 0.8


def test_a_first_stage_that_is_infinite_somewhere_is_right_where_it_is_finite():
    before, after, _ = one_transition(SPLIT, walk_share=0.0)
    # From beyond it never comes back, and never goes there.
    assert (after[before >= 1] == before[before >= 1]).all()
    assert (after[before < 1] < 1).all()
    inside = before < 1
    assert abs(z_score(after[inside] ** 2 - before[inside] ** 2)) < 4


def assert_exact(draws, mean=MEAN, sd=SD):
    values = np.asarray(draws.samples["D"])
    effective = bilo.diagnostics.results.chain_diagnostics(values).ess_bulk
    assert effective > 200
    assert abs(values.mean() - mean) < 4 * sd / math.sqrt(effective)
    assert abs(values.std() / sd - 1) < 4 / math.sqrt(2 * effective)


def test_the_draws_have_the_posterior_of_the_second_operator(sequential):
    assert_exact(sequential)
    # Without the second stage they would not.
    assert abs(posterior(1.0, 0.0)[0] - MEAN) > 0.2 * SD


def test_deterministic_sites_are_those_of_the_second_operator(sequential):
    np.testing.assert_allclose(
        sequential.samples["u at x"], 0.85 * sequential.samples["D"] + 0.2, rtol=1e-6
    )


def test_energies_are_those_of_both_operators(sequential):
    D, found = sequential.samples["D"], sequential.statistics

    def energy(slope, shift):
        misfit = (Y - slope * D - shift) / SIGMA
        return 0.5 * (D**2 + misfit**2) + math.log(2 * math.pi * SIGMA)

    np.testing.assert_allclose(found["potential_energy"], energy(0.85, 0.2), rtol=1e-6)
    np.testing.assert_allclose(found["first_energy"], energy(1.0, 0.0), rtol=1e-6)


def test_acceptances_are_summed_up_and_as_predicted(sequential):
    found = bilo.stage_acceptance(sequential.statistics)
    assert (found.draws, found.walks) == (4000, 400)
    assert 0.9 < found.first <= 1
    # The prediction is for a Gaussian difference and independent proposals.
    assert abs(found.second - found.predicted) < 0.05
    assert 0.2 < found.walk < 0.7
    # One solve a draw at most, none where nothing moved.
    assert set(np.unique(sequential.statistics["second_solves"])) <= {0, 1}
    assert 0.9 * found.draws < found.solves <= found.draws
    assert "predicted" in str(found)
    with pytest.raises(ValueError, match=r"no statistics .*first_energy"):
        bilo.stage_acceptance({"potential_energy": 0.0})


def test_the_predicted_acceptance():
    for spread, value in ((0.1, 0.94), (0.5, 0.72), (1.0, 0.48)):
        assert abs(predicted_acceptance(spread) - value) < 0.005
    # By sampling: U - V of independent draws from V, with U - V Gaussian.
    s, rng = 0.7, np.random.default_rng(0)
    new, old = s * rng.normal(size=200_000), -(s**2) + s * rng.normal(size=200_000)
    assert abs(np.minimum(1, np.exp(old - new)).mean() - predicted_acceptance(s)) < 0.005


def test_what_the_first_stage_cannot_solve_is_reached_by_the_walk():
    # No step size has the acceptance that adaptation aims at, where a fifth of all ends is beyond.
    draws = sample(two_stage(walk_share=0.3, adapt_step_size=False), SPLIT, num_samples=4000)
    assert_exact(draws)
    beyond = float((draws.samples["D"] >= 1).mean())
    expected = 0.5 * math.erfc((1 - MEAN) / SD / math.sqrt(2))
    assert abs(beyond - expected) < 0.4 * expected
    assert bilo.stage_acceptance(draws.statistics).beyond == (draws.samples["D"] >= 1).sum()


def test_warm_up_asks_the_second_operator_once_and_adapts_as_hmc_does():
    options = {"trajectory_length": 1.5, "step_size": 0.3, "init_strategy": START}
    kernel = two_stage(**options)
    state = kernel.init(jax.random.key(4), 20, None, (CHEAP,))
    hmc = HMC(model, **options)
    alone = hmc.init(jax.random.split(jax.random.key(4))[1], 20, None, (CHEAP,), {})
    np.testing.assert_array_equal(alone.z["D"], state.z["D"])
    step = jax.jit(lambda s: kernel.sample(s, (CHEAP,)))
    assert state.adapt_state.step_size == 0.3
    solves = []
    for _ in range(25):
        state = step(state)
        solves.append(int(state.second_solves))
    assert solves[:20] == [0] * 19 + [1]
    assert sum(solves[20:]) >= 1
    assert state.adapt_state.step_size != 0.3
    assert np.isfinite(state.potential_energy)


@pytest.mark.parametrize("method", ["vectorized", pytest.param("parallel", marks=pytest.mark.slow)])
def test_chains_side_by_side_draw_the_same(sequential, method):
    draws = sample(two_stage(), chain_method=method, num_samples=200)
    for name, values in draws.samples.items():
        np.testing.assert_allclose(values, sequential.samples[name][:, :200], rtol=1e-9)
    for name in ("walked", "second_accept_prob", "num_steps"):
        np.testing.assert_allclose(
            draws.statistics[name], sequential.statistics[name][:, :200], rtol=1e-9
        )


@pytest.mark.parametrize(
    "method", [pytest.param("sequential", marks=pytest.mark.slow), "vectorized"]
)
def test_it_is_a_kernel_for_numpyro(method):
    mcmc = MCMC(
        two_stage(),
        num_warmup=100,
        num_samples=1500,
        num_chains=2,
        chain_method=method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), CHEAP)
    assert_exact(bilo.Draws.of(mcmc))
    idata = bilo.to_arviz(mcmc, model_args=(CHEAP,))
    stats = idata["sample_stats"]
    assert {"first_energy", "second_accept_prob", "walked", "second_solves"} <= set(stats.data_vars)
    np.testing.assert_allclose(-stats["lp"], mcmc.get_extra_fields(True)["potential_energy"])


def test_a_run_that_was_interrupted_goes_on_with_the_same_draws(tmp_path, sequential):
    file = tmp_path / "draws.bin"
    sample(two_stage(), num_samples=60, save=file)
    draws = sample(two_stage(), num_samples=150, save=file, resume=True)
    np.testing.assert_array_equal(draws.samples["D"], sequential.samples["D"][:, :150])
    for name, values in draws.statistics.items():
        np.testing.assert_array_equal(values, sequential.statistics[name][:, :150], err_msg=name)


def test_the_walk_takes_its_share_of_the_turns():
    turns = np.array([bool(walks_at(i, 0.25)) for i in range(12)])
    assert turns.tolist() == ([False] * 3 + [True]) * 3
    assert not any(walks_at(i, 0.0) for i in range(10))


def test_what_will_not_do_is_refused():
    with pytest.raises(ValueError, match=r"reversible.*NUTS"):
        bilo.TwoStage(NUTS(model), DEAR)
    with pytest.raises(ValueError, match=r"BiLOHMC; it must be a numpyro.infer.HMC"):
        bilo.TwoStage(bilo.BiLOHMC(model), DEAR)
    with pytest.raises(ValueError, match="give HMC a model"):
        bilo.TwoStage(HMC(potential_fn=lambda z: z**2), DEAR)
    with pytest.raises(ValueError, match="walk_share=1"):
        two_stage(walk_share=1.0)
    with pytest.raises(ValueError, match="transitions=0"):
        two_stage(transitions=0)
    with pytest.raises(
        ValueError, match=r"sites \['v'\]; the solution sites of the model are \['u'\]"
    ):
        sample(two_stage({"v": DEAR}))
    nowhere = linear(1.0, 0.0, lambda theta: theta["D"] > 1e9)
    with pytest.raises(ValueError, match="second energy is not finite where chain 0 starts"):
        sample(two_stage(nowhere), num_warmup=0)

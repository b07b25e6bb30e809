"""The stateful kernels, against closed forms, NumPyro's own kernels, and counts made by hand."""

import inspect
import itertools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import HMC, MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl.mcmc import BiLOHMC, BiLONUTS, BiLOState, _numpyro
from bilo_ppl.mcmc.chain import Adaptation, Chain, Settings
from bilo_ppl.mcmc.integrator import potential_value
from bilo_ppl.mcmc.kinetic import bounded_below, kinetic_energy
from bilo_ppl.mcmc.transitions import MAX_DELTA_ENERGY, FixedLength, NoUTurn
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.ppl.potential import PotentialInfo
from bilo_ppl.run.sample.kernel import make_kernel
from bilo_ppl.run.sample.settings import SampleSettings

pytestmark = pytest.mark.filterwarnings("ignore:There are not enough devices")

X = np.linspace(0.0, 1.0, 11)[:, None]
SIGMA = 0.2
Y = np.sin(np.pi * X[:, 0]) + SIGMA * np.random.default_rng(0).normal(size=len(X))
VISITS: list[tuple[float, float, int]] = []
"""(theta at which the start state was made, theta solved at, inner steps), by `Remembering`."""


class Poisson(bilo.Problem):
    parameters = ("D",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(5)

    def residual(self, u, x, theta):
        return theta["D"] * bilo.laplacian(u)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])


class ClosedForm(AbstractSolutionOperator):
    """u = sin(pi x) / D. The state is the last D and the number of solves; D > bound fails."""

    problem: Any = Poisson()
    bound: float = np.inf
    drift: float = 0.0
    """Error of the solution per distance from the last D, as a loose tolerance leaves."""
    log: bool = False

    def init_state(self):
        return {"last": jnp.array(1.0), "solves": jnp.array(0)}

    def solve(self, theta, state):
        D = theta["D"]
        fixed = jax.lax.stop_gradient(D)
        distance = jnp.abs(fixed - state["last"])
        steps = 1 + jnp.ceil(10 * jnp.minimum(distance, 1e3)).astype(int)
        if self.log:
            jax.debug.callback(_note, state["last"], fixed, steps)
        scale = 1 + self.drift * distance
        info = SolveInfo.of(steps, 1e-6 * distance, fixed <= self.bound)
        state = {"last": fixed, "solves": state["solves"] + 1}
        return (lambda x: scale * jnp.sin(jnp.pi * x[0]) / D), state, info


def _note(last, now, steps):
    VISITS.append((float(last), float(now), int(steps)))


def model(operator, y=Y):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(X), SIGMA), obs=y)


def correlated(operator):
    """Two parameters of which the data see the product: a curved ridge, made Gaussian by priors."""
    D = numpyro.sample("D", dist.Normal(1.0, 0.3))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": 1.0 + 0.0 * D})
    numpyro.sample("y", dist.Normal(D + b, 0.1), obs=u(jnp.array([0.5])))


def start_at(value):
    return init_to_value(values={"D": value})


def on_grid():
    """Mean and standard deviation of D by quadrature."""
    D = np.linspace(0.2, 6.0, 20001)
    mismatch = Y[:, None] - np.sin(np.pi * X) / D
    log = np.log(D) - D - 0.5 * np.sum(mismatch**2, axis=0) / SIGMA**2
    weight = np.exp(log - log.max())
    mean = np.sum(weight * D) / np.sum(weight)
    return mean, np.sqrt(np.sum(weight * (D - mean) ** 2) / np.sum(weight))


def run(kernel, *args, warmup=300, samples=500, seed=0, fields=(), **options):
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=samples, progress_bar=False, **options)
    mcmc.run(jax.random.PRNGKey(seed), *args, extra_fields=fields)
    return mcmc


def transitions(kernel, operator, number, seed=0, warmup=0):
    """States of a chain, one transition at a time."""
    state = kernel.init(jax.random.PRNGKey(seed), warmup, model_args=(operator,))
    step = jax.jit(lambda s: kernel.sample(s, (operator,), {}))
    states = [state]
    for _ in range(number):
        states.append(step(states[-1]))
    return states


# The contract


def test_internals_of_numpyro_are_as_expected():
    _numpyro.check_contract()


def test_broken_contract_names_the_version(monkeypatch):
    where = ("infer.hmc_util", "IntegratorState")
    monkeypatch.setitem(_numpyro._FIELDS, where, ("z", "p"))
    with pytest.raises(
        ImportError, match=rf"{numpyro.__version__}.*IntegratorState has the fields"
    ):
        _numpyro.check_contract()


def test_versions_outside_the_tested_range(monkeypatch):
    monkeypatch.setattr(numpyro, "__version__", "0.23.0")
    with pytest.warns(RuntimeWarning, match="tested with NumPyro 0.21 to 0.22"):
        _numpyro.check_contract()
    monkeypatch.setattr(numpyro, "__version__", "0.20.1")
    with pytest.raises(ImportError, match="too old"):
        _numpyro.check_contract()


def test_keyword_arguments_are_numpyros():

    for ours, theirs in ((BiLOHMC, HMC), (BiLONUTS, NUTS)):
        ours_ = {k: p.default for k, p in inspect.signature(ours).parameters.items()}
        theirs_ = {k: p.default for k, p in inspect.signature(theirs).parameters.items()}
        assert ours_.pop("accept_unconverged") is False
        if ours is BiLOHMC:
            assert ours_.pop("learn_in_warmup") is False
        assert list(ours_.items()) == list(theirs_.items())
    assert BiLOState._fields[:13] == numpyro.infer.hmc.HMCState._fields


# The law


@pytest.mark.parametrize(
    "kernel", [BiLONUTS(model), BiLOHMC(model, trajectory_length=2.0)], ids=["nuts", "hmc"]
)
def test_posterior_is_the_one_dimensional_integral(kernel):
    mcmc = run(kernel, ClosedForm(), warmup=500, samples=6000)
    D = np.asarray(mcmc.get_samples()["D"])
    mean, sd = on_grid()
    error = sd / np.sqrt(min(float(effective_sample_size(D[None])), len(D)))
    assert abs(D.mean() - mean) < 3 * error
    assert abs(D.std() / sd - 1) < 0.05


PAIRS = {
    "nuts": (BiLONUTS, NUTS, model, {}),
    "hmc-length": (BiLOHMC, HMC, model, {"trajectory_length": 1.5}),
    "hmc-steps": (
        BiLOHMC,
        HMC,
        model,
        {"num_steps": 5, "trajectory_length": None, "adapt_step_size": False, "step_size": 0.05},
    ),
    "depths": (BiLONUTS, NUTS, model, {"max_tree_depth": (2, 4), "target_accept_prob": 0.9}),
    "fixed": (BiLONUTS, NUTS, model, {"adapt_step_size": False, "step_size": 0.3}),
    "forward": (BiLONUTS, NUTS, model, {"forward_mode_differentiation": True}),
    "dense": (BiLONUTS, NUTS, correlated, {"dense_mass": True}),
    "blocks": (BiLONUTS, NUTS, correlated, {"dense_mass": [("b", "D")]}),
    "given": (
        BiLOHMC,
        HMC,
        correlated,
        {"inverse_mass_matrix": np.diag([0.1, 0.9]), "dense_mass": True, "trajectory_length": 2.0},
    ),
    "start": (BiLONUTS, NUTS, model, {"init_strategy": start_at(1.3)}),
}


FAST = ("nuts", "hmc-length")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in PAIRS]
)
def test_draws_are_numpyros_for_an_operator_without_memory(name):
    ours, theirs, f, options = PAIRS[name]
    fields = ("num_steps", "accept_prob", "mean_accept_prob", "energy", "adapt_state.step_size")
    # Only our first evaluation is compiled, and adaptation amplifies a rounding error.
    length = {"warmup": 160, "samples": 100} if name in FAST else {"warmup": 25, "samples": 10}
    mine = run(ours(f, **options), ClosedForm(), fields=fields, **length)
    numpyros = run(theirs(f, **options), ClosedForm(), fields=fields, **length)
    for site, value in numpyros.get_samples().items():
        np.testing.assert_allclose(mine.get_samples()[site], value, rtol=1e-8, atol=1e-8)
    for field, value in numpyros.get_extra_fields().items():
        np.testing.assert_allclose(mine.get_extra_fields()[field], value, rtol=1e-6, atol=1e-8)


def test_dense_mass_matrix_finds_the_correlation():
    mcmc = run(BiLONUTS(correlated, dense_mass=True), ClosedForm(), warmup=600, samples=3000)
    draws = np.stack([mcmc.get_samples()[name] for name in ("D", "b")])
    precision = np.diag([1 / 0.3**2, 1.0]) + 1 / 0.1**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ np.array([1 / 0.3**2 + 100, 100])
    np.testing.assert_allclose(draws.mean(1), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(draws), covariance, rtol=0.2)
    (block,) = mcmc.last_state.adapt_state.inverse_mass_matrix.values()
    np.testing.assert_allclose(block, covariance, rtol=0.35)


# The solver state


@pytest.mark.parametrize(
    "kernel",
    [
        BiLOHMC(model, num_steps=1, trajectory_length=None, step_size=0.2, adapt_step_size=False),
        BiLONUTS(model, max_tree_depth=1, step_size=0.2, adapt_step_size=False),
    ],
    ids=["hmc", "nuts"],
)
def test_rejection_rolls_the_state_back(kernel):
    states = transitions(kernel, ClosedForm(drift=0.1), 200)[100:]
    kept = [b.z["D"] == a.z["D"] for a, b in itertools.pairwise(states)]
    assert 5 < sum(kept) < 95
    for before, after, same in zip(states[:-1], states[1:], kept, strict=True):
        old, new = before.solver_state["u"], after.solver_state["u"]
        if same:
            assert before.potential_energy == after.potential_energy
            assert before.inner_loss == after.inner_loss
            assert before.z_grad["D"] == after.z_grad["D"]
            assert jax.tree.map(float, old) == jax.tree.map(float, new)
        else:
            assert new["solves"] > old["solves"]
        np.testing.assert_allclose(new["last"], np.exp(after.z["D"]), rtol=1e-12)


def test_learning_keeps_the_state_of_rejected_trajectories_in_warmup_only():
    kernel = BiLOHMC(
        model,
        num_steps=1,
        trajectory_length=None,
        step_size=0.2,
        adapt_step_size=False,
        learn_in_warmup=True,
    )
    states = transitions(kernel, ClosedForm(drift=0.1), 200, warmup=100)
    rejected = {True: 0, False: 0}
    for number, (before, after) in enumerate(itertools.pairwise(states)):
        if before.z["D"] != after.z["D"]:
            continue
        learning = number < 100
        rejected[learning] += 1
        assert before.potential_energy == after.potential_energy
        old, new = before.solver_state["u"], after.solver_state["u"]
        assert (new["solves"] > old["solves"]) == learning
        assert (new["last"] != old["last"]) == learning
    assert min(rejected.values()) > 5


def recorded(states_of):
    VISITS.clear()
    states = states_of()
    jax.effects_barrier()
    return states, list(VISITS)


@pytest.mark.parametrize("step_size", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("kind", ["hmc", "nuts"])
def test_inner_steps_are_counted_exactly(kind, step_size):
    options = {"step_size": step_size, "adapt_step_size": False, "init_strategy": start_at(1.2)}
    if kind == "nuts":
        kernel = BiLONUTS(model, max_tree_depth=5, **options)
    else:
        kernel = BiLOHMC(model, num_steps=7, trajectory_length=None, **options)
    states, visits = recorded(lambda: transitions(kernel, ClosedForm(log=True, bound=1.25), 25))
    totals = []
    first = int(states[0].inner_steps)
    counts = [steps for *_, steps in visits]
    assert counts.pop(0) == first
    for state in states[1:]:
        number = int(state.num_steps)
        totals.append(sum(counts[:number]))
        counts = counts[number:]
    assert not counts
    assert [int(s.inner_steps) for s in states[1:]] == totals


def test_each_edge_of_the_tree_has_its_own_state():
    kernel = BiLONUTS(model, step_size=0.1, adapt_step_size=False, init_strategy=start_at(1.2))
    states, visits = recorded(lambda: transitions(kernel, ClosedForm(log=True), 20))
    visits = visits[1:]
    both_ways = 0
    for before, after in itertools.pairwise(states):
        tree, visits = visits[: int(after.num_steps)], visits[int(after.num_steps) :]
        root = float(np.exp(before.z["D"]))
        edges = [root, root]
        for last, now, _ in tree:
            edge = int(np.argmin(np.abs(np.array(edges) - last)))
            np.testing.assert_allclose(edges[edge], last, rtol=1e-12)
            edges[edge] = now
        both_ways += edges[0] != root and edges[1] != root
        path = [root] + [now for _, now, _ in tree]
        assert np.min(np.abs(np.array(path) - np.exp(after.z["D"]))) < 1e-12
    assert both_ways > 5


# Solves that fail


@pytest.mark.parametrize("kind", ["hmc", "nuts"])
def test_unconverged_solves_diverge_and_are_never_kept(kind):
    options = {"step_size": 0.05, "adapt_step_size": False, "init_strategy": start_at(1.0)}
    if kind == "nuts":
        kernel = BiLONUTS(model, **options)
    else:
        kernel = BiLOHMC(model, num_steps=4, trajectory_length=None, **options)
    operator = ClosedForm(bound=1.05)
    mcmc = run(kernel, operator, warmup=0, samples=400, fields=("potential_energy",))
    fields = mcmc.get_extra_fields()
    failed = ~np.asarray(fields["inner_converged"])
    assert 20 < failed.sum() < 380
    np.testing.assert_array_equal(fields["diverging"], failed)
    assert np.isfinite(fields["potential_energy"]).all()
    assert np.asarray(mcmc.get_samples()["D"]).max() <= 1.05


def test_a_trajectory_ends_where_a_solve_fails_though_it_would_come_out_beyond():
    """Steps that may end in a narrow gap in the middle of the posterior, where nothing is solved."""

    class Gap(ClosedForm):
        def solve(self, theta, state):
            u, state, info = super().solve(theta, state)
            inside = jnp.abs(jnp.log(jax.lax.stop_gradient(theta["D"]))) < 0.02
            return u, state, SolveInfo.of(info.steps, info.loss, ~inside)

    options = {"step_size": 0.03, "adapt_step_size": False, "init_strategy": start_at(0.95)}
    kernel = BiLOHMC(model, num_steps=4, trajectory_length=None, **options)
    early = 0
    for before, after in itertools.pairwise(transitions(kernel, Gap(), 300)):
        if not after.inner_converged:
            assert after.diverging
            assert after.z["D"] == before.z["D"]
            early += after.num_steps < 4
    assert early > 20


def test_a_trajectory_does_not_become_endless_where_the_step_size_shrinks():
    """Half of the posterior out of reach: no step size brings the acceptance to its target."""
    options = {"trajectory_length": 2.0, "step_size": 1e-6, "adapt_step_size": False}
    kernel = BiLOHMC(model, init_strategy=start_at(0.9), **options)
    _, after = transitions(kernel, ClosedForm(), 1)
    assert after.num_steps == 1023
    assert after.accept_prob > 0.99


def test_unconverged_solves_may_be_accepted():
    operator = ClosedForm(bound=1.0)
    kernel = BiLONUTS(model, accept_unconverged=True)
    mcmc = run(kernel, operator, warmup=300, samples=2000)
    fields, D = mcmc.get_extra_fields(), np.asarray(mcmc.get_samples()["D"])
    assert not np.any(fields["diverging"])
    assert 0.1 < np.mean(fields["inner_converged"]) < 0.95 or D.max() > 1.0
    mean, sd = on_grid()
    assert abs(D.mean() - mean) < 0.2 * sd
    reference = run(BiLONUTS(model), ClosedForm(), warmup=300, samples=2000)
    np.testing.assert_allclose(D, reference.get_samples()["D"], rtol=1e-10)


def test_nan_potential_diverges():
    class Broken(ClosedForm):
        def solve(self, theta, state):
            u, state, info = super().solve(theta, state)
            bad = jnp.where(theta["D"] > 1.05, jnp.nan, 1.0)
            return (lambda x: bad * u(x)), state, info

    mcmc = run(BiLONUTS(model, init_strategy=start_at(1.0)), Broken(), warmup=50, samples=200)
    assert np.any(mcmc.get_extra_fields()["diverging"])
    assert np.asarray(mcmc.get_samples()["D"]).max() <= 1.05


def overflowing(inverse_mass_matrix, r):
    """Minus infinity for huge momenta, as XLA's r'Cr / 2 with a dense C may be (not at every level)."""
    euclidean = _numpyro.euclidean_kinetic_energy(inverse_mass_matrix, r)
    return jnp.where(jnp.abs(r["z"]).max() > 1e150, -jnp.inf, euclidean)


def steep_outside(z, state):
    """z'z / 2 in a ball, as steep as the neck of a funnel outside; without a solve."""
    square = z["z"] @ z["z"]
    energy = jnp.where(square > 4.0, 1e160 * square, square / 2)
    return energy, (state, PotentialInfo(jnp.array(0), jnp.array(0.0), jnp.array(True)))


@pytest.mark.parametrize("move", [FixedLength(1), NoUTurn(5, 5)])
def test_no_leap_is_kept_whose_momentum_overflows(move):
    fixed = Adaptation(adapt_step_size=False, adapt_mass_matrix=False)
    settings = Settings(fixed, kinetic_fn=overflowing, step_size=1.5)
    chain = Chain(steep_outside, move, settings, 0)
    first = chain.first({"z": jnp.zeros(2)}, jax.random.key(0), ())

    def step(state, _):
        state = chain.next(False, state)
        return state, (state.z["z"], state.diverging)

    positions, diverging = jax.lax.scan(step, first, None, 400)[1]
    assert 10 < diverging.sum() < 400
    assert (np.asarray(positions) ** 2).sum(axis=1).max() <= 4.0


def test_a_kinetic_energy_without_a_number_is_infinite():
    mass = {("z",): jnp.array([[1.0, 0.5], [0.5, 2.0]])}
    assert kinetic_energy(mass, {"z": jnp.array([1.0, -1.0])}) == 1.0
    assert kinetic_energy(mass, {"z": jnp.array([1e200, -1e200])}) == jnp.inf
    assert kinetic_energy(mass, {"z": jnp.array([jnp.nan, 1.0])}) == jnp.inf
    # What no mass matrix can give is rounding.
    assert kinetic_energy({("z",): -mass["z",]}, {"z": jnp.array([1.0, -1.0])}) == jnp.inf
    # One's own may have a constant.
    own = bounded_below(lambda mass, r: r)
    assert [own(mass, jnp.array(k)) for k in (-1.0, jnp.nan, -jnp.inf)] == [-1, jnp.inf, jnp.inf]


@pytest.mark.parametrize("sampler", ["nuts", "hmc", "bilo-nuts", "bilo-hmc"])
def test_a_run_has_it(sampler):
    kernel = make_kernel(SampleSettings("poisson", sampler=sampler), model, {}, np.eye(2))
    found = getattr(kernel, "_kinetic_fn", None) or kernel._settings.kinetic_fn
    assert found is kinetic_energy


def test_draws_by_numpyro_are_the_same():
    """Also its gradient, which NumPyro takes from where it finds it."""
    r = {"z": jnp.array([1.0, -1.0])}
    mass = {("z",): jnp.array([[1.0, 0.5], [0.5, 2.0]])}
    ours, theirs = (
        _numpyro.kinetic_gradient(k, mass, r)
        for k in (kinetic_energy, _numpyro.euclidean_kinetic_energy)
    )
    np.testing.assert_array_equal(ours["z"], theirs["z"])


def test_a_density_without_bound_is_impossible():
    def energy(z, state):
        info = PotentialInfo(jnp.array(0), jnp.array(0.0), jnp.array(True))
        return jnp.log(jnp.abs(z)), (state, info)

    assert potential_value(energy, False, jnp.array(0.0), ()).potential_energy == jnp.inf
    assert potential_value(energy, False, jnp.array(jnp.e), ()).potential_energy == 1.0


@pytest.mark.parametrize("chains", [1, 3])
def test_start_that_does_not_converge_is_an_error(chains):
    kernel = BiLONUTS(model, init_strategy=start_at(2.5))
    with pytest.raises(
        ValueError, match=r"D = 2\.5.*did not reach its tolerance.*loss 1\.5e-06"
    ) as e:
        run(kernel, ClosedForm(bound=2.0), num_chains=chains, chain_method="vectorized")
    assert "after 16 inner steps" in str(e.value)
    assert 'See "A chain that cannot start"' in str(e.value)


def test_start_with_infinite_likelihood_is_an_error():
    def impossible(operator):
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        bilo.solution("u", operator, {"D": D})
        numpyro.factor("no", -jnp.inf)

    with pytest.raises(ValueError, match="The inner solver converged there"):
        run(BiLOHMC(impossible), ClosedForm())


def test_search_for_a_start_does_not_solve():
    def states():
        operator = ClosedForm(log=True)
        kernel = BiLONUTS(model)
        return kernel.init(jax.random.PRNGKey(0), 10, model_args=(operator,))

    _, visits = recorded(states)
    assert len(visits) == 1


def test_potential_fn_and_missing_model_are_refused():
    with pytest.raises(ValueError, match="potential_fn is not accepted"):
        BiLONUTS(potential_fn=lambda z: 0.0)
    with pytest.raises(ValueError, match="give a NumPyro model"):
        BiLOHMC()
    with pytest.raises(ValueError, match="num_steps or trajectory_length"):
        BiLOHMC(model, trajectory_length=None)
    with pytest.warns(UserWarning, match="does not adapt"):
        BiLOHMC(model, num_steps=3)
    with pytest.raises(ValueError, match=r"no solution\(\.\.\.\) site"):
        run(BiLONUTS(lambda: numpyro.sample("a", dist.Normal(0.0, 1.0))))


# Through MCMC


@pytest.mark.parametrize(
    "method", [pytest.param("sequential", marks=pytest.mark.slow), "vectorized"]
)
@pytest.mark.parametrize("kernel", [BiLONUTS, BiLOHMC], ids=["nuts", "hmc"])
def test_chains(kernel, method):
    mcmc = run(
        kernel(model, trajectory_length=1.5),
        ClosedForm(),
        samples=600,
        num_chains=3,
        chain_method=method,
    )
    D = mcmc.get_samples(group_by_chain=True)["D"]
    assert D.shape == (3, 600)
    assert mcmc.last_state.solver_state["u"]["last"].shape == (3,)
    mean, sd = on_grid()
    assert np.all(np.abs(np.mean(D, axis=1) - mean) < 0.3 * sd)
    steps = mcmc.get_extra_fields(group_by_chain=True)["inner_steps"]
    assert steps.shape == (3, 600)
    assert np.all(np.asarray(steps) > 0)


@pytest.mark.slow
def test_vectorized_chains_are_the_sequential_ones():
    draws = [
        run(
            BiLONUTS(model),
            ClosedForm(),
            warmup=160,
            samples=50,
            num_chains=2,
            chain_method=method,
        ).get_samples()["D"]
        for method in ("sequential", "vectorized")
    ]
    np.testing.assert_allclose(*draws, rtol=1e-6)


PARALLEL = """
import jax, numpy as np, test_kernels as t
mcmc = t.run(t.BiLONUTS(t.model), t.ClosedForm(), num_chains=2, chain_method="parallel")
other = t.run(t.BiLONUTS(t.model), t.ClosedForm(), num_chains=2, chain_method="sequential")
np.testing.assert_allclose(mcmc.get_samples()["D"], other.get_samples()["D"], rtol=1e-6)
"""


@pytest.mark.slow
def test_parallel_chains_are_the_sequential_ones():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    subprocess.run([sys.executable, "-c", PARALLEL], env=environment, check=True)


def test_heuristic_step_size_agrees_with_numpyro_at_the_start():
    found = []
    for kernel in (BiLONUTS, NUTS):
        made = kernel(model, find_heuristic_step_size=True, step_size=20.0)
        state = made.init(jax.random.PRNGKey(3), 10, None, (ClosedForm(),), {})
        found.append(float(state.adapt_state.step_size))
    assert found[0] == found[1] < 20.0


def test_heuristic_step_size_survives_solves_that_fail():
    options = {"find_heuristic_step_size": True, "init_strategy": start_at(1.0)}
    operator = ClosedForm(bound=1.0 + 1e-9)
    state = BiLONUTS(model, **options).init(jax.random.PRNGKey(0), 10, None, (operator,), {})
    assert 0 < float(state.adapt_state.step_size) < 1
    mcmc = run(BiLONUTS(model, **options), ClosedForm(), warmup=160, samples=400)
    mean, sd = on_grid()
    assert abs(np.mean(mcmc.get_samples()["D"]) - mean) < 0.3 * sd


def test_nothing_is_traced_again_for_more_samples():
    def calls(samples):
        count = []

        def counted(operator):
            count.append(1)
            model(operator)

        run(BiLONUTS(counted), ClosedForm(), warmup=20, samples=samples)
        return len(count)

    assert calls(10) == calls(200) < 20


def test_deterministic_sites_are_replayed_and_only_they():
    def with_site(operator):
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        u = bilo.solution("u", operator, {"D": D})
        middle = numpyro.deterministic("middle", u(jnp.array([0.5])))
        numpyro.sample("y", dist.Normal(middle, SIGMA), obs=1.0)

    draws = run(BiLONUTS(with_site), ClosedForm(), warmup=50, samples=50).get_samples()
    np.testing.assert_allclose(draws["middle"], 1 / draws["D"], rtol=1e-12)

    kernel = BiLONUTS(model)
    kernel.init(jax.random.PRNGKey(0), 10, model_args=(ClosedForm(log=True),))
    jax.effects_barrier()
    VISITS.clear()
    sites = kernel.postprocess_fn((ClosedForm(log=True),), {})({"D": jnp.array(0.3)})
    jax.effects_barrier()
    np.testing.assert_allclose(sites["D"], np.exp(0.3))
    assert not VISITS


def test_statistics_diagnostics_and_resuming(capsys):
    kernel = BiLONUTS(model)
    assert kernel.model is model
    mcmc = MCMC(kernel, num_warmup=100, num_samples=50, progress_bar=False)
    mcmc.warmup(
        jax.random.PRNGKey(0), ClosedForm(), collect_warmup=True, extra_fields=("num_steps",)
    )
    assert set(mcmc.get_extra_fields()) == {
        "diverging",
        "inner_steps",
        "inner_loss",
        "inner_converged",
        "num_steps",
    }
    warm = mcmc.post_warmup_state
    mcmc.run(jax.random.PRNGKey(1), ClosedForm())
    assert mcmc.last_state.i == 150
    assert mcmc.last_state.adapt_state.step_size == warm.adapt_state.step_size
    solves = mcmc.last_state.solver_state["u"]["solves"]
    assert solves > warm.solver_state["u"]["solves"]
    state = mcmc.last_state
    rate = int(state.inner_steps) / int(state.num_steps)
    assert kernel.get_diagnostics_str(state).endswith(f"{rate:.1f} inner steps per step")
    mcmc.print_summary()
    assert "Number of divergences: 0" in capsys.readouterr().out


def test_arviz_reads_the_inner_statistics():
    az = pytest.importorskip("arviz")
    mcmc = run(BiLONUTS(model), ClosedForm(), warmup=50, samples=50)
    idata = az.from_numpyro(mcmc, log_likelihood=False)
    assert idata["sample_stats"]["inner_steps"].shape == (1, 50)


def test_divergence_threshold_is_numpyros():
    default = inspect.signature(_numpyro.build_tree).parameters["max_delta_energy"].default
    assert default == MAX_DELTA_ENERGY

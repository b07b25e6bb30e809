"""Sampling that ends when there are enough effective draws."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS

from bilo_ppl.cli import main
from bilo_ppl.diagnostics import load
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler
from bilo_ppl.run.sample.enough import EVERY, FEWEST, EnoughDraws

RNG = np.random.default_rng(0)
INDEPENDENT = RNG.normal(size=(4, 1000))
SLOW = np.cumsum(INDEPENDENT, axis=1) * 0.05


class Chains(BlockSampler):
    """Draws that are given, in the place of chains."""

    def __init__(self):
        self.known = None

    @property
    def count(self):
        return 0 if self.known is None else self.known["a"].shape[1]

    @property
    def positions(self):
        return self.known


def first_at(least, *scalars, lengths=(1000,), most=1000):
    """Draws with which there are enough, and how many were there then, as they come in."""
    sampler = Chains()
    enough = EnoughDraws(sampler, least, most)
    assert not enough()
    for length in lengths:
        sampler.known = {"a": np.stack(scalars, axis=2)[:, :length]}
        if enough():
            return enough.at, length
    return None


def test_it_ends_at_the_first_look_with_enough_in_bulk_and_tails():
    at, _ = first_at(900, INDEPENDENT)
    least = [
        min(d.ess_bulk, d.ess_tail) if d.r_hat <= 1.01 else 0
        for n in (at - EVERY, at)
        for d in [chain_diagnostics(INDEPENDENT[:, :n])]
    ]
    assert least[0] < 900 <= least[1]
    assert first_at(10, INDEPENDENT)[0] >= FEWEST


def test_the_slowest_unknown_counts():
    assert first_at(100, INDEPENDENT) is not None
    assert first_at(100, INDEPENDENT, SLOW) is None
    apart = INDEPENDENT + np.arange(4)[:, None]
    assert first_at(1, INDEPENDENT, apart) is None


def test_the_last_draws_are_looked_at_too_and_none_beyond():
    few = chain_diagnostics(INDEPENDENT[:, :90])
    assert (
        first_at(int(min(few.ess_bulk, few.ess_tail)), INDEPENDENT, lengths=(90,), most=90)[0] == 90
    )
    at, _ = first_at(450, INDEPENDENT, lengths=(140,), most=140)
    assert at == 140
    assert first_at(900, INDEPENDENT, most=200) is None


def test_what_is_lacking_is_said():
    sampler = Chains()
    sampler.known = {"a": np.stack([INDEPENDENT, INDEPENDENT + np.arange(4)[:, None]], axis=2)}
    enough = EnoughDraws(sampler, 1, 1000)
    assert not enough()
    found = chain_diagnostics(sampler.known["a"][:, :, 1])
    assert found.ess_bulk > 1
    assert f"not reached: R-hat {found.r_hat:.3f} of one" in enough.report
    sampler.known = {"a": SLOW[:, :, None]}
    enough = EnoughDraws(sampler, 400, 1000)
    assert not enough()
    found = chain_diagnostics(SLOW)
    assert f"not reached: {min(found.ess_bulk, found.ess_tail):.0f} of one" in enough.report


def test_where_it_ends_does_not_depend_on_the_blocks():
    wanted, _ = first_at(500, INDEPENDENT)
    assert first_at(500, INDEPENDENT, lengths=range(1, 1001, 7))[0] == wanted
    assert first_at(500, INDEPENDENT, lengths=(330, 999))[0] == wanted


def test_several_sites_and_one_chain_from_a_sampler():
    def model():
        numpyro.sample("a", dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2))
        numpyro.sample("b", dist.Normal(0.0, 1.0))

    options = {"chains": 1, "chain_method": "vectorized", "warmup": 100, "block": 60}
    made = BlockSampler(NUTS(model), **options)
    made.start(jax.random.key(0))
    made.run(100, keep=False, progress=False, label="warm-up")
    enough = EnoughDraws(made, 100, 2000)
    made.run(2000, keep=True, progress=False, label="sampling", enough=enough)
    assert enough.at is not None
    assert enough.at <= made.count < 2000
    shapes = {name: array.shape for name, array in made.positions.items()}
    assert shapes == {"a": (1, made.count, 2, 3), "b": (1, made.count)}


def draws_in(name):
    return load(pathlib.Path(name) / "posterior.nc")["posterior"]["D"].to_numpy()


def run(name, *options):
    arguments = ["run", "closed.py", "--operator", "numerical", "--warmup", "200", "--out", name]
    return main([*arguments, "--samples", "1000", *options])


@pytest.fixture
def whole(folder):
    assert run("whole") == 0
    return draws_in("whole")


def test_a_run_ends_early_and_goes_on_where_more_are_wanted(whole, capsys):
    assert run("early", "--ess", "500") == 0
    early = draws_in("early")
    assert early.shape[1] < 1000
    assert early.shape[1] % EVERY == 0
    np.testing.assert_array_equal(early, whole[:, : early.shape[1]])
    assert f"after {early.shape[1]} draws of each chain" in capsys.readouterr().out
    record = json.loads((pathlib.Path("early") / "run.json").read_text())
    assert min(record["summary"]["D"][name] for name in ("ess_bulk", "ess_tail")) >= 500

    assert run("early", "--ess", "500", "--resume") == 0
    np.testing.assert_array_equal(draws_in("early"), early)
    assert run("early", "--ess", "900", "--resume") == 0
    more = draws_in("early")
    assert early.shape[1] < more.shape[1] < 1000
    np.testing.assert_array_equal(more, whole[:, : more.shape[1]])
    assert run("early", "--ess", "900", "--samples", "250", "--resume") == 0
    np.testing.assert_array_equal(draws_in("early"), whole[:, :250])
    assert run("early", "--resume") == 0
    np.testing.assert_array_equal(draws_in("early"), whole)


def test_a_run_that_does_not_get_there_keeps_all_its_draws(whole, capsys):
    assert run("all", "--ess", "100000") == 0
    np.testing.assert_array_equal(draws_in("all"), whole)
    assert "were not reached: " in capsys.readouterr().out

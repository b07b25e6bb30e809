"""Chains that are interrupted and go on: the draws are those of chains that were left alone."""

import os
import pathlib
import shutil

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, NUTS

import bilo_ppl as bilo
from bilo_ppl import _log
from bilo_ppl.mcmc import BlockSampler, init_near, sample_in_blocks
from bilo_ppl.operators.closed_form import ClosedForm
from models import poisson

OPERATOR = ClosedForm(
    poisson.problem, lambda x, theta: jax.numpy.sin(jax.numpy.pi * x[0]) / theta["D"]
)
X = np.linspace(0.1, 0.9, 5)[:, None]
Y = np.sin(np.pi * X[:, 0])
START = init_near({"D": 0.9})


def model(x, y):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", OPERATOR, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.2), obs=y)


class Killed(BaseException):
    """The process has ended."""


@pytest.fixture
def killed_in(monkeypatch):
    """A function that lets the process end before the n-th block of transitions; None: not at all."""
    compiled, programs = BlockSampler._compiled, {}

    def at(number):
        blocks = []

        def ending(self):
            # Another process would compile the same program: here it is the same.
            program = programs.setdefault((type(self.kernel), self.method), compiled(self))

            def block(state, length):
                blocks.append(length)
                if len(blocks) == number:
                    raise Killed
                return program(state, length)

            return block

        monkeypatch.setattr(BlockSampler, "_compiled", ending)
        return blocks

    # Every block is written.
    monkeypatch.setattr("bilo_ppl._checkpoint.Checkpoint.due", True)
    return at


def sample(kind=NUTS, seed=0, x=X, **options):
    kernel = kind(model, init_strategy=START, step_size=0.1)
    given = {"num_warmup": 20, "num_samples": 70, "num_chains": 2, "progress": False, **options}
    return sample_in_blocks(kernel, jax.random.key(seed), x, Y, **given)


@pytest.fixture(scope="module")
def whole():
    """The draws of chains that were left alone."""
    return sample()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The checkpoint of chains that have ended."""
    file = tmp_path_factory.mktemp("finished") / "draws.bin"
    sample(save=file)
    return file


@pytest.fixture
def file(tmp_path, finished):
    """A copy of it."""
    return pathlib.Path(shutil.copy(finished, tmp_path / "draws.bin"))


def assert_same(one, other):
    assert set(one.statistics) == set(other.statistics)
    for a, b in ((one.samples, other.samples), (one.statistics, other.statistics)):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (NUTS, "sequential"),
        pytest.param(bilo.BiLONUTS, "vectorized", marks=pytest.mark.slow),
        pytest.param(NUTS, "vectorized", marks=pytest.mark.slow),
        pytest.param(HMC, "parallel", marks=pytest.mark.slow),
        pytest.param(bilo.BiLONUTS, "sequential", marks=pytest.mark.slow),
    ],
)
def test_killed_in_warm_up_and_twice_in_sampling_the_draws_are_the_same(
    tmp_path, killed_in, kind, method
):
    options = {"kind": kind, "chain_method": method}
    whole = sample(**options)
    file = tmp_path / "draws.bin"
    done = 0
    for number in (4, 7, 3):
        blocks = killed_in(number)
        with pytest.raises(Killed):
            sample(save=file, resume=True, **options)
        done += sum(blocks[:-1])
    blocks = killed_in(None)
    assert_same(sample(save=file, resume=True, **options), whole)
    assert done + sum(blocks) == 90, "what was done is not done again"


def test_what_was_not_written_in_time_is_done_again(tmp_path, killed_in, monkeypatch, whole):
    monkeypatch.setattr("bilo_ppl._checkpoint.Checkpoint.due", False)
    killed_in(10)
    with pytest.raises(Killed):
        sample(save=tmp_path / "draws.bin")
    killed_in(None)
    assert_same(sample(save=tmp_path / "draws.bin", resume=True), whole)


def test_a_run_that_has_ended_is_extended_and_cut(file, killed_in, whole):
    blocks = killed_in(None)
    longer = sample(save=file, resume=True, num_samples=100)
    assert sum(blocks) == 30
    assert longer.samples["D"].shape == (2, 100)
    np.testing.assert_array_equal(longer.samples["D"][:, :70], whole.samples["D"])
    killed_in(1)
    assert_same(sample(save=file, resume=True), whole)
    assert_same(sample(save=file, resume=True, num_samples=100), longer)


@pytest.mark.slow
def test_an_extended_run_is_as_one_that_was_long_from_the_beginning(file):
    assert_same(sample(save=file, resume=True, num_samples=100), sample(num_samples=100))


def test_a_torn_end_costs_one_block(file, whole):
    os.truncate(file, file.stat().st_size - 7)
    assert_same(sample(save=file, resume=True), whole)


def test_a_part_that_is_damaged_is_told_and_the_loop_begins_anew(file, whole):
    data = bytearray(file.read_bytes())
    data[data.index(b"sampling part 0") + 200] ^= 1
    file.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"sampling cannot go on .* damaged.* begins anew"):
        again = sample(save=file, resume=True)
    assert_same(again, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"key: \[0, 0\] then, \[0, 1\] now"),
        ({"num_chains": 3}, "num_chains: 2 then, 3 now"),
        ({"num_warmup": 31}, "num_warmup: 20 then, 31 now"),
        ({"kind": HMC}, "kernel: NUTS then, HMC now"),
        ({"x": X + 0.01}, "arguments of the model: of other values"),
        ({"chain_method": "vectorized"}, "chain_method: sequential then, vectorized now"),
    ],
)
def test_other_settings_are_refused_by_name(file, options, message):
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        sample(save=file, resume=True, **options)
    assert file.read_bytes() == before


def test_what_cannot_be_meant_is_refused(tmp_path):
    file = tmp_path / "draws.bin"
    with pytest.raises(ValueError, match="needs save="):
        sample(resume=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match="exists; give resume=True"):
        sample(save=file)
    with pytest.raises(ValueError, match="is no checkpoint"):
        sample(save=file, resume=True)
    assert file.read_text() == "mine"


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path, killed_in, monkeypatch, whole):
    put, calls = _log._put, []

    def full(*args):
        calls.append(None)
        if 5 < len(calls) < 9:
            raise OSError(28, "No space left on device")
        return put(*args)

    killed_in(12)
    monkeypatch.setattr(_log, "_put", full)
    file = tmp_path / "draws.bin"
    with pytest.warns(UserWarning, match="No space left") as told, pytest.raises(Killed):
        sample(save=file)
    assert len(told) == 1
    killed_in(None)
    assert_same(sample(save=file, resume=True), whole)

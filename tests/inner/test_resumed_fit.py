"""Fits that are interrupted after any block and go on: weights and report are those of whole fits."""

import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl._checkpoint import Checkpoint, kept_by
from bilo_ppl.adaptation.exploration import CHAINS, _Chains
from bilo_ppl.inner.fitting import fit
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.whole_fit import WholeFit

START = jnp.array([1.0, 2.5, 0.0])
SOLVER = bilo.LevenbergMarquardt(tolerance=1e-30, max_steps=12)


class Killed(BaseException):
    """The process has ended."""


def problem(count):
    """y = 2 sin(3 x) + 0.5 with noise, at points, to be fitted by a sin(b x) + c."""
    x = jnp.linspace(-1, 1, count)
    y = 2 * jnp.sin(3 * x) + 0.5 + 0.3 * np.random.default_rng(0).normal(size=count)

    def rows(w, item):
        return {"data": jnp.atleast_1d(w[0] * jnp.sin(w[1] * item[0]) + w[2] - item[1])}

    return LeastSquares((RowFamily(rows, (x, y), {}),))


def fitted(count):
    weights, report = fit(
        SOLVER,
        lambda shift: LeastSquares(problem(count).families),
        START,
        progress=False,
        label="fit",
        stages=[jnp.array(0.5), jnp.array(1.0)],
        chunks=6,
    )
    return np.asarray(weights), report._replace(cpu_seconds=0.0)


def warned(text):
    raise AssertionError(text)


def kept(file, work, warn=warned):
    """Some work in its checkpoint."""
    with kept_by(file, warn) as checkpoint:
        checkpoint.enter("stage")
        return work()


@pytest.mark.parametrize(
    ("count", "last"),
    [
        (300, 4),
        pytest.param(2000, 4, marks=pytest.mark.slow),
        pytest.param(2000, -1, marks=pytest.mark.slow),
    ],
)
def test_a_fit_goes_on_after_any_block(tmp_path, monkeypatch, count, last):
    """With few rows, and with so many that a fit takes steps on parts and then on a sample."""
    file, block, blocks, ends = tmp_path / "log.bin", WholeFit.block, [], {}

    def killing(self, length):
        blocks.append(length)
        if len(blocks) == ends.get("at"):
            raise Killed
        return block(self, length)

    monkeypatch.setattr(WholeFit, "block", killing)
    monkeypatch.setattr(Checkpoint, "due", True)
    whole, report = fitted(count)
    number = len(blocks)
    ends["at"] = last % number
    assert 2 < ends["at"] < number
    blocks.clear()
    with pytest.raises(Killed):
        kept(file, lambda: fitted(count))
    blocks.clear()
    done, ends["at"] = ends["at"] - 1, None
    for left in (number - done, 0):
        weights, found = kept(file, lambda: fitted(count))
        assert len(blocks) == left
        np.testing.assert_array_equal(weights, whole)
        assert found == report
        blocks.clear()


def test_another_loop_in_its_place_is_not_mistaken_for_it(tmp_path):
    kept(tmp_path / "log.bin", lambda: fitted(300))
    told = []
    weights, _ = kept(tmp_path / "log.bin", lambda: fitted(301), told.append)
    np.testing.assert_array_equal(weights, fitted(301)[0])
    assert len(told) == 1
    assert "cannot go on from its checkpoint" in told[0]


def test_chains_of_an_exploration_that_have_ended_are_not_run_again(tmp_path):
    run = []

    def one(chain):
        run.append(chain)
        if len(run) == 4:
            raise Killed
        return jnp.full((3, 2), chain), jnp.arange(3.0) + chain, jnp.array([True, False, True])

    with pytest.raises(Killed):
        kept(tmp_path / "log.bin", lambda: _Chains(one).run(progress=False))
    chains = _Chains(one)
    kept(tmp_path / "log.bin", lambda: chains.run(progress=False))
    assert run == [0, 1, 2, 3, *range(3, CHAINS)]
    for chain, (positions, energies, solved) in enumerate(chains.done):
        assert (positions == chain).all()
        np.testing.assert_array_equal(energies, np.arange(3.0) + chain)
        assert solved.tolist() == [True, False, True]

"""Runs that are interrupted and go on: what they keep, what they refuse, and that nothing changes."""

import errno
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bilo_ppl import _log
from bilo_ppl._checkpoint import Checkpoint
from bilo_ppl.cli import main
from bilo_ppl.diagnostics import load
from bilo_ppl.estimate import descent
from bilo_ppl.mcmc import BlockSampler
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.record import Record

ROOT = pathlib.Path(__file__).parents[2]

TINY = ["--operator", "numerical", "--sampler", "hmc", "--chains", "2", "--quiet"]
SHORT = ["--warmup", "10", "--samples", "40"]
RUN = ["run", "closed.py", *TINY, *SHORT, "--out", "here"]


class Killed(BaseException):
    """The process has ended."""


@pytest.fixture(autouse=True)
def unfinished_work(monkeypatch):
    """A process that is killed writes nothing more; every block is written."""
    monkeypatch.setattr(Checkpoint, "due", True)
    monkeypatch.setattr(Checkpoint, "close", lambda self: self.log.close())


def in_block(monkeypatch, number, do):
    """Do something in a block of transitions, counted from 1; lengths of the blocks so far."""
    compiled, lengths = BlockSampler._compiled, []

    def other(self):
        run = compiled(self)

        def block(state, length):
            lengths.append(length)
            if len(lengths) == number:
                do()
            return run(state, length)

        return block

    monkeypatch.setattr(BlockSampler, "_compiled", other)
    return lengths


def kill():
    raise Killed


def draws(folder="here"):
    found = load(pathlib.Path(folder) / "posterior.nc")
    groups = ("posterior", "sample_stats")
    return {name: found[g][name].values for g in groups for name in found[g].data_vars}


def content(folder="here"):
    return json.loads((pathlib.Path(folder) / "run.json").read_text())


def assert_same(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def refused(capsys, *arguments):
    before = {path: path.read_bytes() for path in pathlib.Path().rglob("*") if path.is_file()}
    assert main(arguments) == 2
    for path, data in before.items():
        assert path.read_bytes() == data
    return capsys.readouterr().err


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(folder, monkeypatch, capsys):
    assert main([*RUN[:-1], "whole"]) == 0
    with monkeypatch.context() as patch:
        first = in_block(patch, 3, kill)
        with pytest.raises(Killed):
            main(RUN)
    with monkeypatch.context() as patch:
        second = in_block(patch, 6, kill)
        with pytest.raises(Killed):
            main([*RUN, "--resume"])
    assert not pathlib.Path("here/posterior.nc").exists()
    last = in_block(monkeypatch, None, kill)
    capsys.readouterr()
    assert main([*RUN, "--resume"]) == 0
    assert_same(draws(), draws("whole"))
    assert sum(first[:-1]) + sum(second[:-1]) + sum(last) == 50, "nothing was done twice"
    found = content()
    assert found["status"] == "finished"
    assert set(found["files"]) == set(content("whole")["files"])
    assert 0 < found["checkpoint"]["writes"] < 30

    # What no draw depends on may be asked for afterwards.
    assert main([*RUN, "--groups", "log_likelihood", "--resume"]) == 0
    assert_same(draws(), draws("whole"))
    assert load(pathlib.Path("here/posterior.nc"))["log_likelihood"]["y"].shape == (2, 40, 11)

    # More samples extend it, and it may be cut again.
    blocks = len(last)
    assert main([*RUN, "--samples", "60", "--resume"]) == 0
    assert sum(last[blocks:]) == 20
    assert_same({k: v[:, :40] for k, v in draws().items()}, draws("whole"))
    assert draws()["D"].shape == (2, 60)


FEATURES = ["source_coefficients.py", "--chains", "1", "--warmup", "20", "--samples", "40"]


@pytest.mark.slow
def test_a_run_by_features_goes_on_with_what_its_adaptation_has_found(folder, monkeypatch, capsys):
    shutil.copy(ROOT / "benchmarks" / "gallery" / FEATURES[0], folder)
    common = ["run", *FEATURES, "--no-certify"]
    assert main([*common, "--quiet", "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        in_block(patch, 4, kill)
        with pytest.raises(Killed):
            main([*common, "--out", "here"])
    capsys.readouterr()
    assert main([*common, "--out", "here", "--resume"]) == 0
    assert "The adaptation has ended before" in capsys.readouterr().out
    assert_same(draws(), draws("whole"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "1"], r"seed: 0 then, 1 now"),
        (["--chains", "3"], "chains: 2 then, 3 now"),
        (["--data-seed", "1"], "the data: of other content"),
        (["--sampler", "nuts"], "sampler: hmc then, nuts now"),
    ],
)
def test_other_settings_are_refused(folder, monkeypatch, capsys, options, message):
    in_block(monkeypatch, 1, kill)
    with pytest.raises(Killed):
        main(RUN)
    text = refused(capsys, *RUN, *options, "--resume")
    assert message in text
    assert "Only --samples, --ess, --reweight, --groups and --quiet may differ" in text
    text = refused(capsys, *RUN)
    assert "--resume to go on with it" in text
    assert "give one of them" in refused(capsys, *RUN, "--resume", "--overwrite")
    with pathlib.Path("closed.py").open("a") as file:
        file.write("\n# another\n")
    assert "the model file: of other content" in refused(capsys, *RUN, "--resume")


def test_where_nothing_is_to_go_on_with(folder, capsys):
    arguments = [argument for argument in RUN if argument != "--quiet"]
    assert main([*arguments, "--resume"]) == 0
    assert "no run in here to go on with: it begins now" in capsys.readouterr().out
    pathlib.Path("here/checkpoint.bin").unlink()
    assert "has left no checkpoint.bin" in refused(capsys, *RUN, "--resume")


def test_a_run_that_was_to_replace_another_goes_on_and_replaces_it(folder, monkeypatch):
    assert main(RUN) == 0
    other = [*RUN, "--seed", "1"]
    with monkeypatch.context() as patch:
        in_block(patch, 4, kill)
        # A process that is killed clears nothing up.
        patch.setattr(RunFolder, "_end", lambda self: None)
        with pytest.raises(Killed):
            main([*other, "--overwrite"])
    earlier = draws()
    assert pathlib.Path("here/unfinished/checkpoint.bin").exists()
    # The earlier run can still be extended.
    assert main([*RUN, "--samples", "41", "--resume"]) == 0
    assert_same({k: v[:, :40] for k, v in draws().items()}, earlier)
    assert main([*other, "--resume"]) == 0
    assert not pathlib.Path("here/unfinished").exists()
    assert main([*other[:-4], "--out", "alone", "--seed", "1"]) == 0
    assert_same(draws(), draws("alone"))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_to_go_on(folder, monkeypatch, capsys, by):
    with monkeypatch.context() as patch:
        in_block(patch, 1, lambda: signal.raise_signal(by))
        assert main([*RUN, "--no-certify"]) == 128 + by
    line = capsys.readouterr().err.splitlines()[-1].strip()
    program, *arguments = shlex.split(line)
    assert program == "bilo-ppl"
    assert "--resume" in arguments
    assert main(arguments) == 0
    assert main([*RUN[:-1], "whole"]) == 0
    assert_same(draws(), draws("whole"))


def test_an_interrupt_in_a_callback_is_one(folder, monkeypatch):
    def broken():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("INTERNAL: a callback failed") from error

    monkeypatch.setattr(Record, "took", lambda self, *args: None)
    monkeypatch.setattr("bilo_ppl.run.sample.pipeline.make_operator", lambda *args: broken())
    assert main(RUN) == 143
    assert content()["status"].startswith("interrupted")


def test_a_folder_that_is_removed_in_a_run_is_made_again(folder, monkeypatch):
    assert main([*RUN[:-1], "whole"]) == 0
    in_block(monkeypatch, 4, lambda: shutil.rmtree("here"))
    assert main(RUN) == 0
    assert_same(draws(), draws("whole"))
    assert main([*RUN, "--samples", "50", "--resume"]) == 0
    assert draws()["D"].shape == (2, 50)


def test_a_full_disk_is_told_once_and_the_run_goes_on(folder, monkeypatch, capsys):
    put = _log._put

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    in_block(monkeypatch, 2, lambda: monkeypatch.setattr(_log, "_put", full))
    assert main(RUN) == 0
    assert capsys.readouterr().err.count("cannot be written (No space left") == 1
    monkeypatch.setattr(_log, "_put", put)
    before = draws()
    assert main([*RUN, "--resume"]) == 0
    assert_same(draws(), before)


def test_a_clock_that_is_set_back_changes_nothing(folder, monkeypatch):
    assert main([*RUN[:-1], "whole"]) == 0
    now = time.time
    in_block(monkeypatch, 2, lambda: monkeypatch.setattr(time, "time", lambda: now() - 1e6))
    assert main(RUN) == 0
    assert_same(draws(), draws("whole"))
    assert content()["checkpoint"]["writes"] > 2


def test_a_second_run_into_the_folder_is_refused(folder, monkeypatch, capsys):
    found = []
    in_block(monkeypatch, 2, lambda: found.append(main([*RUN, "--resume"])))
    assert main(RUN) == 0
    assert found == [2]
    assert "another run is writing to here now" in capsys.readouterr().err


def test_estimates_that_were_killed_go_on_and_more_data_sets_are_added(folder, monkeypatch):
    arguments = ["map", "closed.py", "--operator", "numerical", "--quiet", "--optimizer", "adam"]
    arguments += ["--steps", "60", "--seeds", "2", "--out"]
    monkeypatch.setattr(descent, "BLOCK", 20)
    assert main([*arguments, "whole"]) == 0
    descend, calls, ends = descent.descend, [], {"at": None}

    def killing(*args):
        calls.append(None)
        if len(calls) == ends["at"]:
            raise Killed
        return descend(*args)

    monkeypatch.setattr(descent, "descend", killing)
    for ends["at"] in (3, 4):
        calls.clear()
        with pytest.raises(Killed):
            main([*arguments, "here", "--resume"])
    ends["at"] = None
    assert main([*arguments, "here", "--resume"]) == 0
    for seed in (0, 1):
        _, whole = estimate(f"whole/estimate-{seed}.eqx")
        _, found = estimate(f"here/estimate-{seed}.eqx")
        assert found == whole
    calls.clear()
    assert main([*arguments[:-2], "3", "--out", "here", "--resume"]) == 0
    theta = json.loads(pathlib.Path("here/map.json").read_text())["theta"]
    assert len(theta) == 3
    assert theta[:2] == json.loads(pathlib.Path("whole/map.json").read_text())["theta"]
    assert 0 < len(calls) < 10, "only the new data set was descended for"


def estimate(path):
    """Header and state of a file of an estimate; of its history, all but the last array, the times."""
    with pathlib.Path(path).open("rb") as file:
        header = json.loads(file.readline())
        arrays = [np.load(file) for _ in header["state"] + header["recorded"]]
    return header, [array.tolist() for array in arrays[:-1]]


def command(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "bilo_ppl", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path, seconds=120):
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("by", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_process_that_is_ended_at_any_moment_goes_on(folder, by, status):
    arguments = [*RUN[:-4], "--samples", "2000", "--out", "here"]
    assert main([*arguments[:-1], "whole"]) == 0
    for seconds in (0.0, 2.0, 4.0):
        process = command(*arguments, "--resume")
        wait_for(pathlib.Path("here/run.json"))
        time.sleep(seconds)
        process.send_signal(by)
        begun = time.monotonic()
        ended = process.wait()
        if ended:
            assert ended == status
            assert time.monotonic() - begun < 10
    assert main([*arguments, "--resume"]) == 0
    assert_same(draws(), draws("whole"))

"""Nothing is lost in a folder of results: the command as a whole, and `RunFolder`."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import pytest
from matplotlib.figure import Figure

from bilo_ppl.cli import main
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.operator_file import save_operator
from bilo_ppl.run import SampleSettings, lock
from bilo_ppl.run import folder as folder_module
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.listing import listed, present
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample import pipeline, results
from bilo_ppl.run.settings import BadInputError, RunFailedError

TINY = ["--chains", "1", "--warmup", "3", "--samples", "6", "--sampler", "hmc"]
RUN = ["run", "closed.py", "--operator", "numerical", *TINY, "--out", "here"]
MAP = ["map", "closed.py", "--operator", "numerical", "--out", "here", "--seeds", "2"]
OURS = {"versions": {"bilo-ppl": "0"}}
WRITTEN = ("run.json", "posterior.nc", "operator.eqx", "figures/*.png")


def write(files):
    """Write files by name; a value that is no text becomes JSON."""
    for name, content in files.items():
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def tree():
    """Everything below the current folder: contents by name, None for folders."""
    return {
        str(path): None if path.is_dir() else path.read_bytes()
        for path in sorted(pathlib.Path().rglob("*"))
    }


def names(place="here"):
    return {str(p.relative_to(place)) for p in pathlib.Path(place).rglob("*") if not p.is_dir()}


def content(place="here"):
    return json.loads((pathlib.Path(place) / "run.json").read_text())


def earlier_run(**more):
    """Results of an earlier run in the folder here."""
    files = {"posterior.nc": "old", "operator.eqx": "old", "figures/old.png": "old", **more}
    listing = OURS | {"files": sorted(files)}
    write({f"here/{name}": text for name, text in ({"run.json": listing} | files).items()})


def refused(capsys, *arguments):
    """The command ends with status 2, one line of message, and the disk as it was."""
    before = tree()
    assert main(arguments) == 2
    assert tree() == before
    return capsys.readouterr().err.strip()


# What must not be lost, by the command.


def test_the_files_of_a_run_are_those_of_its_list(folder):
    assert main(RUN) == 0
    assert set(content()["files"]) == names()
    assert "figures/trace.png" in names()
    assert not (folder / "here" / lock.NAME).exists()


def test_files_of_a_person_are_neither_replaced_nor_removed(folder, capsys):
    write({"figures/mine.png": "a", "posterior.nc": "b", "summary.csv": "c", "notes.txt": "d"})
    for more in ([], ["--overwrite"]):
        message = refused(capsys, *RUN[:-1], ".", *more)
        assert "figures/mine.png, posterior.nc, summary.csv." in message
        assert "--out" in message


def test_an_earlier_run_does_not_make_other_files_its_own(folder, capsys):
    earlier_run()
    write({"here/summary.csv": "mine", "here/figures/mine.png": "mine"})
    message = refused(capsys, *RUN, "--overwrite")
    assert "here holds files" in message
    assert "figures/mine.png, summary.csv." in message


def test_files_of_other_names_stay(folder):
    earlier_run()
    write({"here/notes.txt": "mine", "here/figures/mine.pdf": "mine", "here/map.csv": "mine"})
    assert main([*RUN, "--overwrite"]) == 0
    for name in ("notes.txt", "figures/mine.pdf", "map.csv"):
        assert (folder / "here" / name).read_text() == "mine"
    assert names() == {"notes.txt", "figures/mine.pdf", "map.csv", *content()["files"]}
    assert not {"operator.eqx", "figures/old.png"} & names()


def test_a_json_file_of_another_program_is_no_earlier_run(folder, capsys):
    for text in ({"files": ["posterior.nc"]}, "[]", "no json"):
        write({"here/run.json": text, "here/posterior.nc": "mine"})
        assert "posterior.nc, run.json." in refused(capsys, *RUN, "--overwrite")


def test_results_of_a_version_without_a_list_are_those_of_known_names(folder):
    write({"here/run.json": OURS | {"status": "finished"}, "here/notes.txt": "mine"})
    write({f"here/{n}": "old" for n in ("operator-adapted.eqx", "map.csv", "figures/old.png")})
    assert main([*RUN, "--overwrite"]) == 0
    assert names() == {"notes.txt", *content()["files"]}
    assert content()["status"] == "finished"


def test_fewer_data_sets_leave_no_estimates_of_the_earlier_run(folder):
    assert main(MAP) == 0
    assert {"estimate-0.eqx", "estimate-1.eqx", "map.csv"} < names()
    assert main([*MAP[:-1], "1", "--overwrite"]) == 0
    assert "estimate-1.eqx" not in names()
    assert names() == set(content()["files"])
    assert len(json.loads((folder / "here" / "map.json").read_text())["theta"]) == 1


def test_another_command_replaces_the_results_too(folder):
    assert main(MAP) == 0
    assert main([*RUN, "--overwrite"]) == 0
    assert names() == set(content()["files"])
    assert "map.json" not in names()


@pytest.mark.parametrize(
    "arguments",
    [
        [*MAP, "--noise", "0.1", "--overwrite"],
        [*MAP, "--data", "missing.csv", "--overwrite"],
        [*RUN, "--chains", "0", "--overwrite"],
        [*RUN, "--operator", "fine-tuned", "--rank", "10000", "--overwrite"],
        [*RUN, "--operator", "fine-tuned", "--operator-file", "closed.py", "--overwrite"],
    ],
)
def test_bad_input_leaves_an_earlier_run_alone(folder, capsys, arguments):
    earlier_run()
    refused(capsys, *arguments)


def test_bad_input_leaves_no_empty_folders(folder, capsys):
    refused(capsys, *RUN[:-1], "a/b/c", "--data", "missing.csv")
    assert "Not a directory" in refused(capsys, *RUN[:-1], "closed.py/here")


def test_an_input_in_the_folder_is_kept(folder):
    problem, start = load_model("closed.py").problem, load_model("closed.py").start
    earlier_run()
    save_operator("here/operator.eqx", LocalOperator(problem, start, key=jax.random.key(0)))
    before = (folder / "here" / "operator.eqx").read_bytes()
    # With this tolerance no solve has anything to do.
    cheap = ["--tol", "1e9", "--no-adapt", "--no-certify", "--operator-file", "here/operator.eqx"]
    assert main(["run", "closed.py", *TINY, *cheap, "--out", "here", "--overwrite"]) == 0
    assert (folder / "here" / "operator.eqx").read_bytes() == before
    assert names() == set(content()["files"])
    assert "figures/old.png" not in names()


@pytest.mark.parametrize(
    ("command", "name", "more"),
    [
        ("run", "operator-adapted.eqx", ["--operator-file", "here/operator-adapted.eqx"]),
        ("run", "operator-adapted.eqx", ["--operator-file", "link.eqx"]),
        ("run", "summary.csv", ["--data", "here/../here/summary.csv"]),
        ("map", "map.csv", ["--data", "here/map.csv"]),
    ],
)
def test_an_input_that_would_be_replaced_is_refused(folder, capsys, command, name, more):
    earlier_run(**{name: "old"})
    os.link(f"here/{name}", "link.eqx")
    message = refused(capsys, command, "closed.py", "--out", "here", "--overwrite", *more)
    assert f"here/{name} is an input of this run" in message
    assert "--out" in message


# Runs that end early.


def failing(*args):
    raise RunFailedError("no operator")


def test_a_run_that_fails_without_draws_leaves_the_earlier_results(folder, monkeypatch, capsys):
    earlier_run()
    before = tree()
    monkeypatch.setattr(pipeline, "make_operator", failing)
    assert main([*RUN, "--overwrite"]) == 1
    printed = capsys.readouterr().err
    assert "the earlier results in here are as they were" in printed
    assert "lies in here/unfinished" in printed
    assert tree() == before | {
        "here/unfinished": None,
        **{
            f"here/unfinished/{name}": (folder / "here/unfinished" / name).read_bytes()
            for name in ("run.json", "checkpoint.bin")
        },
    }
    assert content("here/unfinished")["status"] == "failed: no operator"

    # The next run replaces what was left, and only that.
    write({"here/unfinished/trace.log": "mine", "here/unfinished/operator.eqx": "left"})
    listing = content("here/unfinished") | {"files": ["operator.eqx", "checkpoint.bin"]}
    write({"here/unfinished/run.json": listing})
    monkeypatch.undo()
    os.chdir(folder)
    assert main([*RUN, "--overwrite"]) == 0
    assert names() == {"unfinished/trace.log", *content()["files"]}


def test_an_interrupt_without_draws_leaves_the_earlier_results(folder, monkeypatch, capsys):
    earlier_run()
    monkeypatch.setattr(pipeline, "make_operator", lambda *args: signal.raise_signal(signal.SIGINT))
    assert main([*RUN, "--overwrite"]) == 130
    assert "what there is lies in here/unfinished" in capsys.readouterr().out
    assert (folder / "here" / "posterior.nc").read_text() == "old"
    assert content("here/unfinished")["status"].startswith("interrupted")


def test_a_run_that_is_interrupted_after_its_draws_replaces_the_earlier_one(folder, monkeypatch):
    earlier_run()
    interrupt = lambda self: signal.raise_signal(signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(results.Results, "add_inner_statistics", interrupt)
    assert main([*RUN, "--overwrite"]) == 130
    assert content()["status"].startswith("interrupted")
    kept = {"checkpoint.bin", "run.json", "posterior.nc", "summary.csv"}
    assert names() == kept == set(content()["files"])
    assert not (folder / "here" / "unfinished").exists()


def test_paths_are_those_of_the_end(folder, capsys):
    earlier_run()
    assert main([*RUN, "--overwrite"]) == 0
    printed = capsys.readouterr()
    assert "here/figures/trace.png" in printed.out
    assert "unfinished" not in printed.out + printed.err
    assert "unfinished" not in (folder / "here" / "run.json").read_text()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), r"cannot write to here \(No space left\)"),
        (RuntimeError("errno = 28, error message = 'No space left', x"), r"nc \(No space left\)"),
        (RuntimeError("HDF5 is broken"), r"here/posterior.nc \(HDF5 is broken\)"),
    ],
)
def test_a_full_disk_is_named(folder, monkeypatch, capsys, error, message):
    def full(*args):
        raise error

    monkeypatch.setattr(results.diagnostics, "save", full)
    assert main(RUN) == 1
    assert re.search(message, capsys.readouterr().err)
    assert content()["status"].startswith("failed")


# Two at once.

HOLDER = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_run_at_the_same_time_is_refused_until_the_first_is_killed(folder, capsys):
    earlier_run()
    arguments = [sys.executable, "-c", HOLDER, f"here/{lock.NAME}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert "another run is writing to here now" in refused(capsys, *RUN)
            assert "another run is writing to here now" in refused(capsys, *RUN, "--overwrite")
        finally:
            holder.kill()
    assert main([*RUN, "--overwrite"]) == 0
    assert names() == set(content()["files"])


def test_a_second_run_that_begins_in_between_is_refused(folder):
    first, second = (RunFolder(folder / "here", written=WRITTEN) for _ in range(2))
    first.check()
    second.check()
    with first:
        with pytest.raises(BadInputError, match=r"another run is writing to .*here now"), second:
            pass
        write({first.add("run.json"): OURS})
    with pytest.raises(BadInputError, match="holds the results"), second:
        pass
    assert names() == {"run.json"}


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path, monkeypatch):
    """Another run ends, and removes the file, between its opening here and its locking."""
    acquire, calls = lock.FileLock.acquire, []

    def acquiring(self, *args, **kwargs):
        found = acquire(self, *args, **kwargs)
        calls.append(None)
        if len(calls) == 1:
            (tmp_path / lock.NAME).unlink()
        return found

    monkeypatch.setattr(lock.FileLock, "acquire", acquiring)
    with lock.held(tmp_path):
        assert lock.is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


# The class alone.


def replaced(monkeypatch, folder, **options):
    """A run of two files into a folder with an earlier run."""
    monkeypatch.chdir(folder)
    earlier_run()
    here = RunFolder(pathlib.Path("here"), written=WRITTEN, overwrite=True, **options)
    here.check()
    with here:
        for name in ("posterior.nc", "figures/new.png"):
            file = here.add(name)
            write({here.add("run.json"): OURS | {"files": here.files}, file: "new"})
    return here


def test_new_results_take_the_place_of_the_old_ones(tmp_path, monkeypatch):
    here = replaced(monkeypatch, tmp_path)
    assert names() == {"run.json", "posterior.nc", "figures/new.png"}
    assert (tmp_path / "here" / "posterior.nc").read_text() == "new"
    assert str(here) == "here"


def test_a_figure_of_a_site_in_a_scope_is_a_file_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder(pathlib.Path("here"), written=WRITTEN) as here:
        record = Record(here, SampleSettings("poisson", quiet=True))
        record.draw([("posterior_scope/D", Figure())])
    assert names() == {"run.json", "figures/posterior_scope_D.png"} == set(content()["files"])


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_replacement_that_breaks_off_can_be_repeated(tmp_path, monkeypatch, moves):
    replace, calls = os.replace, []

    def breaking(source, target):
        if "unfinished" in str(source):
            calls.append(None)
            if len(calls) > moves:
                raise OSError(errno.EIO, "Input/output error")
        return replace(source, target)

    monkeypatch.setattr(folder_module.os, "replace", breaking)
    with pytest.raises(RunFailedError, match=r"new results .* here/unfinished"):
        replaced(monkeypatch, tmp_path)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert content()["status"] == "being replaced by another run"
    again = RunFolder(pathlib.Path("here"), written=WRITTEN, overwrite=True)
    again.check()
    with again:
        write({again.add("run.json"): OURS | {"files": ["posterior.nc"]}})
        write({again.add("posterior.nc"): "newest"})
    assert names() == {"run.json", "posterior.nc"}


def test_what_a_killed_process_was_writing_goes_with_the_next_run(tmp_path, monkeypatch):
    write({str(tmp_path / "here" / ".posterior-0123456789ab.nc"): "half"})
    write({str(tmp_path / "here" / "figures" / ".trace-0123456789ab.png"): "half"})
    write({str(tmp_path / "here" / ".mine-0123456789ab.nc"): "mine"})
    replaced(monkeypatch, tmp_path)
    assert names() == {"run.json", "posterior.nc", "figures/new.png", ".mine-0123456789ab.nc"}


def test_a_run_of_nothing_leaves_no_folder(tmp_path):
    with RunFolder(tmp_path / "a" / "b", written=WRITTEN):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_lists_name_files_of_this_program_only(tmp_path):
    bad = ["../x", "/etc/passwd", "figures/../../x.png", "figures/a/b.png", "notes.txt", 3, None]
    write({str(tmp_path / "run.json"): OURS | {"files": ["map.csv", "figures/a.png", *bad]}})
    assert listed(tmp_path) == {"run.json", "map.csv", "figures/a.png"}


def test_links_and_folders_are_present_too(tmp_path):
    (tmp_path / "posterior.nc").symlink_to("nowhere")
    (tmp_path / "operator.eqx").mkdir()
    assert present(tmp_path, WRITTEN) == ["operator.eqx", "posterior.nc"]
    with pytest.raises(BadInputError, match=r"operator\.eqx, posterior\.nc"):
        RunFolder(tmp_path, written=WRITTEN).check()


@pytest.mark.parametrize(("name", "message"), [("figures", "figures"), ("unfinished", "is a file")])
def test_a_file_in_the_place_of_a_folder_is_refused(folder, capsys, name, message):
    write({"here/run.json": OURS, f"here/{name}": "mine"})
    assert re.search(message, refused(capsys, *RUN, "--overwrite"))

"""Folders into which no results can go, or from which a run would take more than is its own."""

import json
import os
import pathlib

import pytest

from bilo_ppl.cli import main
from bilo_ppl.run.listing import listed, present, remove
from bilo_ppl.run.record import version


def a_file():
    pathlib.Path("there").write_text("mine")


def foreign(name):
    def make():
        path = pathlib.Path("there") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")

    return make


def results():
    record = {"versions": {"bilo-ppl": version("bilo-ppl")}, "files": ["posterior.nc", "run.json"]}
    pathlib.Path("there").mkdir()
    pathlib.Path("there/run.json").write_text(json.dumps(record))
    pathlib.Path("there/posterior.nc").write_text("draws")


def a_link():
    pathlib.Path("there").symlink_to("nowhere")


CASES = [
    (a_file, "there", [], "there is a file; choose another folder with --out"),
    (a_file, "there/below", [], "cannot write|is a file|Not a directory"),
    (a_link, "there", [], "is a file; choose another|cannot write"),
    (foreign("run.json"), "there", [], "holds files that no run has listed"),
    (foreign("posterior.nc"), "there", [], "no run has listed.*posterior.nc"),
    (foreign("summary.csv"), "there", [], "summary.csv"),
    (foreign("operator.eqx"), "there", [], "operator.eqx"),
    (foreign("figures/trace.png"), "there", [], "figures/trace.png"),
    (foreign("figures"), "there", [], "figures"),
    (foreign("posterior.nc"), "there", ["--overwrite"], "no run has listed.*posterior.nc"),
    (foreign("posterior.nc/inside"), "there", ["--overwrite"], "posterior.nc"),
    (results, "there", [], "holds the results of another run.*--overwrite"),
    (lambda: None, "x" * 300, [], "name too long.*choose another folder with --out"),
    (lambda: None, "/dev/null", [], "is a file; choose another folder"),
    (lambda: None, "/dev/null/below", [], "cannot write"),
    (lambda: None, "", [], "out is empty"),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_folder(refused, known, number):
    make, name, options, message = CASES[number]
    make()
    refused("run", "line.py", "--out", name, *options, saying=f"(?i){message}")


@pytest.mark.parametrize("name", ["data.csv", "operator.eqx", "posterior.nc"])
def test_an_input_that_the_run_would_replace(refused, known, name):
    results()
    path = pathlib.Path("there") / name
    path.write_text("x,y\n0.5,1\n")
    option = "--operator-file" if name.endswith("eqx") else "--data"
    arguments = ["line.py", "--out", "there", "--overwrite", option, str(path)]
    if name == "posterior.nc":
        refused("run", *arguments, saying="is an input of this run")
    else:
        # What else there is to say of it: nothing is replaced.
        assert main(["run", *arguments, "--sampler", "hmc", "--seed", "-1"]) == 2
    assert path.read_text() == "x,y\n0.5,1\n"


@pytest.mark.parametrize(
    "name",
    ["../mine.txt", "/etc/passwd", "../run.json", "figures/../../mine.txt", "a/../../mine.txt",
     "figures/../mine.txt", ".", "..", "", "mine.txt", "figures/a/b.png", 3, None, ["run.json"]],
)  # fmt: skip
def test_a_list_of_files_cannot_reach_out_of_its_folder(tmp_path, name):
    """run.json may come from anywhere: what it lists is only removed if a command writes such files."""
    folder, mine = tmp_path / "runs", tmp_path / "mine.txt"
    (folder / "figures").mkdir(parents=True)
    for path in (mine, folder / "mine.txt"):
        path.write_text("mine")
    record = {"versions": {"bilo-ppl": "0"}, "files": [name, "posterior.nc"]}
    (folder / "run.json").write_text(json.dumps(record))
    found = listed(folder)
    assert found == {"run.json", "posterior.nc"}
    remove(folder, found, lambda path: False)
    assert mine.read_text() == (folder / "mine.txt").read_text() == "mine"
    assert not (folder / "run.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"versions": 3}',
        '{"versions": {"bilo-ppl": 1}, "files": 3}',
        '{"files": ["posterior.nc"]}',
        "[" * 20_000,
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_a_record_that_is_none_owns_nothing_that_it_could_not_have_written(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "mine.txt").write_text("mine")
    found = listed(tmp_path)
    assert found is None or found <= {"run.json"}


def test_a_link_in_the_place_of_a_result_is_removed_and_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    folder = tmp_path / "runs"
    folder.mkdir()
    os.symlink(tmp_path / "mine.txt", folder / "posterior.nc")
    assert present(folder, ["posterior.nc"]) == ["posterior.nc"]
    remove(folder, ["posterior.nc"], lambda path: False)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not os.path.lexists(folder / "posterior.nc")

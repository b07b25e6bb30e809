"""Where a person begins: the list of models, and a file to change."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from bilo_ppl.cli import main
from bilo_ppl.run.model_file import load_model, short_names


def test_the_list_has_a_line_on_every_model(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("models").mkdir()
    pathlib.Path("models/broken.py").write_text("def f(:")
    pathlib.Path("models/mute.py").write_text("raise SystemExit('a list runs nothing')")
    assert main(["list"]) == 0
    lines = dict(
        line.split(None, 1) for line in capsys.readouterr().out.splitlines() if " " in line.strip()
    )
    assert lines.pop("broken") == "(cannot be read)"
    assert set(lines) == set(short_names()) - {"broken", "mute"}
    assert lines["poisson"].startswith("Poisson equation with an unknown diffusion coefficient")


@pytest.fixture
def closed_pipe():
    """The end to write to of a pipe that nobody reads any more, as that into ``| head``."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as end:
        yield end


def test_a_list_whose_reader_has_gone_ends_without_a_word(closed_pipe):
    command = [sys.executable, "-m", "bilo_ppl", "list"]
    ended = subprocess.run(command, stdout=closed_pipe, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_new_file_is_there_whoever_has_stopped_listening(folder, closed_pipe, monkeypatch):
    monkeypatch.setattr(sys, "stdout", closed_pipe)
    assert main(["new", "rod"]) == 0
    assert pathlib.Path("rod.py").stat().st_size > 1000


def test_a_new_file_is_a_model_file_whose_solution_is_that_of_its_equation(folder, capsys):
    assert main(["new", "rod"]) == 0
    assert "bilo-ppl run rod.py" in capsys.readouterr().out
    file = load_model("rod.py")
    assert file.description.splitlines()[-1].strip() == "bilo-ppl run rod.py"
    data = file.observations(0)
    u, _, info = file.reference().solve(file.truth, ())
    assert info.converged
    x = np.asarray(data.x)
    np.testing.assert_allclose([u(p) for p in x], [file.exact(p) for p in x], rtol=1e-4)
    assert [file.exact(np.array([end])) for end in (0.0, 1.0)] == pytest.approx([100.0, 60.0])
    quick = [
        "--operator",
        "numerical",
        "--quiet",
        "--chains",
        "2",
        "--warmup",
        "150",
        "--samples",
        "150",
    ]
    assert main(["run", "rod.py", *quick, "--out", "here"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rod", "rod.py is there already"),
        ("my-rod", "give it a name of letters, digits and _"),
        ("", "name is empty"),
    ],
)
def test_a_name_that_will_not_do_is_refused(folder, capsys, name, message):
    pathlib.Path("rod.py").write_text("mine")
    assert main(["new", name]) == 2
    assert message in capsys.readouterr().err
    assert pathlib.Path("rod.py").read_text() == "mine"

"""The notebooks: each runs in its quick form, and what is stored is that notebook, executed."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
LARGEST = 300_000
"""Bytes of a notebook with its outputs."""

CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def cells_of(text):
    """Kind and source of every cell of a script in the percent format, as a notebook holds them."""
    parts = CELL.split(text)[1:]
    for mark, source in zip(parts[::2], parts[1::2], strict=True):
        lines = source.strip("\n").split("\n")
        if "[markdown]" in mark:
            yield "markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
        else:
            # A magic is a comment in the script.
            yield "code", "\n".join(re.sub(r"^# %(?=\w)", "%", line) for line in lines)


def notebook(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_quick_form_runs(name, tmp_path):
    quickly = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    environment = {
        **os.environ,
        "BILO_QUICK": "1",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", quickly),
    }
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_notebook_is_the_script(name):
    script = list(cells_of((FOLDER / f"{name}.py").read_text()))
    stored = [(c["cell_type"], "".join(c["source"])) for c in notebook(name)["cells"]]
    assert stored == script
    assert notebook(name)["metadata"]["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_notebook_was_executed_whole(name):
    code = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    figures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert figures
    assert all(base64.b64decode(figure).startswith(b"\x89PNG") for figure in figures)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_outputs_name_no_place_on_the_machine(name):
    assert not re.search(r"/(tmp|home|root|Users)/", json.dumps(notebook(name)["cells"]))


def test_every_notebook_has_its_script_and_a_line_in_the_documentation():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert set(re.findall(r"`(\w+)\.ipynb`", page)) == set(NAMES)

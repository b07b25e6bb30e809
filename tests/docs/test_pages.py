"""The documentation: its code runs as it stands there, and all public names are in its reference."""

import pathlib
import re
import sys

import matplotlib.pyplot as plt
import pytest

import bilo_ppl
from bilo_ppl.run.model_file import load_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

BLOCK = re.compile(r"^(?:```python|<!-- python)\n(.*?)^(?:```|-->)", re.MULTILINE | re.DOTALL)
"""A block of code, or a comment that a reader does not see: what a block takes for granted."""

FILE = re.compile(r"# (\w+\.py)\n")

FEWER = (("num_warmup=500", "num_warmup=10"), ("num_samples=1000", "num_samples=20"))

DEAR = ("python.md", "devices.md")
"""Pages whose code pretrains and adapts; `devices.md` is for several hosts, and only read."""

PAGES = sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text()))


def run(page, folder):
    """All blocks of a page, one after the other; those that begin with the name of a file become one."""
    names = {}
    for number, block in enumerate(BLOCK.findall((DOCS / page).read_text())):
        file = FILE.match(block)
        for much, little in FEWER:
            block = block.replace(much, little)
        if file:
            (folder / file[1]).write_text(block)
        else:
            exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Pages have a my_problem each.
    monkeypatch.delitem(sys.modules, "my_problem", raising=False)
    yield tmp_path
    sys.modules.pop("my_problem", None)
    plt.close("all")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in DEAR])
def test_the_code_of_a_page_runs(page, folder):
    run(page, folder)
    for file in folder.glob("*.py"):
        assert load_model(str(file)).synthetic_data(0)["x"].shape[1] == 1


@pytest.mark.slow
def test_the_code_from_python_finds_the_rate(folder):
    names = run("python.md", folder)
    r = names["idata"]["posterior"]["r"].values
    # The data are of r = 9.
    assert abs(r.mean() - 9) < 2
    assert names["draws"].samples["r"].shape == r.shape


def test_the_files_for_several_hosts_can_be_read():
    blocks = BLOCK.findall((DOCS / "devices.md").read_text())
    assert [compile(block, "devices.md", "exec") for block in blocks if FILE.match(block)]


def test_the_reference_has_all_public_names():
    listed = set()
    for path in (DOCS / "api").glob("*.md"):
        listed |= set(re.findall(r"^::: bilo_ppl\.(\w+)$", path.read_text(), re.MULTILINE))
    assert set(bilo_ppl.__all__) - listed == set()
    assert {name for name in listed if not hasattr(bilo_ppl, name)} == set()


def test_readme_and_the_first_page_show_the_same_problem():
    pages = [ROOT / "README.md", DOCS / "first-posterior.md"]
    one, other = (
        re.search(r"# my_problem\.py\n.*?```", page.read_text(), re.DOTALL)[0] for page in pages
    )
    code = [re.sub(r"\s*points = .*|#.*", "", text) for text in (one, other)]
    assert code[0] == code[1]

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

ANY_BLOCK = re.compile(r"^ *(?:```|~~~)(\S*)[^\n]*\n(.*?)^ *(?:```|~~~)", re.MULTILINE | re.DOTALL)
"""A fenced block of any language, and the language."""

NOT_RUN = {"sh", "bash", "console", "text", "json", ""}

CODE = re.compile(
    r"^\s*(?:import|from|def|class|for|with|return) .*\w|^\s*[\w., ]+ = \S|\w\(.*\)", re.MULTILINE
)
"""What a line of Python looks like, and no line of a shell, of JSON or of a table."""

FEWER = (
    (r"\bnum_warmup=500\b", "num_warmup=10"),
    (r"\bnum_samples=1000\b", "num_samples=20"),
    (r"\bsteps=\d[\d_]{3,}", "steps=5"),
    (r"\bmax_tree_depth=8\b", "max_tree_depth=2"),
    (r"\bkey, 400\b", "key, 40"),
    (r"\(50, 50\)", "(24, 24)"),
    (r"\bgrid\(51, 51\)", "grid(25, 25)"),
    (r"\bgrid\(257\)", "grid(33)"),
)

DEAR = ("python.md", "devices.md")
"""Pages whose code pretrains and adapts; `devices.md` is for several hosts, and only read."""

SLOW = ("compare.md", "derived.md")
"""Pages that compile much."""

PAGES = sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text()))


def run(page, folder):
    """All blocks of a page, one after the other; those that begin with the name of a file become one."""
    names = {}
    for number, block in enumerate(BLOCK.findall((DOCS / page).read_text())):
        file = FILE.match(block)
        for much, little in FEWER:
            block = re.sub(much, little, block)
        if file:
            (folder / file[1]).write_text(block)
        else:
            exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


def left_out(text):
    """Of a page, the blocks that nobody runs though they are Python, or of a language unheard of."""
    blocks = ANY_BLOCK.findall(text)
    return [
        code
        for language, code in blocks
        if language != "python" and (language not in NOT_RUN or CODE.search(code))
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Pages have a my_problem each.
    monkeypatch.delitem(sys.modules, "my_problem", raising=False)
    yield tmp_path
    sys.modules.pop("my_problem", None)
    plt.close("all")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page
        for page in PAGES
        if page not in DEAR
    ],
)
def test_the_code_of_a_page_runs(page, folder):
    run(page, folder)
    for file in folder.glob("*.py"):
        assert load_model(str(file)).synthetic_data(0)["x"].shape[1] == 1


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name
)
def test_no_block_of_code_is_left_unrun(page):
    text = page.read_text()
    assert left_out(text) == []
    assert text.count("\n```") == 2 * len(ANY_BLOCK.findall(text))
    runs = {code for language, code in ANY_BLOCK.findall(text) if language == "python"}
    assert runs <= set(BLOCK.findall(text))


@pytest.mark.parametrize(
    "block",
    [
        "```py\nx = 1\n```\n",
        "```\nimport bilo_ppl\n```\n",
        "```text\noperator = adapt(model, key)\n```\n",
        "  ```Python\nx\n  ```\n",
        "~~~\nprint(1)\n~~~\n",
    ],
)
def test_a_block_of_code_that_would_be_left_unrun_is_found(block):
    assert len(left_out(block)) == 1


@pytest.mark.slow
def test_the_code_from_python_finds_the_rate(folder):
    names = run("python.md", folder)
    r = names["idata"]["posterior"]["r"].values
    # The data are of r = 9.
    assert abs(r.mean() - 9) < 2
    assert names["draws"].samples["r"].shape == r.shape


@pytest.mark.parametrize("page", [*SLOW, *DEAR])
def test_the_code_of_a_page_that_is_dear_can_be_read(page):
    blocks = BLOCK.findall((DOCS / page).read_text())
    assert [compile(block, page, "exec") for block in blocks]


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

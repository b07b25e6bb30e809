"""The examples in docstrings: every public name has one, and what they show is what comes out."""

import doctest
import functools
import importlib
import inspect
import pathlib
import re
import tempfile

import pytest

import bilo_ppl

ROOT = pathlib.Path(__file__).resolve().parents[2]
API = ROOT / "docs" / "api"
SETUP = "examples.md"
PAGES = sorted(path.name for path in API.glob("*.md") if path.name != SETUP)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF


def found(path):
    """What a dotted name stands for: a module, a function or a class."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        owner, _, name = path.rpartition(".")
        return getattr(found(owner), name)


def documented(page):
    """What is on a page of the reference, by name and in its order; of modules, the functions."""
    listed = {}
    for path in re.findall(r"^::: ([\w.]+)$", (API / page).read_text(), re.MULTILINE):
        thing = found(path)
        if inspect.ismodule(thing):
            members = {f"{path}.{name}": getattr(thing, name) for name in thing.__all__}
            listed |= {name: f for name, f in members.items() if inspect.isfunction(f)}
        else:
            listed[path] = thing
    return listed


@functools.cache
def examples():
    """By page and name, the examples of a docstring, from the place where they are written."""
    parser = doctest.DocTestParser()
    return {
        page: {
            name: parser.get_doctest(inspect.getdoc(thing), {}, name, None, None)
            for name, thing in documented(page).items()
        }
        for page in PAGES
    }


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page says that examples take for granted."""
    code = re.search(r"```python\n(.*?)```", (API / SETUP).read_text(), re.DOTALL)[1]
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("examples")))
        exec(compile(code, SETUP, "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_show_what_comes_out(page, names):
    wrong, runner = [], doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    known = dict(names)
    for test in examples()[page].values():
        test.globs = known
        runner.run(test, out=wrong.append, clear_globs=False)
    assert runner.tries > 0
    assert not wrong, "".join(wrong)


def test_every_public_name_has_an_example():
    shown = {name: bool(t.examples) for page in examples().values() for name, t in page.items()}
    assert [name for name, has_one in shown.items() if not has_one] == []
    assert {f"bilo_ppl.{name}" for name in bilo_ppl.__all__} - set(shown) == set()


def test_no_example_is_left_unrun():
    prompts = re.compile(r"^ +>>> ", re.MULTILINE)
    written = sum(
        len(prompts.findall(path.read_text())) for path in (ROOT / "bilo_ppl").rglob("*.py")
    )
    assert written == sum(len(t.examples) for page in examples().values() for t in page.values())
    skipped = re.compile(r"doctest: *\+SKIP")
    assert not any(skipped.search(p.read_text()) for p in (ROOT / "bilo_ppl").rglob("*.py"))


@pytest.mark.parametrize(
    "module",
    ["jax", "jax.numpy", "jax.lax", "numpy", "numpyro", "equinox", "functools", "builtins"],
)
def test_a_star_import_shadows_no_name(module):
    theirs = {name for name in dir(importlib.import_module(module)) if not name.startswith("_")}
    assert theirs & set(bilo_ppl.__all__) == set()


def test_after_star_imports_grad_is_still_that_of_jax():
    import jax

    names = {}
    exec("from jax import *\nfrom functools import *\nfrom bilo_ppl import *", names)
    assert names["grad"] is jax.grad
    assert names["partial"] is functools.partial
    assert bilo_ppl.grad is not jax.grad
    assert names["laplacian"] is bilo_ppl.laplacian

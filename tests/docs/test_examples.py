"""The examples in docstrings: every public name has one, and what they show is what comes out."""

import doctest
import functools
import importlib
import inspect
import pathlib
import pkgutil
import re
import tempfile
import types

import pytest

import bilo_ppl

ROOT = pathlib.Path(__file__).resolve().parents[2]
API = ROOT / "docs" / "api"
SETUP = "examples.md"
PAGES = sorted(path.name for path in API.glob("*.md") if path.name != SETUP)
PACKAGES = ["bilo_ppl"] + [
    package.name
    for package in pkgutil.walk_packages(bilo_ppl.__path__, "bilo_ppl.")
    if package.ispkg and hasattr(importlib.import_module(package.name), "__all__")
]
"""Those that say what can be imported from them."""

LEFT_OUT = {
    "bilo_ppl.run.report.write_report": "takes the record of a run in progress, which commands have",
}
"""Names that stand on no page of the reference, and why."""

WITHOUT_EXAMPLE = {
    "bilo_ppl.anatomy.template_slice": "its maps come with nilearn, which need not be installed",
    "bilo_ppl.plots.COLOURS": "a constant",
    "bilo_ppl.plots.INK": "a constant",
}
"""Names of the reference that have no example, and why."""

METHODS = types.FunctionType, types.MethodType, property, functools.cached_property

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF


def found(path):
    """What a dotted name stands for; where a function has the name of its module, the function."""
    owner, _, name = path.rpartition(".")
    if not owner:
        return importlib.import_module(path)
    try:
        return getattr(found(owner), name)
    except AttributeError:
        pass
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(owner), name)


def documented(page):
    """What is on a page of the reference, by name and in its order; of modules, classes come first."""
    listed = {}
    for path in re.findall(r"^::: ([\w.]+)$", (API / page).read_text(), re.MULTILINE):
        thing = found(path)
        if inspect.ismodule(thing):
            members = {f"{path}.{name}": getattr(thing, name) for name in thing.__all__}
            listed |= dict(sorted(members.items(), key=lambda item: not inspect.isclass(item[1])))
        else:
            listed[path] = thing
    return listed


def docstrings(name, thing):
    """Of a thing, and of the methods of a class, by name."""
    yield name, inspect.getdoc(thing) if callable(thing) else None
    if inspect.isclass(thing):
        for method in vars(thing):
            member = getattr(thing, method)
            if not method.startswith("_") and isinstance(member, METHODS):
                yield f"{name}.{method}", member.__doc__


@functools.cache
def examples():
    """By page and name, the examples of a docstring; of methods, where there are some."""
    parser, pages = doctest.DocTestParser(), {}
    for page in PAGES:
        listed = documented(page)
        tests = {
            name: parser.get_doctest(inspect.cleandoc(text or ""), {}, name, None, None)
            for top, thing in listed.items()
            for name, text in docstrings(top, thing)
        }
        pages[page] = {
            name: test for name, test in tests.items() if test.examples or name in listed
        }
    return pages


def left_off(listed):
    """Names of public packages that are neither ``listed``, things by name, nor left out for a reason."""
    things = {id(thing) for thing in listed.values()}
    public = {
        f"{path}.{name}": found(f"{path}.{name}")
        for path in PACKAGES
        for name in found(path).__all__
    }
    return sorted(
        name
        for name, thing in public.items()
        if name not in listed and name not in LEFT_OUT and id(thing) not in things
    )


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
    assert {name for name, has_one in shown.items() if not has_one} == set(WITHOUT_EXAMPLE)
    assert {f"bilo_ppl.{name}" for name in bilo_ppl.__all__} - set(shown) == set()


def test_every_public_name_stands_in_the_reference():
    listed = {name: thing for page in PAGES for name, thing in documented(page).items()}
    assert left_off(listed) == []
    assert set(listed) & set(LEFT_OUT) == set()
    assert all(found(name) is not None for name in LEFT_OUT)


@pytest.mark.parametrize(
    "name", ["bilo_ppl.certify", "bilo_ppl.mcmc.PCN", "bilo_ppl.run.start.new_model"]
)
def test_a_public_name_that_is_on_no_page_is_found(name):
    listed = {name: thing for page in PAGES for name, thing in documented(page).items()}
    del listed[name]
    assert left_off(listed) == [name]


def test_no_name_is_on_two_pages():
    listed = [name for page in PAGES for name in documented(page)]
    assert len(listed) == len(set(listed))


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

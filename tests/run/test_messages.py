"""What the command line says: an option that a message or a page names is one that there is."""

import argparse
import ast
import pathlib
import re
import tomllib

from bilo_ppl import _pages
from bilo_ppl._pages import see
from bilo_ppl.cli import _parser

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*(?![\w-])")
COMMAND = re.compile(r"bilo-ppl (run|map|compare|report|list|new)\b([^\n`|;]*)")
OF_OTHERS = {"--xla"}
"""Beginnings of flags that are XLA's."""

OF_A_COMMAND = {"sample": {"run"}, "map": {"map"}, "compare": {"compare"}, "report": {"report"}}
"""Folders of run/ whose messages are those of one command."""


def flags():
    """The flags of every command, by its name."""
    subparsers = next(
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        name: {flag for action in parser._actions for flag in action.option_strings}
        for name, parser in subparsers.choices.items()
    }


def texts(path):
    """The strings of a module that are no docstrings: what it may say."""
    tree = ast.parse(path.read_text())
    silent = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in silent
        ):
            yield node.value


def named():
    """Pairs of a file and a flag that it names in what it says."""
    for path in sorted((ROOT / "bilo_ppl").rglob("*.py")):
        if path.name in {"options.py", "cli.py", "html.py"}:
            continue  # where flags are made; where two dashes begin a variable of a style sheet
        for text in texts(path):
            for flag in FLAG.findall(text):
                if flag not in OF_OTHERS:
                    yield path.relative_to(ROOT / "bilo_ppl"), flag


def test_options_that_messages_name_are_those_of_their_command():
    known, seen = flags(), list(named())
    assert len({flag for _, flag in seen}) > 20
    for path, flag in seen:
        folder = path.parts[1] if path.parts[0] == "run" and len(path.parts) > 2 else ""
        commands = OF_A_COMMAND.get(folder, set(known))
        assert any(flag in known[name] for name in commands), f"{path} names {flag}"


def test_commands_in_the_documentation_have_the_options_they_are_given():
    known, seen = flags(), 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for name, rest in COMMAND.findall(page.read_text()):
            for flag in FLAG.findall(rest):
                seen += 1
                assert flag in known[name], f"{page.name}: bilo-ppl {name} has no {flag}"
    assert seen > 5


SAID_BY = {
    "run": 160, "adaptation": 160, "diagnostics": 160, "estimate": 120, "mcmc": 120, "inner": 120,
    "pde": 160, "ppl": 160, "numerics": 160, "operators": 160, "network": 160, "validation": 160,
    "fields": 160, "baselines": 160, "surrogates": 160, "anatomy": 160, "plots": 160,
}  # fmt: skip
"""Characters that a message of a folder has, without what is put into it; a page says more."""


def messages():
    """Places, texts and longest of what the modules say; not what ``--help`` does."""
    for folder, longest in SAID_BY.items():
        for path in sorted((ROOT / "bilo_ppl" / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            parts = [n for node in ast.walk(tree) for n in _no_messages(node)]
            silent = {id(part) for part in parts}
            for node in ast.walk(tree):
                if id(node) not in silent and (text := _literal(node)) is not None:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text, longest


def _no_messages(node):
    """Docstrings, what helps with an option, and the parts of texts that are put together."""
    if isinstance(node, ast.Expr):
        yield node.value
    if isinstance(node, ast.keyword) and node.arg == "help":
        yield node.value
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "option":
        yield from node.args
    if isinstance(node, ast.JoinedStr):
        yield from node.values


def _literal(node):
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value for part in node.values if isinstance(part, ast.Constant))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_messages_are_short():
    found = [one for one in messages() if "\n" not in one[1].strip()]
    assert len(found) > 1000
    assert {place.split("/")[1] for place, _, _ in found} == set(SAID_BY)
    long = {place: text for place, text, longest in found if len(text) > longest}
    assert not long


def pointers():
    """What the modules give `see`: a heading, and a page if it is not the usual one."""
    for path in sorted((ROOT / "bilo_ppl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "see":
                heading, *page = (ast.literal_eval(argument) for argument in node.args)
                yield heading, (page or ["verdicts"])[0]


def test_where_a_message_points_to_there_is_more():
    found = set(pointers())
    assert len(found) > 8
    for heading, page in found:
        text = (ROOT / "docs" / f"{page}.md").read_text()
        assert heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE), heading
    assert see("Several modes") == 'See "Several modes" in docs/verdicts.md.'


def test_the_pages_that_messages_point_to_are_installed(tmp_path, monkeypatch):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    for page in {page for _, page in pointers()}:
        assert included[f"docs/{page}.md"] == f"bilo_ppl/docs/{page}.md"
    assert _pages.INSTALLED == ROOT / "bilo_ppl" / "docs"
    monkeypatch.setattr(_pages, "INSTALLED", tmp_path)
    (tmp_path / "data.md").write_text("# Data")
    assert see("Data", "data") == f'See "Data" in {tmp_path / "data.md"}.'
    assert see("Several modes").endswith(" in docs/verdicts.md.")

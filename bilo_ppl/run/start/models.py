"""``bilo-ppl list``: the models that have a short name, with a line on each."""

import ast
import dataclasses
import pathlib
import sys

from bilo_ppl._output import put
from bilo_ppl.run.model_file import short_names

__all__ = ["ListSettings", "first_line", "list_models"]


@dataclasses.dataclass(frozen=True)
class ListSettings:
    """``bilo-ppl list`` has no options.

    Examples:
        >>> from bilo_ppl.run.start import ListSettings
        >>> ListSettings()
        ListSettings()
    """

    GROUPS = ()


def list_models(settings: ListSettings) -> int:
    """Print the short names of the models, with the first lines of their docstrings; the status is 0.

    Examples:
        >>> from bilo_ppl.run.start import ListSettings, list_models
        >>> list_models(ListSettings())
        boundary_toy ...
        poisson            Poisson equation with an unknown diffusion coefficient D: ...
        0
    """
    names = short_names()
    width = max(map(len, names), default=0)
    for name, path in sorted(names.items()):
        put(sys.stdout, f"{name:{width}}  {first_line(path)}")
    return 0


def first_line(path: pathlib.Path) -> str:
    """Of the docstring of a Python file, which is read and not run; nothing where there is none."""
    try:
        text = ast.get_docstring(ast.parse(path.read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return "(cannot be read)"
    return text.splitlines()[0] if text else ""

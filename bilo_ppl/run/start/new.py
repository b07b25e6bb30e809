"""``bilo-ppl new NAME``: a model file to change, which runs as it stands."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import dataclasses
import os
import pathlib
import sys

from bilo_ppl._files import replacing
from bilo_ppl._output import put
from bilo_ppl.run.errors import BadInputError, refusing
from bilo_ppl.run.options import check_options, option

__all__ = ["NewSettings", "new_model"]

TEMPLATE = pathlib.Path(__file__).with_name("template.py")


@dataclasses.dataclass(frozen=True)
class NewSettings:
    """The option of ``bilo-ppl new``; a bad one is a `BadInputError`.

    Examples:
        >>> from bilo_ppl.run.start import NewSettings
        >>> NewSettings("cooling").name
        'cooling'
    """

    GROUPS = ()

    name: str | os.PathLike = option(help="name, or path, of the file to write; .py is added")

    def __post_init__(self):
        with refusing():
            check_options(self)


def new_model(settings: NewSettings) -> int:
    """Write a model file with comments that say what to change; the exit status is 0.

    Raises `BadInputError` for a file that is there already, and one that cannot be written.

    Examples:
        >>> from bilo_ppl.run.start import NewSettings, new_model
        >>> new_model(NewSettings(folder / "cooling"))
        Wrote ...cooling.py. It runs as it stands:
          bilo-ppl run ...cooling.py
        0
        >>> new_model(NewSettings(folder / "cooling"))
        Traceback (most recent call last):
            ...
        bilo_ppl.run.errors.BadInputError: ...cooling.py is there already; give another name.
    """
    path = pathlib.Path(settings.name)
    path = path if path.suffix == ".py" else path.with_name(f"{path.name}.py")
    if not path.stem.isidentifier():
        raise BadInputError(
            f"{path.name}: a model file is a Python file; give it a name of letters, digits and _."
        )
    if path.exists() or path.is_symlink():
        raise BadInputError(f"{path} is there already; give another name.")
    text = TEMPLATE.read_text(encoding="utf-8").replace("template.py", path.name)
    with refusing(), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    put(sys.stdout, f"Wrote {path}. It runs as it stands:\n  bilo-ppl run {path}")
    return 0

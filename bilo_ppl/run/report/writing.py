"""The page of a run, written at its end, or by ``bilo-ppl report`` for a folder that is there."""

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from bilo_ppl._files import replacing
from bilo_ppl._output import put
from bilo_ppl.run.errors import BadInputError
from bilo_ppl.run.listing import listed
from bilo_ppl.run.record import Record, plain, warn
from bilo_ppl.run.report.sections import run_page
from bilo_ppl.run.report.settings import ReportSettings

__all__ = ["REPORT", "report_run", "write_report"]

REPORT = "report.html"


def write_report(record: Record) -> None:
    """Write the page of a run that ends, beside its other results."""
    work = record.folder.work
    try:
        path = record.path(REPORT)
        _write(path, run_page(plain(record.content), work, _estimates(work)))
    except OSError as error:
        warn(
            f"{REPORT} cannot be written ({error.strerror or error}): bilo-ppl report makes it later."
        )


def report_run(settings: ReportSettings) -> int:
    """Write the page of a run that has ended; the exit status is 0.

    Raises `BadInputError` where the folder holds no run, or cannot be read or written.

    Examples:
        >>> from bilo_ppl.run.report import ReportSettings, report_run
        >>> report_run(ReportSettings(folder))
        Traceback (most recent call last):
            ...
        bilo_ppl.run.errors.BadInputError: ... holds no run: there is no run.json of bilo-ppl. ...
    """
    folder = pathlib.Path(settings.folder)
    if listed(folder) is None:
        raise BadInputError(
            f"{folder} holds no run: there is no run.json of bilo-ppl. Give the folder that a run has "
            "named as that of its results."
        )
    path = pathlib.Path(settings.out) if settings.out is not None else folder / REPORT
    try:
        content = json.loads((folder / "run.json").read_text())
        _write(path, run_page(content, folder, _estimates(folder)))
    except OSError as error:
        where = error.filename or path
        raise BadInputError(f"cannot read or write {where} ({error.strerror}).") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{folder / 'run.json'} is not as a run writes it ({type(error).__name__}: {error})."
        ) from error
    put(sys.stdout, str(path))
    return 0


def _estimates(folder: pathlib.Path) -> Mapping[str, Any] | None:
    path = folder / "map.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _write(path: pathlib.Path, page: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")

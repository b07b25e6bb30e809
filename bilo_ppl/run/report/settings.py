"""What can be asked of ``bilo-ppl report``."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import dataclasses
import os

from bilo_ppl.run.errors import refusing
from bilo_ppl.run.options import check_options, option

__all__ = ["ReportSettings"]


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The options of ``bilo-ppl report``; bad ones are a `BadInputError`.

    Examples:
        >>> from bilo_ppl.run.report import ReportSettings
        >>> settings = ReportSettings("runs/poisson-nuts", out="poisson.html")
        >>> settings.folder, settings.out
        ('runs/poisson-nuts', 'poisson.html')
    """

    GROUPS = ()

    folder: str | os.PathLike = option(help="the folder of a run, or of estimates")
    out: str | os.PathLike | None = option(
        None, help="the file to write", unset="report.html in the folder", metavar="FILE"
    )

    def __post_init__(self):
        with refusing():
            check_options(self)

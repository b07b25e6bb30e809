"""What a page says of a comparison: which methods have ended, how right they are, what they cost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bilo_ppl.run.report.html import section, table, text

__all__ = ["compared", "ended"]

COST = ("CPU s", "compiling, s", "evaluations", "MB", "training set")
NOTES = "notes"

Methods = Mapping[str, Mapping[str, Any]]
"""By method its line of the table: entries by the name of a column, None where there is nothing."""


def ended(methods: Methods, status: str) -> str:
    """How many methods have ended, and how those did that have not."""
    failed = {name: line[NOTES] for name, line in methods.items() if _failed(line)}
    number = len(methods) - len(failed)
    state = "FAILED" if not number else "DOUBTFUL" if failed or status != "finished" else "RIGHT"
    said = f"{number} of {len(methods)} methods have ended"
    said += "." if status == "finished" else f"; the comparison is {status}."
    lines = "".join(f"<p><b>{text(name)}</b>: {text(note)}</p>" for name, note in failed.items())
    return f'<div class="verdict {state}"><strong>{text(said)}</strong>{lines}</div>\n'


def compared(methods: Methods, legend: Sequence[str]) -> str:
    """The table in two, and what its columns are."""
    done = {name: line for name, line in methods.items() if not _failed(line)}
    columns = list(dict.fromkeys(column for line in done.values() for column in line))
    right = [name for name in columns if name not in COST]
    return section(
        "Methods",
        _table(done, [name for name in right if name != NOTES] + [NOTES]),
        f'<p class="soft">{text(" ".join(legend))}</p>',
    ) + section("Cost", _table(done, [name for name in COST if name in columns]))


def _failed(line: Mapping[str, Any]) -> bool:
    """Whether it has on no data set come to an end."""
    return line.get(COST[0]) is None


def _table(methods: Methods, columns: Iterable[str]) -> str:
    """Without columns in which nothing is said."""
    shown = [c for c in columns if any(line.get(c) not in {None, ""} for line in methods.values())]
    rows = [[name, *(line.get(c) for c in shown)] for name, line in methods.items()]
    return table(["", *shown], rows) if rows else ""

"""What a page says of a comparison: which methods have ended, how right they are, what they cost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bilo_ppl.run.report.html import number, section, table, text

__all__ = ["chosen", "compared", "ended", "spent"]

COST = ("CPU s", "compiling, s", "evaluations", "MB", "training set")
NOTES = "notes"

ASKED = {
    "limit": "seconds that a method may take on a data set",
    "seeds": "data sets",
    "noise": "noise sd of the data",
    "chains": "chains",
    "warmup": "warm-up transitions of each",
    "samples": "draws of each",
    "seed": "seed",
}
"""Arguments of a comparison that all methods share, and what they are."""

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


def chosen(content: Mapping[str, Any]) -> str:
    """What was asked of all methods, and what each of them is and was done with."""
    asked = content.get("arguments") or {}
    own = "".join(
        f"<p><b>{text(name)}</b>: {text(one['what'])}{_listed(one.get('settings') or {})}.</p>"
        for name, one in (content.get("method_settings") or {}).items()
    )
    rows = [[what, asked[name]] for name, what in ASKED.items() if asked.get(name) is not None]
    return section("Settings", table(["asked of all", "value"], rows) if rows else "", own)


def spent(content: Mapping[str, Any]) -> str:
    """Of each method its stages; of several data sets the mean."""
    times = content.get("method_times") or {}
    stages = list(dict.fromkeys(stage for one in times.values() for stage in one["cpu_seconds"]))
    rows = [
        [
            name,
            *map(one["cpu_seconds"].get, stages),
            one["compile_seconds"],
            one["wall_seconds"],
        ]
        for name, one in times.items()
    ]
    heads = ["CPU seconds of", *stages, "compiling, wall s", "in all, wall s"]
    return section("Time by stage", table(heads, rows)) if rows else ""


def _listed(settings: Mapping[str, Any]) -> str:
    """After a semicolon."""
    said = ", ".join(f"{text(name)} {number(value)}" for name, value in settings.items())
    return f"; {said}" if said else ""


def _failed(line: Mapping[str, Any]) -> bool:
    """Whether it has on no data set come to an end."""
    return line.get(COST[0]) is None


def _table(methods: Methods, columns: Iterable[str]) -> str:
    """Without columns in which nothing is said."""
    shown = [c for c in columns if any(line.get(c) not in {None, ""} for line in methods.values())]
    rows = [[name, *(line.get(c) for c in shown)] for name, line in methods.items()]
    return table(["", *shown], rows) if rows else ""

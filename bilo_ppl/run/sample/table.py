"""The table of a run in short: of long vectors the entries that are known worst."""

from collections.abc import Mapping
from typing import Any

from bilo_ppl._units import labelled

__all__ = ["least_known", "shown_table"]

MANY, SHOWN = 12, 6
"""Entries of a site from which on only a few are shown, and how many: those with the fewest effective
draws."""


def shown_table(table: Any, units: Mapping[str, str] | None = None) -> str:
    """A summary as text, names with their units.

    Sites of more than 12 entries are shown by a few of them, and a line says so.
    """
    kept: list[str] = []
    notes: list[str] = []
    for site, entries in _by_site(table).items():
        few = entries
        if len(entries) > MANY:
            few = _least_known(table.loc[entries], SHOWN)
            notes.append(
                f"Of {site} the {SHOWN} of {len(entries)} entries with the fewest effective draws; "
                "summary.csv has all."
            )
        kept += few
    shown = table.loc[kept].rename(index=lambda name: labelled(str(name), units))
    text = shown.to_string(float_format=lambda v: f"{v:.4g}")
    return "\n".join([text, *notes])


def least_known(table: Any, count: int) -> list[str]:
    """Names of the entries with the fewest effective draws, in the order of the table."""
    return list(table.index) if len(table) <= count else _least_known(table, count)


def _least_known(table: Any, count: int) -> list[str]:
    ess = table[["ess_bulk", "ess_tail"]].min(axis=1)
    chosen = set(ess.sort_values(na_position="first").index[:count])
    return [name for name in table.index if name in chosen]


def _by_site(table: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in table.index:
        found.setdefault(str(name).partition("[")[0], []).append(name)
    return found

"""Units of what has a name, for tables and figures."""

from collections.abc import Mapping

__all__ = ["labelled"]


def labelled(name: str, units: Mapping[str, str] | None) -> str:
    """A name with its unit, if it has one; an entry such as ``b[1]`` has that of ``b``."""
    known = units or {}
    unit = known.get(name, known.get(name.partition("[")[0], ""))
    return f"{name} ({unit})" if unit else name

"""Options, each defined once: its flag, its help, its check, and its entry in run.json.

An option is a field of a dataclass of settings, made by `option`. Its name, with ``-`` for ``_``, is the
flag, and its type that of the value: text, a whole number, a number, or a switch.
"""

import argparse
import dataclasses
import math
import numbers
import os
import typing
from types import NoneType
from typing import Any

__all__ = ["add_options", "arguments_for", "changed", "check_options", "default_of", "option"]

_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}

GREATEST_SHOWN = 10**40
"""Python refuses to write out numbers of thousands of digits."""


@dataclasses.dataclass(frozen=True)
class _Option:
    help: str
    group: str | None
    choices: tuple[str, ...] | None
    least: int | float | None
    most: int | float | None
    positive: bool
    rule: str | None
    unset: str | None
    metavar: str | None


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    group: str | None = None,
    choices: tuple[str, ...] | None = None,
    least: int | float | None = None,
    most: int | float | None = None,
    positive: bool = False,
    rule: str | None = None,
    unset: str | None = None,
    metavar: str | None = None,
) -> Any:
    """A field of a settings class; without ``default`` it is a positional argument.

    A switch that is on by default has a flag ``--no-name``, which ``help`` then describes. ``unset``
    says what holds where the value is None. ``group`` is a title in the class's ``GROUPS``. ``rule``
    ends the message about a number below ``least``, or not ``positive``, instead of a general phrase.
    ``most`` is a number beyond which nothing could be meant, or no computer could do it.
    """
    return _field(
        default, _Option(help, group, choices, least, most, positive, rule, unset, metavar)
    )


def changed(settings_class: Any, name: str, default: Any = None, **changes: Any) -> Any:
    """The option of a base class with another default, or with other arguments of `option`."""
    fields = {field.name: field for field in dataclasses.fields(settings_class)}
    return _field(default, dataclasses.replace(fields[name].metadata[_Option], **changes))


def _field(default: Any, found: _Option) -> Any:
    positional = default is dataclasses.MISSING
    return dataclasses.field(default=default, kw_only=not positional, metadata={_Option: found})


def check_options(settings: Any) -> None:
    """Raise a ``ValueError`` for the first field whose value has a wrong type or cannot be meant."""
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if value is not None or not _optional(hint):
            fault = _fault(value, _kind(hint), field.metadata[_Option])
            if fault:
                shown = "empty" if value == "" else _shown(value)
                raise ValueError(f"{field.name} is {shown}; {fault}.")


def default_of(settings: Any, name: str) -> Any:
    """The default of an option: what differs from it was asked for."""
    return next(f.default for f in dataclasses.fields(settings) if f.name == name)


def add_options(parser: argparse.ArgumentParser, settings_class: Any) -> None:
    """Add an argument for every field, in the groups ``settings_class.GROUPS``."""
    hints = typing.get_type_hints(settings_class)
    groups: dict[str | None, Any] = {None: parser}
    groups |= {title: parser.add_argument_group(title) for title in settings_class.GROUPS}
    options = [(field, field.metadata[_Option]) for field in dataclasses.fields(settings_class)]
    # The line on usage has the order of the groups too.
    for title, group in groups.items():
        for field, found in options:
            if found.group == title:
                _add(group, field, found, _kind(hints[field.name]))


def arguments_for(settings: Any) -> list[str]:
    """The arguments of the command line that stand for settings; what is as by default is left out."""
    given = []
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), field.name.replace("_", "-")
        if field.default is dataclasses.MISSING:
            given.append(os.fspath(value))
        elif isinstance(field.default, bool) and value != field.default:
            given.append(f"--no-{name}" if field.default else f"--{name}")
        elif value != field.default:
            given += [f"--{name}", str(value)]
    return given


def _add(parser: Any, field: Any, found: _Option, kind: type) -> None:
    if field.default is dataclasses.MISSING:
        parser.add_argument(field.name, help=found.help)
        return
    name = field.name.replace("_", "-")
    if kind is bool:
        flag, action = ("--no-", "store_false") if field.default else ("--", "store_true")
        parser.add_argument(f"{flag}{name}", dest=field.name, action=action, help=found.help)
        return
    holds = found.unset if field.default is None else field.default
    parser.add_argument(
        f"--{name}",
        type=kind,
        default=field.default,
        choices=found.choices,
        metavar=found.metavar,
        help=found.help if holds is None else f"{found.help} (default: {holds})",
    )


def _kind(hint: Any) -> type:
    """The type of the values; of a path, which may be given as an object too, text."""
    return next(kind for kind in typing.get_args(hint) or (hint,) if kind is not NoneType)


def _optional(hint: Any) -> bool:
    return NoneType in typing.get_args(hint)


def _fault(value: Any, kind: type, found: _Option) -> str | None:
    """What is wrong with a value, or None."""
    if not _fits(value, kind):
        return f"it must be {_KINDS[kind]}"
    if found.choices is not None and value not in found.choices:
        return f"it must be one of {', '.join(found.choices)}"
    if kind is str:
        return _fault_of_text(os.fspath(value))
    if kind is bool:
        return None
    if found.positive and not value > 0:
        return found.rule or "it must be positive"
    if found.least is not None and not value >= found.least:
        return found.rule or f"the least is {found.least}"
    if found.most is not None and not value <= found.most:
        return f"the greatest is {found.most}"
    return None if math.isfinite(value) else found.rule or "it must be finite"


def _fault_of_text(text: str) -> str | None:
    if not text:
        return "leave the option out, or give it a value"
    return "no file or name has a zero byte" if "\0" in text else None


def _fits(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, numbers.Integral if kind is int else numbers.Real)


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > GREATEST_SHOWN:
        return "a number of many digits"
    return f"{value:g}" if isinstance(value, float) else repr(value)

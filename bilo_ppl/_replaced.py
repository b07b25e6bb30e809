"""A module with other values of some fields, where its constructor is not to check or solve again."""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx

__all__ = ["replaced"]

M = TypeVar("M", bound=eqx.Module)


def replaced(module: M, kind: type[M] | None = None, /, **values: Any) -> M:
    """A copy of an Equinox module with other ``values`` of its fields, static ones too.

    ``kind`` is a subclass that the copy is to be of, with the same fields.
    """
    names = [field.name for field in dataclasses.fields(module)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise TypeError(
            f"{type(module).__name__} has no field {', '.join(unknown)}; it has {names}."
        )
    other = object.__new__(kind or type(module))
    for name in names:
        object.__setattr__(other, name, values.get(name, getattr(module, name)))
    return other

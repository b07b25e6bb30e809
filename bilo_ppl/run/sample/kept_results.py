"""What was computed from the draws, in the checkpoint of a run: what has ended is not computed again."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from bilo_ppl._checkpoint import current_checkpoint
from bilo_ppl.diagnostics import Fit
from bilo_ppl.operators.base import SolveInfo
from bilo_ppl.run.record import warn
from bilo_ppl.validation.certificate import Certificate
from bilo_ppl.validation.posterior_grid import GridPosterior

__all__ = ["CERTIFICATE", "FITS", "GRID", "SOLVES", "kept"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Form(Generic[T]):
    """How a result is JSON values and arrays."""

    pack: Callable[[T], tuple[Mapping[str, Any], list[np.ndarray]]]
    unpack: Callable[[Mapping[str, Any], list[np.ndarray]], T]


def kept(
    say: Callable[..., None], what: str, draws: int, form: _Form[T], make: Callable[[], T]
) -> T:
    """A result of so many draws in the stage that runs: read where a process before has had it, or made.

    A run that is extended has other draws, and its results are made anew.
    """
    checkpoint = current_checkpoint()
    if checkpoint is None:
        return make()
    name = f"{checkpoint.stage}: {what} of {draws} draws"
    saved = checkpoint.recall(name)
    if saved is not None:
        try:
            found = form.unpack(saved.notes, saved.arrays())
            say(f"  {what}: read, as they were computed before")
            return found
        except (ValueError, KeyError, IndexError, TypeError) as error:
            warn(f"{what} cannot be read from the checkpoint ({error}): computed anew.")
    found = make()
    checkpoint.remember(name, *form.pack(found))
    return found


def _pack_solves(found: Mapping[str, SolveInfo]) -> tuple[Mapping[str, Any], list[np.ndarray]]:
    return {"sites": list(found)}, [np.asarray(part) for info in found.values() for part in info]


def _unpack_solves(notes: Mapping[str, Any], arrays: list[np.ndarray]) -> dict[str, SolveInfo]:
    size = len(SolveInfo._fields)
    return {
        site: SolveInfo(*arrays[size * i : size * (i + 1)]) for i, site in enumerate(notes["sites"])
    }


def _pack_certificate(found: Certificate) -> tuple[Mapping[str, Any], list[np.ndarray]]:
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    return {"values": plain, "arrays": list(arrays)}, list(arrays.values())


def _unpack_certificate(notes: Mapping[str, Any], arrays: list[np.ndarray]) -> Certificate:
    values: dict[str, Any] = dict(zip(notes["arrays"], arrays, strict=True))
    values |= {name: _tupled(value) for name, value in notes["values"].items()}
    return Certificate(**values)


def _tupled(value: Any) -> Any:
    """JSON knows lists only."""
    if isinstance(value, Mapping):
        return {name: _tupled(part) for name, part in value.items()}
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _pack_fits(found: Mapping[str, Fit]) -> tuple[Mapping[str, Any], list[np.ndarray]]:
    return {"fits": {name: fit._asdict() for name, fit in found.items()}}, []


def _pack_grid(found: GridPosterior) -> tuple[Mapping[str, Any], list[np.ndarray]]:
    return {"names": list(found.names)}, [
        *(found.grid[name] for name in found.names),
        found.density,
    ]


def _unpack_grid(notes: Mapping[str, Any], arrays: list[np.ndarray]) -> GridPosterior:
    names, (*grid, density) = tuple(notes["names"]), arrays
    return GridPosterior(names, dict(zip(names, grid, strict=True)), density)


SOLVES = _Form(_pack_solves, _unpack_solves)
CERTIFICATE = _Form(_pack_certificate, _unpack_certificate)
FITS = _Form(_pack_fits, lambda notes, arrays: {k: Fit(**fit) for k, fit in notes["fits"].items()})
GRID = _Form(_pack_grid, _unpack_grid)

"""Observations of a solution, checked before anything is computed from them, and read from CSV."""

import csv
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from bilo_ppl.pde.domain import Box

__all__ = ["Observations", "check", "read_csv"]

_NOT_COORDINATES = ("y", "sigma")


@dataclasses.dataclass(frozen=True)
class Observations:
    """Values ``y`` observed at points ``x``, with noise of standard deviation ``sigma``.

    The units are the problem's own; ``sigma`` is in units of y.
    """

    x: Any
    """Points ``(n, d)``."""
    y: Any
    """Values ``(n,)``, or ``(n, components)`` of a system."""
    sigma: Any
    """A number, or one for each observation ``(n,)``."""

    @property
    def model_args(self) -> tuple[Any, Any, Any]:
        """``(x, y, sigma)``, the arguments of a model after its operator."""
        return self.x, self.y, self.sigma

    def __str__(self) -> str:
        sigma = np.unique(self.sigma)
        noise = f"{sigma[0]:.4g}" if len(sigma) == 1 else f"{sigma[0]:.4g} to {sigma[-1]:.4g}"
        return f"{len(self.y)} observations in {np.shape(self.x)[1]}-D, noise sd {noise}"


def check(
    observations: Observations, domain: Box, row: Callable[[int], str] = "row {}".format
) -> Observations:
    """The observations, as double-precision arrays.

    Raises a ``ValueError`` for shapes that do not fit, no data, values that are NaN or infinite,
    points outside ``domain``, or a sigma that is not positive; ``row(i)`` says in the message where
    observation i comes from.
    """
    x, y = _as_floats(observations.x, "x"), _as_floats(observations.y, "y")
    sigma = _as_floats(observations.sigma, "sigma")
    if x.ndim != 2 or x.shape[1] != domain.dimension or not y.ndim or len(x) != len(y):
        raise ValueError(
            f"data: x has shape {x.shape} and y {y.shape}; x must be (n, {domain.dimension}), one "
            "point a row, and y must have as many entries."
        )
    if sigma.shape not in {(), (len(y),)}:
        raise ValueError(
            f"data: sigma has shape {sigma.shape}; give one number, or one for each of the "
            f"{len(y)} observations."
        )
    if not len(y):
        raise ValueError("data: there are no observations.")
    all_sigma = np.broadcast_to(sigma, (len(y),))
    for name, values in (("x", x), ("y", y), ("sigma", all_sigma)):
        finite = np.isfinite(values).reshape(len(y), -1).all(axis=1)
        _refuse(~finite, row, lambda i, n=name, v=values: f"{n} is {v[i]}, not a finite number")
    _refuse(all_sigma <= 0, row, lambda i: f"sigma is {all_sigma[i]:g}; it must be positive")
    _refuse(
        ~domain.contains(x),
        row,
        lambda i: f"x = {_point(x[i])} lies outside the domain {_box(domain)}",
    )
    return Observations(x, y, float(sigma) if sigma.ndim == 0 else sigma)


def _as_floats(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"data: {name} is not an array of numbers ({error}).") from error


def _refuse(bad: Any, row: Callable[[int], str], what: Callable[[int], str]) -> None:
    """Raise for the first observation marked as bad, and say how many there are."""
    if bad.any():
        first = int(np.argmax(bad))
        more = f" ({bad.sum()} such rows in all)" if bad.sum() > 1 else ""
        raise ValueError(f"data, {row(first)}: {what(first)}{more}.")


def _point(x: np.ndarray) -> str:
    return f"{x[0]:g}" if len(x) == 1 else "(" + ", ".join(f"{c:g}" for c in x) + ")"


def _box(domain: Box) -> str:
    return " x ".join(f"[{a:g}, {b:g}]" for a, b in zip(domain.lower, domain.upper, strict=True))


def read_csv(path: str | os.PathLike, domain: Box, default_sigma: Any = None) -> Observations:
    """Read observations from comma-separated values with a header line.

    The columns are the observed value ``y``, optionally the standard deviation ``sigma`` of its
    noise, and the coordinates of the point: by name if they are called as those of the domain (x and
    t), else under any names and in their order. Without a column ``sigma`` every observation has
    ``default_sigma``. Blank lines are skipped.

    Raises a ``ValueError`` that names file, line and column for a header or a row that does not
    fit, and where `check` does; a ``FileNotFoundError`` if there is no such file.
    """
    header, rows = _table(path)
    coordinates = _coordinates(header, path, domain)
    if "sigma" not in header and default_sigma is None:
        raise ValueError(
            f"{path}: there is no column sigma, and the model has no default noise level; add the "
            "column."
        )
    if not rows:
        raise ValueError(f"{path}: there are no rows below the header.")
    lines = [line for line, _ in rows]
    values = np.array([_numbers(cells, header, path, line) for line, cells in rows])
    columns = dict(zip(header, values.T, strict=True))
    observations = Observations(
        x=np.stack([columns[name] for name in coordinates], axis=1),
        y=columns["y"],
        sigma=columns.get("sigma", default_sigma),
    )
    return check(observations, domain, row=lambda i: f"{path}, line {lines[i]}")


def _table(path: str | os.PathLike) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the other lines that are not blank with their numbers."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [c.strip() for c in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values: {error}") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise ValueError(f"{path} is empty; the first line must name the columns, such as x,y.")
    return rows[0][1], rows[1:]


def _coordinates(header: list[str], path: Any, domain: Box) -> list[str]:
    """Names of the coordinate columns in the order of the domain, after a check of the header."""
    if all(_is_number(name) for name in header):
        raise ValueError(
            f"{path}: the first line is {','.join(header)}; it must name the columns, such as x,y."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        raise ValueError(
            f"{path}: every column needs a name of its own; the header is {','.join(header)}."
        )
    coordinates = [name for name in header if name not in _NOT_COORDINATES]
    if "y" not in header:
        raise ValueError(
            f"{path}: there is no column y for the observed values; the columns are {header} "
            "(separated by commas?)."
        )
    if len(coordinates) != domain.dimension:
        raise ValueError(
            f"{path}: {len(coordinates)} coordinate columns {coordinates}, but the problem has "
            f"{domain.dimension}; every column other than y and sigma is a coordinate."
        )
    known = set(coordinates) == set(domain.coordinates)
    return list(domain.coordinates) if known else coordinates


def _numbers(cells: list[str], header: list[str], path: Any, line: int) -> list[float]:
    if len(cells) != len(header):
        raise ValueError(
            f"{path}, line {line}: {len(cells)} entries, but the header has {len(header)} columns."
        )
    for name, cell in zip(header, cells, strict=True):
        if not _is_number(cell):
            raise ValueError(f"{path}, line {line}: column {name} has {cell!r}, not a number.")
    return [float(cell) for cell in cells]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Observations from a file of comma-separated values with a header line."""

import csv
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilo_ppl.pde.data import Observations, check
from bilo_ppl.pde.data_columns import EXPERIMENT, SIGMA, Columns, find_columns, is_number
from bilo_ppl.pde.domain import Box

__all__ = ["read_csv"]


def read_csv(
    path: str | os.PathLike,
    domain: Box,
    default_sigma: Any = None,
    *,
    components: int = 1,
    component_names: Sequence[str] = (),
) -> Observations:
    """Read observations of a problem with ``components`` components, which may have names.

    **Columns**, in any order:

    - the observed value ``y``. Of a system ``y1``, ``y2``, ..., or the ``component_names``: then y is
      ``(n, components)``, NaN for components without a column and for entries that are empty or ``nan``
      (a row needs one value at least). With a single column ``y`` of a system y is ``(n,)``;
    - the standard deviation ``sigma`` of the noise of all values, or ``sigma1``, ``sigma2``, ... or
      ``sigma_NAME`` of single components; elsewhere ``default_sigma``, a number or one a component;
    - ``experiment``, a number or a text that groups rows;
    - the coordinates of the point, by name if they are called as those of the domain (x and t; or x1 and
      x2), or, if none of them is, under any names and in their order.

    Blank lines are skipped. Raises a ``ValueError`` that names file, line and column for a header or a
    row that does not fit, and where `check` does; a ``FileNotFoundError`` if there is no such file.
    """
    (first, header), *rows = _table(path)
    place = f"{path}, line {first}"
    columns = find_columns(header, place, domain, components, component_names)
    default = _default_sigma(default_sigma, columns, place)
    if not rows:
        raise ValueError(f"{path}: there are no rows below the header; add the observations.")
    cells = {name: [] for name in header}
    lines = [line for line, _ in rows]
    for line, entries in rows:
        if len(entries) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(entries)} entries, but the header has {len(header)} "
                "columns; give one for each (an empty entry counts)."
            )
        for name, cell in zip(header, entries, strict=True):
            cells[name].append(cell)

    def numbers(name: str, empty: bool = False) -> np.ndarray:
        return _numbers(cells[name], name, lambda i: f"{path}, line {lines[i]}", empty)

    experiment = cells.get(EXPERIMENT)
    observations = Observations(
        x=np.stack([numbers(name) for name in columns.coordinates], axis=1),
        y=_values(columns, numbers, len(rows)),
        sigma=_sigma(columns, numbers, len(rows), default),
        experiment=None if experiment is None else np.array(experiment),
    )
    return check(
        observations,
        domain,
        row=lambda i: f"{path}, line {lines[i]}",
        y_names=columns.value_names,
        sigma_names=columns.sigma_names,
    )


def _table(path: str | os.PathLike) -> list[tuple[int, list[str]]]:
    """The lines that are not blank with their numbers, the header first."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [c.strip() for c in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values: {error}") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise ValueError(f"{path} is empty; the first line must name the columns, such as x,y.")
    return rows


def _numbers(
    cells: list[str], name: str, place: Callable[[int], str], empty: bool = False
) -> np.ndarray:
    """A column as numbers; with ``empty`` an entry may be empty, which is NaN."""
    for i, cell in enumerate(cells):
        if not (is_number(cell) or (empty and not cell)):
            raise ValueError(
                f"{place(i)}: column {name} has {cell!r}, not a number"
                + ("; leave a missing value empty." if empty else "; mend the entry.")
            )
    return np.array([float(cell) if cell else np.nan for cell in cells])


def _values(columns: Columns, numbers: Callable, count: int) -> np.ndarray:
    """``(n,)``, or ``(n, components)`` with NaN for what is missing."""
    if not columns.of_system:
        return numbers(columns.values[0])
    y = np.full((count, columns.components), np.nan)
    for component, name in columns.values.items():
        y[:, component] = numbers(name, empty=True)
    return y


def _default_sigma(default: Any, columns: Columns, place: str) -> Any:
    """The default noise level, None without one; it must be there where no column gives it."""
    absent = [i for i in columns.values if i not in columns.sigmas]
    if columns.sigma_of_all or not absent:
        return None
    lacking = [columns.values[i] for i in absent]
    wanted = SIGMA
    if columns.of_system:
        wanted = " or ".join([SIGMA, *(columns.sigma_choices[i] for i in absent)])
    if default is None:
        raise ValueError(
            f"{place}: there is no column {wanted} for {', '.join(lacking)}, and the model has no "
            "default noise level; add the column."
        )
    default = np.asarray(default, float)
    allowed = {(), (columns.components,)} if columns.of_system else {()}
    if default.shape not in allowed:
        needed = f" or one for each of the {columns.components} components"
        raise ValueError(
            f"{place}: the model's default noise level has shape {default.shape}, but for the columns "
            f"{', '.join(columns.values.values())} it must be a number"
            f"{needed if columns.of_system else ''}; add a column {wanted}, or change the default."
        )
    return default


def _sigma(columns: Columns, numbers: Callable, count: int, default: Any) -> Any:
    """A number, ``(n,)``, or ``(n, components)``."""
    if columns.sigma_of_all:
        sigma = numbers(SIGMA, empty=columns.of_system)
        if not columns.of_system:
            return sigma
        return np.repeat(sigma[:, None], columns.components, axis=1)
    if not columns.sigmas and default.ndim == 0:
        return default
    # Whatever stands where nothing is observed does not matter.
    sigma = np.full((count, columns.components), np.nan)
    if default is not None:
        sigma[:] = default
    for component, name in columns.sigmas.items():
        sigma[:, component] = numbers(name, empty=columns.of_system)
    return sigma if columns.of_system else sigma[:, 0]

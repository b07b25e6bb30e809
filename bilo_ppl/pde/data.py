"""Observations of a solution, checked before anything is computed from them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.experiments import coded

__all__ = ["Observations", "check"]

KINDS = {
    "positive": "positive observations",
    "fractions": "observed fractions",
    "points": "observed points",
    "binary": "binary observations",
    "counts": "observed counts",
    "categories": "observed categories",
    "discrete": "discrete observations",
}
"""What observations are called where a likelihood does not have them as noisy values."""


@dataclasses.dataclass(frozen=True)
class Observations:
    """Values ``y`` observed at points ``x``, with noise of standard deviation ``sigma``.

    The units are the problem's own; ``sigma`` is in units of y.
    """

    x: Any
    """Points ``(n, d)``."""
    y: Any
    """Values ``(n,)``, or ``(n, components)`` of a system, where NaN stands for a missing one."""
    sigma: Any
    """A number, or one for each observation ``(n,)``; of a system also one for each component
    ``(components,)`` or each value ``(n, components)``."""
    experiment: Any = None
    """Which experiment each observation is from, ``(n,)``: numbers or texts, of which `check` makes
    codes 0, 1, ...; None where there is but one."""
    experiment_names: tuple[str, ...] = ()
    """Names of the experiments by code."""

    @property
    def model_args(self) -> tuple[Any, Any, Any]:
        """``(x, y, sigma)``, the arguments of a model after its operator."""
        return self.x, self.y, self.sigma

    @property
    def model_kwargs(self) -> dict[str, Any]:
        """What a model gets by keyword: ``experiment``, where the data have it."""
        return {} if self.experiment is None else {"experiment": self.experiment}

    def __str__(self) -> str:
        return self.described("values")

    def described(self, kind: str) -> str:
        """Them in a line. ``kind`` says what they are, as `bilo_ppl.ppl.data_sites.data_kind` does.

        But for "values", which have a noise, y and sigma may mean anything, and sigma is left out.
        """
        y, dimension = np.asarray(self.y), np.shape(self.x)[1]
        each = f" of {y.shape[1]} values each" if y.ndim == 2 else ""
        missing = f", {np.isnan(y).sum()} of {y.size} missing" if np.isnan(y).any() else ""
        end = ""
        if kind == "values":
            sigma = np.unique(np.broadcast_to(self.sigma, y.shape)[~np.isnan(y)])
            noise = f"{sigma[0]:.4g}" if len(sigma) == 1 else f"{sigma[0]:.4g} to {sigma[-1]:.4g}"
            end = f", noise sd {noise}"
        elif kind == "points":
            each, missing, end = "", "", ", whose likelihood is a factor"
        if names := self.experiment_names:
            end += f", {len(names)} experiments ({', '.join(names)})"
        what = KINDS.get(kind, "observations")
        return f"{len(y)} {what}{each}{missing} in {dimension}-D{end}"


def check(
    observations: Observations,
    domain: Box,
    row: Callable[[int], str] = "row {}".format,
    *,
    y_names: Sequence[str] = (),
    sigma_names: Sequence[str] = (),
) -> Observations:
    """The observations, as double-precision arrays.

    In y of shape ``(n, components)`` single values may be missing (NaN), but no whole row; the sigma of
    a missing value does not matter, and one that is no positive number becomes 1. A sigma ``(n,)`` is
    then repeated for all components. Labels of experiments become codes.

    Raises a ``ValueError`` for shapes that do not fit, no data, values that are NaN or infinite,
    points outside ``domain``, a sigma that is not positive, or labels of experiments that do not fit;
    ``row(i)`` says in the message where observation i comes from, ``y_names`` and ``sigma_names`` what
    the columns of y and sigma are called (by default y1, y2, ... and sigma1, sigma2, ...).
    """
    x, y = _as_floats(observations.x, "x"), _as_floats(observations.y, "y")
    sigma = _as_floats(observations.sigma, "sigma")
    if x.ndim != 2 or x.shape[1] != domain.dimension or y.ndim not in {1, 2} or len(x) != len(y):
        raise ValueError(
            f"data: x has shape {x.shape} and y {y.shape}; x must be (n, {domain.dimension}), one "
            "point a row, and y must have as many entries: (n,), or (n, components) of a system."
        )
    if not y.size:
        raise ValueError("data: there are no observations.")
    sigma_names = sigma_names or _column_names("sigma", sigma, y)
    sigma = _fitted(sigma, y)
    finite = np.isfinite(x).all(axis=1)
    _refuse(~finite, row, lambda i, _: f"x is {x[i]}, not a finite number; mend the point")
    missing = _missing(y, row, y_names or _column_names("y", y, y))
    sigma = _with_sigma(sigma, missing, row, sigma_names)
    _refuse(
        ~domain.contains(x),
        row,
        lambda i, _: f"x = {_point(x[i])} lies outside the domain {domain}",
    )
    codes, names = None, ()
    if observations.experiment is not None:
        codes, names = coded(observations.experiment, observations.experiment_names, len(y), row)
    return Observations(x, y, float(sigma) if sigma.ndim == 0 else sigma, codes, names)


def _as_floats(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"data: {name} is not an array of numbers ({error}).") from error


def _column_names(name: str, values: np.ndarray, y: np.ndarray) -> list[str]:
    """A name for each column of y: numbered, unless one entry stands for all of them."""
    if y.ndim == 1 or values.ndim == 0 or values.shape == (len(y),):
        return [name] * (1 if y.ndim == 1 else y.shape[1])
    return [f"{name}{i}" for i in range(1, y.shape[1] + 1)]


def _fitted(sigma: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sigma in a shape that is broadcast against y as it is meant."""
    if sigma.shape not in {(), y.shape, y.shape[1:], y.shape[:1]}:
        of_system = (
            f", one for each of the {y.shape[1]} components, or one for each value {y.shape}"
            if y.ndim == 2
            else ""
        )
        raise ValueError(
            f"data: sigma has shape {sigma.shape}; give one number, or one for each of the "
            f"{len(y)} observations{of_system}."
        )
    if y.ndim == 1 or sigma.ndim != 1:
        return sigma
    if len(y) == y.shape[1] > 1:
        raise ValueError(
            f"data: sigma has shape {sigma.shape}, which may mean one for each of the {len(y)} rows "
            f"or of the {len(y)} components; give one for each value, {y.shape}."
        )
    if sigma.shape == y.shape[1:]:
        return sigma
    return np.broadcast_to(sigma[:, None], y.shape).copy()


def _missing(y: np.ndarray, row: Callable[[int], str], names: Sequence[str]) -> np.ndarray:
    """Which values of a system are missing, after a check that all others are numbers."""
    missing = np.isnan(y) if y.ndim == 2 else np.zeros(y.shape, bool)
    end = "; leave the row out" if y.ndim == 1 else "; a missing value is NaN"
    _refuse(
        ~np.isfinite(y) & ~missing,
        row,
        lambda i, j: f"{names[j]} is {y.reshape(len(y), -1)[i, j]}, not a finite number{end}",
    )
    listed = ", ".join(names)
    _refuse(
        missing.reshape(len(y), -1).all(axis=1),
        row,
        lambda i, _: f"there is no value of {listed}: y is nan; leave the row out",
    )
    return missing


def _with_sigma(
    sigma: np.ndarray, missing: np.ndarray, row: Callable[[int], str], names: Sequence[str]
) -> np.ndarray:
    """Sigma, positive everywhere, after a check that it is so where there are values."""
    full = np.broadcast_to(sigma, missing.shape)
    columns = full.reshape(len(full), -1)
    _refuse(
        ~np.isfinite(full) & ~missing,
        row,
        lambda i, j: f"{names[j]} is {columns[i, j]}, not a finite number; give it, or a default",
    )
    _refuse(
        (full <= 0) & ~missing,
        row,
        lambda i, j: f"{names[j]} is {columns[i, j]:g}; it must be positive",
    )
    good = np.isfinite(full) & (full > 0)
    return sigma if good.all() else np.where(good, full, 1.0)


def _refuse(bad: Any, row: Callable[[int], str], what: Callable[[int, int], str]) -> None:
    """Raise for the first entry marked as bad, ``(n,)`` or ``(n, m)``; say how many rows have one."""
    entries = bad.reshape(len(bad), -1)
    rows = entries.any(axis=1)
    if rows.any():
        first = int(np.argmax(rows))
        more = f" ({rows.sum()} such rows in all)" if rows.sum() > 1 else ""
        raise ValueError(
            f"data, {row(first)}: {what(first, int(np.argmax(entries[first])))}{more}."
        )


def _point(x: np.ndarray) -> str:
    return f"{x[0]:g}" if len(x) == 1 else "(" + ", ".join(f"{c:g}" for c in x) + ")"

"""Model files: a problem, a NumPyro model and data in one Python file."""

import dataclasses
import functools
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.checks import check_problem
from bilo_ppl.pde.data import Observations, check
from bilo_ppl.pde.data_columns import check_names
from bilo_ppl.pde.data_file import read_csv
from bilo_ppl.pde.problem import Problem
from bilo_ppl.run.experiments import with_experiments_of

__all__ = ["ModelFile", "load_model", "short_names"]

EXPECTED = {
    "problem": "the PDE, an instance of bilo_ppl.Problem",
    "start": "the theta to pretrain at, a mapping from the problem's parameters to values",
    "model": "the NumPyro model, a function model(operator, x, y, sigma)",
    "synthetic_data": "a function of a seed that returns a mapping with x (n, d), y (n,) or (n, "
    "components), sigma, and, where there are several, experiment (n,)",
}
OPTIONAL = (
    "truth",
    "reference",
    "reference_grid",
    "exact",
    "architecture",
    "init",
    "observed",
    "figures",
)

INSTALLED = "bilo_ppl_models"
"""The package under which a wheel carries the folder models/."""


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What a model file defines, as it stands there; `load_model` has checked it."""

    name: str
    path: pathlib.Path
    problem: Any
    start: Any
    """Theta to pretrain at."""
    model: Any
    """``model(operator, x, y, sigma)``, or with a further parameter ``experiment``"""
    synthetic_data: Any
    """From a seed to a mapping with x, y, sigma, and possibly experiment."""
    truth: Any = None
    """The theta of the synthetic data, by site name."""
    reference: Any = None
    """Makes a numerical solution operator: the exact posterior from the same model."""
    reference_grid: Any = None
    """Values of the one or two parameters on which the exact posterior is evaluated."""
    architecture: Any = dataclasses.field(default_factory=dict)
    """Arguments of `LocalOperator` (width, depth, network, dtype, ...) for pretraining."""
    exact: Any = None
    """The solution at ``truth``, a function of a point."""
    init: Any = dataclasses.field(default_factory=dict)
    """Values by sample site near which chains start, in the place of where adaptation has ended."""
    observed: Any = ()
    """Names of the columns of y, where the data are not the components of the solution."""
    figures: Any = None
    """Further figures: ``figures(solutions, values, data)``, see `bilo_ppl.run.own_figures`."""

    @property
    def default_sigma(self) -> Any:
        """The default of the model's argument sigma, or None."""
        default = inspect.signature(self.model).parameters["sigma"].default
        return None if default is inspect.Parameter.empty else default

    def with_noise(self, noise: float | None) -> "ModelFile":
        """The file with synthetic data of this noise sd; None: of the model's own.

        Raises a ``ValueError`` if synthetic_data has no argument noise.
        """
        if noise is None:
            return self
        if "noise" not in inspect.signature(self.synthetic_data).parameters:
            raise ValueError(
                f"{self.path}: synthetic_data has no argument noise, so --noise cannot be given."
            )
        data = functools.partial(self.synthetic_data, noise=noise)
        return dataclasses.replace(self, synthetic_data=data)

    def observations(self, seed: int) -> Observations:
        """The synthetic data of a seed, checked."""
        data = self.synthetic_data(seed)
        missing = [name for name in ("x", "y", "sigma") if name not in data]
        if missing:
            raise ValueError(f"{self.path}: synthetic_data({seed}) has no entry {missing}.")
        found = Observations(
            np.asarray(data["x"]), np.asarray(data["y"]), data["sigma"], data.get("experiment")
        )
        source = f"{self.path}: synthetic_data({seed})"
        row = "observation {} of synthetic_data".format
        found = check(found, self.problem.domain, row)
        return with_experiments_of(self.model, found, self.path, source)

    def read_data(self, path: str | os.PathLike) -> Observations:
        """The data of a CSV file, checked; raises a ``ValueError`` where they do not fit the model."""
        problem = self.problem
        found = read_csv(
            path,
            problem.domain,
            self.default_sigma,
            components=len(self.observed) or problem.components,
            component_names=self.observed or problem.component_names,
        )
        return with_experiments_of(self.model, found, self.path, os.fspath(path))


def load_model(spec: str | os.PathLike) -> ModelFile:
    """The model file at a path, or of a short name such as ``nonlinear_poisson``.

    Short names are looked up in ``models/`` of the current folder, in ``models/`` beside the
    package, and among the models installed with it. Raises a ``ValueError`` for an unknown name, a
    file that fails to import, and one that lacks an expected name or defines it as something else.
    """
    path = _find(os.fspath(spec))
    module = _import(path)
    missing = [name for name in EXPECTED if not hasattr(module, name)]
    if missing:
        raise ValueError(
            f"{path} is not a model file; it does not define "
            + "; ".join(f"{name} ({EXPECTED[name]})" for name in missing)
            + "."
        )
    names = [name for name in (*EXPECTED, *OPTIONAL) if hasattr(module, name)]
    found = ModelFile(path.stem, path, **{name: getattr(module, name) for name in names})
    _check(found)
    return found


def short_names() -> dict[str, pathlib.Path]:
    """Model files by short name, the nearest folder first."""
    folders = [pathlib.Path("models"), pathlib.Path(__file__).resolve().parents[2] / "models"]
    installed = importlib.util.find_spec(INSTALLED)
    if installed is not None:
        folders += [pathlib.Path(f) for f in installed.submodule_search_locations or []]
    files = [file for folder in folders for file in sorted(folder.glob("[!_]*.py"))]
    return {file.stem: file for file in reversed(files)}


def _find(spec: str) -> pathlib.Path:
    if spec.endswith(".py") or "/" in spec or "\\" in spec:
        path = pathlib.Path(spec)
        if not path.is_file():
            raise ValueError(f"there is no model file {spec}; {_available()}")
        return path
    known = short_names()
    if spec not in known:
        raise ValueError(
            f"unknown model {spec!r}; {_available()} For a file of your own give its path, ending "
            "in .py."
        )
    return known[spec]


def _available() -> str:
    names = sorted(short_names())
    return f"the short names are: {', '.join(names)}." if names else "no short names are available."


def _import(path: pathlib.Path) -> ModuleType:
    name = f"_bilo_ppl_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, hence Equinox modules, look their module up by name.
    sys.modules[name] = module
    # A folder that is only read gets no compiled file.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [str(f.lineno) for f in frames if f.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"{path}{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _check(found: ModelFile) -> None:
    """Raise a ``ValueError`` for a name that is defined as something else than expected."""

    def refuse(name: str) -> None:
        value = getattr(found, name)
        raise ValueError(
            f"{found.path}: {name} is {_described(value)}; it must be {EXPECTED[name]}."
        )

    if not isinstance(found.problem, Problem):
        refuse("problem")
    if not isinstance(found.start, Mapping):
        refuse("start")
    if not isinstance(found.init, Mapping):
        raise ValueError(
            f"{found.path}: init is {_described(found.init)}; it must be a mapping from sample sites of "
            "the model to values."
        )
    if not callable(found.synthetic_data):
        refuse("synthetic_data")
    if not callable(found.model) or not _takes_data(found.model):
        refuse("model")
    if found.reference is not None and not callable(found.reference):
        raise ValueError(
            f"{found.path}: reference is {_described(found.reference)}; it must be a function "
            "without arguments that returns a solution operator."
        )
    if found.figures is not None and not callable(found.figures):
        raise ValueError(
            f"{found.path}: figures is {_described(found.figures)}; it must be a function of solutions, "
            "values and data that gives pairs of a name and a matplotlib Figure."
        )
    _check_architecture(found)
    check_names(found.observed, found.problem.domain, f"{found.path}: observed")
    check_problem(found.problem, found.start)


def _check_architecture(found: ModelFile) -> None:
    """Refuse what pretraining would not understand."""
    known = set(inspect.signature(LocalOperator).parameters) - {"problem", "theta", "key"}
    given = found.architecture
    unknown = sorted(set(given) - known) if isinstance(given, Mapping) else [given]
    if unknown:
        raise ValueError(
            f"{found.path}: architecture has {unknown}; it must be a mapping of arguments of "
            f"LocalOperator: {', '.join(sorted(known))}."
        )


def _takes_data(model: Callable) -> bool:
    try:
        signature = inspect.signature(model)
        by_name = {"experiment": None} if "experiment" in signature.parameters else {}
        bound = signature.bind("operator", "x", "y", "sigma", **by_name)
    except TypeError:
        return False
    return "sigma" in bound.arguments


def _described(value: Any) -> str:
    if inspect.isfunction(value):
        return f"{value.__name__}{inspect.signature(value)}"
    return f"of type {value.__name__} (a class)" if isinstance(value, type) else f"{value!r:.80}"

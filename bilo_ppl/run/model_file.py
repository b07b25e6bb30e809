"""Model files: a problem, a NumPyro model and data in one Python file."""

import dataclasses
import functools
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from bilo_ppl._blame import blaming, told
from bilo_ppl._files import is_file
from bilo_ppl.pde.data import Observations, check
from bilo_ppl.pde.data_file import read_csv
from bilo_ppl.run.definitions import EXPECTED, SYNTHETIC_DATA, check_file
from bilo_ppl.run.experiments import with_experiments_of

__all__ = ["ModelFile", "load_model", "short_names"]

OPTIONAL = (
    *("synthetic_data", "truth", "reference", "reference_grid", "exact", "architecture", "init"),
    "bayesian_model",
    *("scores", "observed", "figures", "units"),
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
    synthetic_data: Any = None
    """From a seed to a mapping with x, y, sigma, and possibly experiment; None: data are given."""
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
    scores: Any = None
    """From an estimated theta to numbers by name: further columns of the table of ``bilo-ppl map``."""
    observed: Any = ()
    """Names of the columns of y, where the data are not the components of the solution."""
    figures: Any = None
    """Further figures: ``figures(solutions, values, data)``, see `bilo_ppl.run.own_figures`."""
    units: Any = dataclasses.field(default_factory=dict)
    """Units by the name of an unknown, a coordinate, a component, a solution or a data site."""
    bayesian_model: Any = None
    """The model whose posterior is sampled, if `model` is one for point estimates only."""
    description: str = ""
    """The docstring of the file: what the problem is, for a reader."""

    def described(self) -> dict[str, Any]:
        """What the file says of its problem, for a reader."""
        title, _, text = self.description.partition("\n")
        return {"title": title, "text": text.strip("\n"), "units": dict(self.units)}

    def for_sampling(self) -> "ModelFile":
        """The file with the model whose posterior is sampled as its model."""
        if self.bayesian_model is None:
            return self
        return dataclasses.replace(self, model=self.bayesian_model)

    @property
    def default_sigma(self) -> Any:
        """The default of the model's argument sigma, or None."""
        default = inspect.signature(self.model).parameters["sigma"].default
        return None if default is inspect.Parameter.empty else default

    def with_noise(self, noise: float | None) -> "ModelFile":
        """The file with synthetic data of this noise sd; None: of the model's own.

        Raises a ``ValueError`` if there is no synthetic_data, or it has no argument noise.
        """
        if noise is None:
            return self
        if self.synthetic_data is None:
            raise ValueError(f"{self.path} defines no synthetic_data, so --noise cannot be given.")
        if "noise" not in inspect.signature(self.synthetic_data).parameters:
            raise ValueError(
                f"{self.path}: synthetic_data has no argument noise, so --noise cannot be given."
            )
        data = functools.partial(self.synthetic_data, noise=noise)
        return dataclasses.replace(self, synthetic_data=data)

    def observations(self, seed: int) -> Observations:
        """The synthetic data of a seed, checked; raises a ``ValueError`` where there are none."""
        if self.synthetic_data is None:
            raise ValueError(
                f"{self.path} defines no synthetic_data, so there are no data: give --data FILE, or "
                f"define it as {SYNTHETIC_DATA}."
            )
        with blaming(f"{self.path}: synthetic_data({seed})"):
            data = self.synthetic_data(seed)
        if not isinstance(data, Mapping):
            raise ValueError(
                f"{self.path}: synthetic_data({seed}) returns a {type(data).__name__}; it must be "
                f"{SYNTHETIC_DATA}."
            )
        missing = [name for name in ("x", "y", "sigma") if name not in data]
        if missing:
            raise ValueError(f"{self.path}: synthetic_data({seed}) has no entry {missing}.")
        found = Observations(data["x"], data["y"], data["sigma"], data.get("experiment"))
        source = f"{self.path}: synthetic_data({seed})"
        row = "observation {} of synthetic_data".format
        try:
            found = check(found, self.problem.domain, row)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
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


def load_model(spec: str | os.PathLike, *, learnt: bool = True) -> ModelFile:
    """The model file at a path, or of a short name such as ``nonlinear_poisson``.

    Short names are looked up in ``models/`` of the current folder, in ``models/`` beside the
    package, and among the models installed with it. ``learnt`` says whether a network is to learn the
    solution, which asks more of the problem than an operator of the file's own. Raises a
    ``ValueError`` for an unknown name, a file that fails to import, and one that lacks an expected
    name or defines it as something else.
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
    defined = {name: getattr(module, name) for name in names}
    found = ModelFile(path.stem, path, **defined, description=inspect.getdoc(module) or "")
    check_file(found, learnt)
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
        if not is_file(path):
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
    # Its neighbours can be imported, as those of a script, also later, within a function.
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = path.resolve()
        lines = [str(f.lineno) for f in frames if pathlib.Path(f.filename).resolve() == own]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"{path}{where}: {told(error)}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module

"""The estimation problems of `part1.py`: models, data, architectures and tolerances."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import bilo_ppl as bilo

IMPLICIT, PAPERS = bilo.ImplicitDifferentiation(), bilo.ResidualGradient()


@dataclasses.dataclass(frozen=True)
class Case:
    """One estimation problem at one noise level, and the network that solves it."""

    name: str
    model: str
    tolerance: float
    """On the lower-level loss."""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of the model file's ``synthetic_data`` besides the seed."""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of the NumPyro model besides the data."""
    seeds: int = 5
    points: tuple[int, int] | None = None
    """Collocation points in space and in time; None: the model file's own."""
    viscosity: float = 0.0
    """Of the network's problem. The reference has none; `same_equation` compares with one that has it."""
    width: int = 64
    fourier: int = 0
    fourier_scale: float = 1.0
    dtype: str = "float32"
    sensitivity: Any = IMPLICIT
    truth: str | None = None
    """Which of several truths; None: the model file's own."""
    newton: bool = True
    """Gauss-Newton if true, else L-BFGS."""
    steps: int = 60
    patience: int = 12
    inner_steps: int = 20
    """Most Levenberg-Marquardt steps of one evaluation."""
    prior: str = "model"
    """Which of the model functions of the file."""
    nodes: tuple[int, ...] = ()
    """Of the numerical operator, in space and in time; none: as the model file has it."""
    swallowed: tuple[float, float] | None = None
    """Interval in x, of period 1: its characteristics have run into the shock before the data."""
    exact: bool = False
    """Whether the reference estimate is made with the closed form of the model file."""

    @property
    def file(self) -> Any:
        """The module of the model."""
        return importlib.import_module(f"models.{self.model}")

    @property
    def problem(self) -> bilo.Problem:
        """The PDE on the chosen points."""
        return self.file.problem if self.points is None else self.on(*self.points)

    def on(self, nx: int, nt: int) -> bilo.Problem:
        """The PDE with nx times nt collocation points."""
        viscous = {"viscosity": self.viscosity} if self.viscosity else {}
        return type(self.file.problem)(nx, nt, **viscous)

    @property
    def truths(self) -> Mapping[str, Any]:
        """Theta that made the data."""
        if self.truth is None:
            return self.file.truth
        return {next(iter(self.file.truth)): self.file.truths[self.truth]}


def cases(profile: str) -> list[Case]:
    """What is estimated; the paper profile has grids of 51 x 51 points and width 128 in space-time."""
    paper = profile == "paper"
    points = 51 if paper else 21
    grids = [*_fisher(points), _heat(points), _smooth_burgers(points)]
    if paper:
        # The others are the same in both profiles.
        return grids
    gene = Case("gene expression", "gene_expression", 1e-6, exact=True, newton=False, steps=200)
    toy = Case("boundary toy", "boundary_toy", 1e-6)
    return [*grids, *_shocks(), gene, *_poisson(), toy]


def _fisher(points: int) -> list[Case]:
    fisher = Case(
        "Fisher-KPP",
        "fisher_kpp",
        1e-6,
        points=(points, points),
        width=128 if points > 21 else 64,
        fourier=16,
        fourier_scale=2.0,
        patience=4,
    )
    # Without noise, a sigma that leaves the prior next to no say.
    clean = {"data": {"noise": 0.0}, "arguments": {"sigma": 1e-3}, "seeds": 1}
    found = [dataclasses.replace(fisher, name="Fisher-KPP, no noise", **clean)]
    for noise in (0.01, 0.1):
        name = f"Fisher-KPP, noise {noise}"
        found.append(dataclasses.replace(fisher, name=name, data={"noise": noise}))
    return found


def _poisson() -> list[Case]:
    poisson = Case("variable Poisson", "variable_poisson", 1e-9, fourier=16, dtype="float64")
    found = []
    for noise in (0.0, 0.01, 0.05):
        for label, sensitivity in (("implicit", IMPLICIT), ("residual gradient", PAPERS)):
            entry = dataclasses.replace(
                poisson,
                name=f"variable Poisson, noise {noise}, {label}",
                data={"noise": noise},
                sensitivity=sensitivity,
                tolerance=1e-9 if sensitivity is IMPLICIT else 1e-5,
                seeds=5 if noise else 1,
            )
            found.append(entry)
    for weight in (1e-4, 1e-2):
        found.append(
            dataclasses.replace(
                poisson,
                name=f"variable Poisson, noise 0.01, regularisation {weight:g}",
                data={"noise": 0.01},
                arguments={"regularisation": weight},
            )
        )
    expansion = {"name": "variable Poisson, noise 0.01, Karhunen-Loeve", "prior": "bayesian_model"}
    found.append(
        dataclasses.replace(
            poisson, data={"noise": 0.01}, tolerance=1e-8, inner_steps=50, **expansion
        )
    )
    return found


def _heat(points: int) -> Case:
    fine = points > 21
    return Case(
        "heat, initial value",
        "heat_initial",
        1e-8,
        fourier=16,
        fourier_scale=2.0,
        width=128 if fine else 64,
        dtype="float64",
        points=(points, points),
        nodes=(201, 201),
        steps=30 if fine else 60,
    )


def _smooth_burgers(points: int) -> Case:
    fine = points > 21
    return Case(
        "Burgers, smooth",
        "burgers",
        1e-6 if fine else 1e-8,
        data={"truth": "smooth"},
        truth="smooth",
        fourier=16,
        width=128 if fine else 64,
        dtype="float32" if fine else "float64",
        points=(points, points),
        steps=40 if fine else 60,
    )


def _shocks() -> list[Case]:
    """Burgers with shocks: on scattered points, with a viscosity."""
    found = []
    for truth, swallowed in (
        # x + 0.2 u0(x) is at the shock, at 1/2 or at both ends, at t = 1 for |x - shock| = 0.182.
        ("shock", (0.318, 0.682)),
        ("rarefaction", (-0.182, 0.182)),
    ):
        entry = Case(
            f"Burgers, {truth}",
            "burgers",
            1e-6,
            data={"truth": truth},
            truth=truth,
            viscosity=5e-4,
            points=(41, 21),
            width=32,
            fourier=16,
            fourier_scale=2.0,
            steps=70,
            inner_steps=50,
            swallowed=swallowed,
        )
        found.append(entry)
    return found

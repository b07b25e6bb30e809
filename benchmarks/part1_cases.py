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
    points: int | None = None
    """Collocation points in every direction of a space-time grid; None: the model file's own."""
    width: int = 64
    fourier: int = 0
    fourier_scale: float = 1.0
    sensitivity: Any = IMPLICIT
    truth: str | None = None
    """Which of several truths; None: the model file's own."""
    steps: int = 200
    exact: bool = False
    """Whether the reference estimate is made with the closed form of the model file."""

    @property
    def file(self) -> Any:
        """The module of the model."""
        return importlib.import_module(f"models.{self.model}")

    @property
    def problem(self) -> bilo.Problem:
        """The PDE on the chosen points."""
        own = self.file.problem
        return own if self.points is None else type(own)(self.points, self.points)

    @property
    def truths(self) -> Mapping[str, Any]:
        """Theta that made the data."""
        if self.truth is None:
            return self.file.truth
        return {next(iter(self.file.truth)): self.file.truths[self.truth]}


def cases(profile: str) -> list[Case]:
    """What is estimated; the paper profile has the collocation points of the papers."""
    paper = profile == "paper"
    fisher = Case("Fisher-KPP", "fisher_kpp", 1e-6, points=51 if paper else 21)
    # Without noise, a sigma that leaves the prior next to no say.
    clean = {"data": {"noise": 0.0}, "arguments": {"sigma": 1e-3}, "seeds": 1}
    found = [dataclasses.replace(fisher, name="Fisher-KPP, no noise", **clean)]
    for noise in (0.01, 0.1):
        name = f"Fisher-KPP, noise {noise}"
        found.append(dataclasses.replace(fisher, name=name, data={"noise": noise}))
    found.append(Case("gene expression", "gene_expression", 1e-6, exact=True))
    poisson = Case("variable Poisson", "variable_poisson", 1e-7, fourier=16, seeds=3)
    for noise in (0.0, 0.01, 0.05):
        for label, sensitivity in (("implicit", IMPLICIT), ("residual gradient", PAPERS)):
            entry = dataclasses.replace(
                poisson,
                name=f"variable Poisson, noise {noise}, {label}",
                data={"noise": noise},
                sensitivity=sensitivity,
                tolerance=1e-7 if sensitivity is IMPLICIT else 1e-5,
                seeds=3 if noise else 1,
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
    grid = 51 if paper else 15
    found.append(
        Case("heat, initial value", "heat_initial", 1e-5, fourier=16, points=grid, seeds=3)
    )
    grid = 51 if paper else 21
    for truth, tolerance, scale in (
        ("smooth", 1e-7, 1.0),
        ("rarefaction", 1e-6, 2.0),
        ("shock", 1e-6, 2.0),
    ):
        found.append(
            Case(
                f"Burgers, {truth}",
                "burgers",
                tolerance,
                data={"truth": truth},
                truth=truth,
                fourier=16,
                fourier_scale=scale,
                points=grid,
                seeds=3,
            )
        )
    found.append(Case("boundary toy", "boundary_toy", 1e-6))
    return found

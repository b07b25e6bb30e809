"""What ``bilo-ppl compare`` is asked to do."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import dataclasses
import os
import pathlib
from typing import ClassVar

from bilo_ppl.run.compare.methods import ALIASES, DEFAULT, METHODS
from bilo_ppl.run.errors import refusing
from bilo_ppl.run.options import check_options, option
from bilo_ppl.run.settings import LARGEST_SEED

__all__ = ["CompareSettings"]

METHODS_GROUP, SAMPLING, RESULTS = "methods", "sampling", "results"


@dataclasses.dataclass(frozen=True)
class CompareSettings:
    """Arguments of ``bilo-ppl compare``, as on the command line.

    Raises a `BadInputError` for values that cannot be meant, alone or together.

    Examples:
        >>> from bilo_ppl.run import CompareSettings
        >>> settings = CompareSettings("poisson", methods="numerical, pinn", seeds=3)
        >>> settings.chosen, settings.data_seeds
        (['numerical', 'pinn-1', 'pinn-10', 'pinn-100', 'pinn-1000'], [0, 1, 2])
        >>> settings.output_folder("poisson").as_posix()
        'runs/poisson-compare'
    """

    COMMAND: ClassVar[str] = "compare"
    GROUPS: ClassVar[tuple[str, ...]] = (METHODS_GROUP, SAMPLING, RESULTS)
    FILES: ClassVar[tuple[str, ...]] = ("compare.json", "compare.csv", "draws.npz", "figures/*.png")

    model: str | os.PathLike = option(help="path of a model file, or short name")
    methods: str = option(
        DEFAULT,
        group=METHODS_GROUP,
        help="names with commas between them, of "
        + "; ".join(f"{name}: {method.help}" for name, method in METHODS.items())
        + "; pinn: the four of that name",
    )
    limit: float = option(
        600.0,
        positive=True,
        group=METHODS_GROUP,
        help="seconds that a method may take on a data set",
    )
    seeds: int = option(
        1,
        least=1,
        most=1000,
        help="number of synthetic data sets: seeds DATA_SEED, DATA_SEED + 1, ...",
    )
    data: str | os.PathLike | None = option(
        None, metavar="FILE", help="CSV file of data, in the place of synthetic ones"
    )
    data_seed: int = option(0, least=0, most=LARGEST_SEED, help="seed of the first synthetic data")
    noise: float | None = option(
        None, least=0, unset="the model's own", help="noise sd of the synthetic data"
    )
    seed: int = option(0, least=0, most=LARGEST_SEED, help="seed of everything but the data")
    chains: int = option(4, least=1, most=1000, group=SAMPLING, help="number of chains")
    warmup: int = option(
        500, least=0, most=10**7, group=SAMPLING, help="warm-up transitions of each chain"
    )
    samples: int = option(1000, least=4, most=10**7, group=SAMPLING, help="draws of each chain")
    out: str | os.PathLike | None = option(
        None, metavar="DIR", unset="runs/MODEL-compare", group=RESULTS, help="folder of the results"
    )
    overwrite: bool = option(
        False, group=RESULTS, help="replace the results of an earlier run there"
    )
    quiet: bool = option(False, group=RESULTS, help="print warnings and errors only")

    def __post_init__(self):
        with refusing():
            self.check()

    def check(self) -> None:
        """Raise a ``ValueError`` for a value, or values together, that cannot be meant."""
        check_options(self)
        unknown = [name for name in self.asked if name not in METHODS and name not in ALIASES]
        if unknown or not self.asked:
            raise ValueError(
                f"--methods: there is no method {', '.join(unknown) or 'given'}; they are "
                f"{', '.join([*METHODS, *ALIASES])}, with commas between them."
            )
        if self.data is not None and (self.seeds > 1 or self.noise is not None):
            raise ValueError(
                "--seeds and --noise are those of synthetic data, and --data brings one set of its own: "
                "leave them out."
            )

    @property
    def asked(self) -> list[str]:
        """The names as they were given."""
        return [name.strip() for name in self.methods.split(",") if name.strip()]

    @property
    def chosen(self) -> list[str]:
        """Names of methods, each once."""
        return list(dict.fromkeys(m for name in self.asked for m in ALIASES.get(name, (name,))))

    @property
    def data_seeds(self) -> list[int]:
        """Seeds of the synthetic data; a file is one data set."""
        return [self.data_seed + i for i in range(self.seeds)]

    def output_folder(self, model_name: str) -> pathlib.Path:
        """Where the results go."""
        return pathlib.Path(self.out or pathlib.Path("runs") / f"{model_name}-compare")

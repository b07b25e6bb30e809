"""What ``bilo-ppl run`` is asked to do."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import dataclasses
import os
from typing import ClassVar

from bilo_ppl.run.options import changed, option
from bilo_ppl.run.settings import OPERATOR, RESULTS, CommonSettings

__all__ = ["SampleSettings"]

SAMPLING, STAGES = "sampling", "stages"


COSTLY = ("log_likelihood", "posterior_predictive", "prior_predictive")
"""Groups of posterior.nc that are not there unless asked for."""


@dataclasses.dataclass(frozen=True)
class SampleSettings(CommonSettings):
    """Arguments of ``bilo-ppl run``, as on the command line.

    Raises a `BadInputError` for values that cannot be meant, alone or together.

    Examples:
        >>> from bilo_ppl.run import SampleSettings
        >>> settings = SampleSettings("poisson", sampler="bilo-hmc", chains=2)
        >>> settings.chains, settings.samples, settings.adapts  # bilo- samplers adapt nothing
        (2, 1000, False)
        >>> settings.output_folder("poisson").as_posix()
        'runs/poisson-bilo-hmc'
    """

    COMMAND: ClassVar[str] = "run"
    GROUPS: ClassVar[tuple[str, ...]] = (SAMPLING, OPERATOR, STAGES, RESULTS)
    FILES: ClassVar[tuple[str, ...]] = ("posterior.nc", "summary.csv", "figures/*.png")

    sampler: str = option(
        "nuts",
        choices=("nuts", "hmc", "bilo-nuts", "bilo-hmc"),
        group=SAMPLING,
        help="nuts and hmc are NumPyro's; bilo- ones carry the weights along the trajectory",
    )
    chains: int = option(4, least=1, most=1000, group=SAMPLING, help="number of chains")
    chain_method: str = option(
        "sequential",
        choices=("sequential", "vectorized", "parallel"),
        group=SAMPLING,
        help="one after another, side by side, or one on each device",
    )
    warmup: int = option(
        500, least=0, most=10**7, group=SAMPLING, help="warm-up transitions of each chain"
    )
    samples: int = option(1000, least=1, most=10**7, group=SAMPLING, help="draws of each chain")
    ess: int | None = option(
        None,
        least=1,
        most=10**9,
        group=SAMPLING,
        unset="no fewer than --samples",
        help="end sampling as soon as every sampled unknown has so many effective draws, in the bulk and "
        "in the tails, and its chains agree (R-hat at most 1.01); --samples is then the most. A verdict "
        "asks for 400",
    )
    target_accept: float = option(
        0.8,
        positive=True,
        most=0.999,
        group=SAMPLING,
        help="acceptance probability that warm-up adapts the step size to; nearer to 1, smaller steps",
    )
    init: str | None = option(
        None,
        choices=("adapted", "start", "prior"),
        unset="adapted",
        group=SAMPLING,
        help="where chains start: dispersed over what adaptation has explored (without adaptation near "
        "start and `init` of the model file), near start alone, or at draws from the prior",
    )
    exact: bool = option(
        False,
        group=SAMPLING,
        help="draw from the posterior of the model file's numerical solver: hmc with the network "
        "proposes, and one numerical solve a draw, without a derivative, accepts (--sampler hmc)",
    )
    accept_unconverged: bool = option(
        False,
        group=SAMPLING,
        help="let solves that miss the tolerance stand instead of rejecting the proposal",
    )
    adapt: bool = option(
        True,
        group=STAGES,
        help="do not adapt the operator to the posterior (bilo- samplers never do)",
    )
    certify: bool = option(
        True, group=STAGES, help="do not check a subset of the draws by better solutions"
    )
    reweight: bool = option(
        False,
        group=STAGES,
        help="solve at all draws with the model file's numerical solver, and give them weights that "
        "correct means, sds and quantiles, where not too few of them have most of the weight",
    )
    groups: str | None = option(
        None,
        group=RESULTS,
        metavar="NAMES",
        unset="none of them",
        help="further groups of posterior.nc, separated by commas, each of which costs a solve a draw: "
        f"{', '.join(COSTLY)}",
    )
    out: str | os.PathLike | None = changed(CommonSettings, "out", unset="runs/MODEL-SAMPLER")

    def check(self) -> None:
        """Raise a ``ValueError`` for a value that cannot be meant."""
        super().check()
        _ = self.further_groups
        if self.exact and self.sampler != "hmc":
            raise ValueError(
                f"--exact needs proposals of a reversible chain, and {self.sampler} is not known to be "
                "one: give --sampler hmc."
            )
        if self.exact and self.reweight:
            raise ValueError(
                "--exact draws from the numerical posterior, so that --reweight has nothing to correct: "
                "give one of them."
            )
        if self.reweight and not self.certify:
            raise ValueError("--reweight is a certificate of all draws: leave out --no-certify.")
        if self.second and not self.fine_tuned:
            raise ValueError(
                f"--{self.second} corrects draws of a network by the numerical solver, and --operator "
                "numerical samples with that one already: leave one of them out."
            )

    @property
    def further_groups(self) -> tuple[str, ...]:
        """Those that were asked for; raises a ``ValueError`` for others than there are."""
        names = tuple(name.strip() for name in (self.groups or "").split(",") if name.strip())
        unknown = [name for name in names if name not in COSTLY]
        if unknown:
            raise ValueError(
                f"--groups: there are no groups {unknown}; known are {', '.join(COSTLY)}."
            )
        return names

    @property
    def second(self) -> str | None:
        """The option that needs the numerical operator beside the network, if there is one."""
        return "exact" if self.exact else "reweight" if self.reweight else None

    @property
    def stateful(self) -> bool:
        """Whether the chain carries the weights along (the papers' algorithm)."""
        return self.sampler.startswith("bilo-")

    @property
    def adapts(self) -> bool:
        """Whether the operator is adapted before sampling."""
        return self.adapt and self.fine_tuned and not self.stateful

    @property
    def may_take_features(self) -> bool:
        """Where adaptation can tell whether they suffice."""
        return super().may_take_features and self.adapts and not self.accept_unconverged

    @property
    def samples_posterior(self) -> bool:
        """It is what a run is for."""
        return True

    @property
    def tolerates_unconverged(self) -> bool:
        """Whether a solve that misses the tolerance may stand."""
        return self.accept_unconverged

    @property
    def chosen_inner(self) -> str:
        """The inner solver."""
        return self.inner or "lm"

    def default_folder(self, model_name: str) -> str:
        """``MODEL-SAMPLER``."""
        return f"{model_name}-{self.sampler}"

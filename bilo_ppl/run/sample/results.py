"""What comes out of a run: the ArviZ object, comparisons, figures, and the printed report."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bilo_ppl import diagnostics
from bilo_ppl.diagnostics.inner import side_by_side
from bilo_ppl.diagnostics.predictive import WITHOUT_SOLVES, predicted
from bilo_ppl.inner.arithmetic import LOOKED_AT
from bilo_ppl.mcmc import BlockSampler, stage_acceptance
from bilo_ppl.network.lora import merge_lora
from bilo_ppl.network.trainable import count_parameters
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record, warn
from bilo_ppl.run.sample.figures import draw_posterior_figures
from bilo_ppl.run.sample.kept_results import FITS, GRID, SOLVES, kept
from bilo_ppl.run.sample.settings import SampleSettings
from bilo_ppl.run.sample.solves import look_closely, over_sites, told
from bilo_ppl.run.settings import RunFailedError
from bilo_ppl.validation.certificate import Certificate
from bilo_ppl.validation.distance import Distances, distances
from bilo_ppl.validation.posterior_grid import GridPosterior, grid_posterior

__all__ = ["Results"]


class Results:
    """Draws of a run, and what is computed from them stage by stage."""

    def __init__(
        self,
        plan: Plan[SampleSettings],
        record: Record,
        operator: AbstractSolutionOperator,
        sampler: BlockSampler,
        sampled: AbstractSolutionOperator,
        second: AbstractSolutionOperator | None = None,
    ):
        """``sampled`` is the operator as the chains had it: it may look at a few points first.

        With ``second``, the operator of a second stage, it is that one whose posterior the draws have.
        """
        self.second = second
        if second is not None:
            operator = sampled = second
        self.plan, self.record, self.operator, self.sampled = plan, record, operator, sampled
        self.draws = sampler.collected()
        self.args, self.kwargs = plan.observations.model_args, plan.observations.model_kwargs
        self.model = plan.model(operator)
        self.samples = self.draws.samples
        self.stages = None if second is None else stage_acceptance(self.draws.statistics)
        """What two stages have accepted."""
        self.inner: Any = None
        """What the solves at all draws do, as in sampling."""
        self.closely: Any = None
        """The same on all points, at some of the draws."""
        self.exact: GridPosterior | None = None
        self.ways: tuple[str, ...] = ()
        """The certificates that were to be made."""
        self.certificates: dict[str, Certificate] = {}
        self.fits: dict[str, diagnostics.Fit] = {}
        self.finest: AbstractSolutionOperator | None = None
        """The numerical operator as a certificate has refined it; None where it has not."""
        self.distances: dict[str, Distances] = {}
        self.no_remedy: str | None = None
        """Why another operator would not do where transitions diverged, if that is known."""
        self.groups: dict[str, dict[str, np.ndarray]] = {}
        """Further groups of posterior.nc, arrays by name."""

    @property
    def count(self) -> int:
        """Draws of all chains."""
        return int(np.prod(np.shape(next(iter(self.samples.values())))[:2]))

    @property
    def tolerance(self) -> float | None:
        """Tolerance of the inner solver; None with a numerical operator."""
        return self.operator.loss_tolerance

    def idata(self) -> Any:
        """The ArviZ object, with what is known so far."""
        idata = diagnostics.to_arviz(self.draws, inner=self.inner)
        diagnostics.add_certificates(idata, self.certificates)
        for name, values in self.groups.items():
            diagnostics.add_group(idata, name, values)
        return idata

    def write(self) -> None:
        """Write posterior.nc and summary.csv."""
        idata = self.idata()
        file = self.record.path("posterior.nc")
        try:
            diagnostics.save(idata, file)
        except RuntimeError as error:
            # HDF5 wraps what the disk says into what it was doing.
            reason = re.search("error message = '(.*?)'", str(error))
            raise RunFailedError(
                f"cannot write {self.record.folder.path / file.name} "
                f"({reason[1] if reason else error})."
            ) from error
        self.table = diagnostics.write_summary_csv(idata, self.record.path("summary.csv"))

    def add_inner_statistics(self) -> None:
        """What the solves do at the draws, unless the chain has recorded it, and whether the data
        look like data of the model there; a warning if they do not.
        """
        settings = self.plan.settings
        stateful = settings.stateful
        look: Any = diagnostics.goodness_of_fit if stateful else diagnostics.solves_and_fit
        batch = side_by_side([self.operator])
        title = "The draws again: inner solves, and fit to the data."
        passes = LOOKED_AT * self.passes(self.count)
        with self.record.stage("draws again", title, passes):
            model = self.plan.model(self.sampled)

            @functools.cache
            def found() -> Any:
                return look(model, self.samples, *self.args, batch_size=batch, **self.kwargs)

            self.fits = self.kept("fit", FITS, lambda: found() if stateful else found()[1])
            self.inner = None if stateful else self.kept("solves", SOLVES, lambda: found()[0])
            self.closely = self.inner
            if self.sampled is not self.operator:
                self.closely = self.kept(
                    "solves on all points",
                    SOLVES,
                    lambda: look_closely(self.model, self.samples, self.args, self.kwargs),
                )
                solves = told(over_sites(self.closely), self.operator)
                self.record["solves_on_all_points"] = solves
                self.record.say(f"On all {len(self.operator.problem.points)} points, {solves}.")
        self.record["fit"] = self.fits
        for text in filter(None, (fit.warning for fit in self.fits.values())):
            warn(text)

    def compare_with_exact(self) -> None:
        """The exact posterior on a grid, where the model file has one, and the distances to it."""
        file = self.plan.file
        if file.reference is None or file.reference_grid is None:
            return
        with self.record.stage("exact", "Exact posterior on a grid, by the numerical operator."):
            numerical = self.plan.numerical or self.finest or file.reference()
            try:
                model = self.plan.model(numerical)
                exact: GridPosterior = self.kept(
                    "exact posterior",
                    GRID,
                    lambda: grid_posterior(model, file.reference_grid, *self.args, **self.kwargs),
                )
                self.distances = {
                    name: distances(self.samples[name], exact, name) for name in exact.names
                }
            except ValueError as error:
                warn(f"no comparison with the exact posterior: {error}")
                self.record["exact"] = f"not available: {error}"
                return
        self.exact = exact
        self.record["distances"] = {
            name: {"exact_mean": exact.mean(name), "exact_sd": exact.sd(name)} | found._asdict()
            for name, found in self.distances.items()
        }

    def add_groups(self) -> None:
        """What the model predicts: the prior, points and noise; and what else was asked for."""
        settings, data = self.plan.settings, self.plan.observations
        wanted, numerical = settings.further_groups, self.plan.numerical
        if "prior_predictive" in wanted:
            numerical = numerical or self.plan.file.reference()
        with self.record.stage("groups", "Groups: " * bool(wanted) + ", ".join(wanted)):
            self.groups = predicted(
                dataclasses.replace(self.draws, model=self.model),
                (*WITHOUT_SOLVES, *wanted),
                key=jax.random.key(settings.seed + 5),
                constant={"x": data.x, "sigma": data.sigma},
                prior_model=None if numerical is None else self.plan.model(numerical),
            )

    def kept(self, what: str, form: Any, make: Callable[[], Any]) -> Any:
        """A result, or that of a process before: see `kept`."""
        return kept(self.record.say, what, self.count, form, make)

    def passes(self, draws: int) -> float:
        """Weights of the network times rows, of so many draws; zero without a network."""
        if not isinstance(self.operator, FineTuned):
            return 0.0
        local = self.operator.operator
        return float(draws * len(local.points) * count_parameters(merge_lora(local.network)))

    def draw_figures(self, verdict: str) -> None:
        """Write figures/*.png, with the verdict above."""
        with self.record.stage("figures", "Figures."):
            idata = self.idata()
            self.record.draw(
                draw_posterior_figures(self.plan, self.model, idata, self.exact, self.tolerance),
                verdict,
            )

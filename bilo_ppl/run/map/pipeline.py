"""The stages of ``bilo-ppl map``: an operator, an estimate for each data set, scores, figures."""

import json
from typing import Any

import jax
import numpy as np

from bilo_ppl._blocks import Interrupts
from bilo_ppl._files import replacing
from bilo_ppl._units import labelled
from bilo_ppl.diagnostics.verdict import judge_estimates
from bilo_ppl.estimate import Estimate, find_map, save_estimate
from bilo_ppl.estimate.accuracy import EstimateAccuracy, check_estimate
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.pde.data import Observations
from bilo_ppl.run.checkpoint import checkpoint_in, find_run
from bilo_ppl.run.checks import prepare
from bilo_ppl.run.ending import conclude, to_the_end
from bilo_ppl.run.feature_count import accuracies_of
from bilo_ppl.run.features import limit_of, worth_a_network
from bilo_ppl.run.map.figures import draw_estimate_figures
from bilo_ppl.run.map.scores import (
    compared_points,
    over_data_sets,
    own_scores,
    relative_errors,
    table,
    u_error,
)
from bilo_ppl.run.map.settings import MapSettings
from bilo_ppl.run.map.solves import solves_of_estimates
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.operators import Prepared, make_operator
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Clock, Record, plain, warn
from bilo_ppl.run.remedies import for_estimates, operating
from bilo_ppl.run.settings import RunFailedError, refusing
from bilo_ppl.run.tolerance import prediction_error

__all__ = ["estimate_model"]


def estimate_model(settings: MapSettings) -> int:
    """Do the estimates and return the exit status: 0, 1 where the verdict is FAILED, 3 where it is
    DOUBTFUL and that is to count (``strict``), or 130 after Ctrl-C.

    Raises `BadInputError` before anything is computed or written, and `RunFailedError` if a stage
    cannot reach what the next one needs; run.json then says so.

    Examples:
        >>> from bilo_ppl.run import MapSettings, estimate_model
        >>> estimate_model(MapSettings("poisson", steps=0, out=folder / "map"))
        Traceback (most recent call last):
            ...
        bilo_ppl.run.errors.BadInputError: steps is 0; the least is 1.
        >>> (folder / "map").exists()
        False
    """
    started = Clock()
    with refusing():
        plan = prepare(
            settings,
            load_model(settings.model, learnt=settings.fine_tuned).with_noise(settings.noise),
        )
        found = find_run(plan)
    with plan.folder, checkpoint_in(plan):
        record = Record(plan.folder, settings)
        for name, path in plan.inputs.items():
            record.read(name, path)
        record.took("check", started)
        record.say(*(f"Note: {note}" for note in found))
        return to_the_end(record, _Job(plan, record).run)


class _Job:
    """Estimates for all data sets, with one operator and one compilation."""

    def __init__(self, plan: Plan[MapSettings], record: Record):
        self.settings, self.plan, self.record = plan.settings, plan, record
        self.optimizer = plan.settings.make_optimizer()
        self.scores: list[dict[str, Any]] = []
        self.estimates: list[Estimate] = []
        self.accuracies: list[EstimateAccuracy] = []
        self.other_alarms: list[str] = []
        """Those of the stages before the certificate."""
        self.numerical: AbstractSolutionOperator | None = None
        self.tried: Estimate | None = None
        """That from the first data by which features were judged, where they do."""

    def run(self, interrupts: Interrupts) -> int:
        """All stages."""
        plan, say = self.plan, self.record.say
        self.record["problem"] = plan.described()
        say(f"Model {plan.file.path}: unknown {', '.join(plan.file.problem.parameters)}.")
        prepared = make_operator(plan, self.record, interrupts)
        operator = prepared.operator
        if not self._suffices(prepared):
            operator = make_operator(plan, self.record, interrupts, features=False).operator
        self.other_alarms = list(self.record.content.get("alarms", ()))
        self.numerical = plan.numerical
        if self.numerical is None and plan.file.reference is not None:
            self.numerical = plan.file.reference()
        tried = self.tried is not None
        for number, seed in enumerate(self.settings.data_seeds):
            self._estimate(operator, seed)
            self._write()
            if interrupts.count:
                break
            if number == 0 and len(self.settings.data_seeds) > 1 and not tried:
                say("(The first estimate includes compilation.)")
        interrupted = bool(interrupts.count)
        verdict = judge_estimates(
            converged=[found.converged for found in self.estimates],
            solved=[bool(np.all(found.inner.converged)) for found in self.estimates],
            energies=[found.energy for found in self.estimates],
            accuracy=self.accuracies[0] if self.accuracies else None,
            certifiable=self.settings.fine_tuned,
            alarms=self.other_alarms,
            interrupted=interrupted,
        )
        verdict = verdict._replace(advice=self._advice(operator, interrupted))
        with self.record.stage("figures", "Figures."):
            self.record.draw(
                draw_estimate_figures(plan, operator, self.estimates[0], self.numerical),
                verdict.state.value,
            )
        self._report(operator)
        return conclude(self.record, verdict, "interrupted in estimate" if interrupted else None)

    def _advice(self, operator: AbstractSolutionOperator, interrupted: bool) -> tuple[str, ...]:
        settings = self.settings
        tolerance = operator.loss_tolerance if settings.fine_tuned else None
        return for_estimates(
            short=any(found.status == "steps" for found in self.estimates),
            steps=settings.chosen_steps,
            simultaneous=settings.method == "simultaneous",
            unsolved=not all(np.all(found.inner.converged) for found in self.estimates),
            accuracy=self.accuracies[0] if self.accuracies else None,
            operating=operating(settings, operator, tolerance),
            interrupted=interrupted,
        )

    def _suffices(self, prepared: Prepared) -> bool:
        """Whether an operator does at the estimate from the first data, unless it was asked for."""
        operator = prepared.operator
        if not isinstance(operator, OutputLayer) or self.settings.output_layer:
            return True
        record, site = self.record, self.plan.solutions[0]
        with record.stage("check features", "Trying the features at an estimate."):
            try:
                found = self.tried = self._found(operator, self.plan.observations)
                state = found.operator_states[site]
                error = prepared.error or prediction_error(self.plan)
                (accuracy,) = accuracies_of(
                    error, operator, [(found.theta(site), state, found.values)]
                )
            except ValueError as cause:
                record.say(f"They do not do: {cause}")
                self.tried = None
                return False
        record.say(f"The estimate has {accuracy}.")
        if accuracy.worst > limit_of(self.plan) and worth_a_network(self.plan):
            self.tried = None
        return self.tried is not None

    def _found(self, operator: AbstractSolutionOperator, data: Observations) -> Estimate:
        settings = self.settings
        return find_map(
            self.plan.file.model,
            jax.random.key(settings.seed + 2),
            operator,
            *data.model_args,
            method=settings.method,
            optimizer=self.optimizer,
            init=self.plan.first_guess,
            steps=settings.chosen_steps,
            progress=not settings.quiet,
            **data.model_kwargs,
        )

    def _estimate(self, operator: AbstractSolutionOperator, seed: int) -> None:
        settings, file = self.settings, self.plan.file
        data = self.plan.observations if settings.data else file.observations(seed)
        said = data.described(self.plan.data_kind)
        with self.record.stage(f"estimate {seed}", f"Estimate, data seed {seed}: {said}."):
            try:
                found, self.tried = self.tried or self._found(operator, data), None
            except ValueError as error:
                raise RunFailedError(f"data seed {seed}: {error}") from error
        self.record.say(str(found))
        if not self.accuracies and self.plan.settings.fine_tuned:
            self._certify(found)
        if not found.converged and found.status != "steps":
            warn(f"data seed {seed}: {found.message}")
        save_estimate(self.record.path(f"estimate-{seed}.eqx"), found)
        self.estimates.append(found)
        self.scores.append(self._score(found, seed))

    def _certify(self, found: Estimate) -> None:
        """Of the first data set: whether a tighter solve would move the estimate."""
        with self.record.stage("certify"):
            try:
                accuracy = check_estimate(found)
            except ValueError as error:
                self.record["no_certificate"] = f"No certificate: {error}"
                self.record.say(self.record.content["no_certificate"])
                return
        self.accuracies.append(accuracy)
        self.record["certificate"] = {
            **accuracy._asdict(),
            "good": accuracy.good,
            "text": str(accuracy),
        }
        self.record.say(f"Certificate: {accuracy}")
        if accuracy.alarming:
            self.record.alarm(str(accuracy))

    def _score(self, found: Estimate, seed: int) -> dict[str, Any]:
        file, site = self.plan.file, self.plan.solutions[0]
        error = None
        if self.numerical is not None and self.plan.numerical is None:
            error = u_error(found, site, self.numerical, compared_points(file.problem))
        errors = {}
        if self.settings.data is None:
            errors = relative_errors(file, found.theta(site), found.values)
        return {
            "seed": seed,
            "theta": {n: np.asarray(v).tolist() for n, v in found.values.items()},
            "relative_error": errors,
            "scores": own_scores(file, found.theta(site)) if self.settings.data is None else {},
            "u_relative_error": error,
            "cpu_seconds": float(found.history.cpu_seconds[-1]),
            "steps": found.history.steps,
            "inner_steps": int(np.sum(found.history.inner_steps)),
            "energy": found.energy,
            "data_loss": found.data_loss,
            "inner_loss": float(found.inner.loss),
            "status": found.status,
            "converged": found.converged,
        }

    def _write(self) -> None:
        with replacing(self.record.path("map.json")) as temporary:
            content = over_data_sets(self.scores, self.settings)
            temporary.write_text(json.dumps(plain(content), indent=2) + "\n")

    def _report(self, operator: AbstractSolutionOperator) -> None:
        say, folder = self.record.say, self.record.folder.path
        solves = solves_of_estimates(self.estimates, operator, self.settings)
        self.record["inner_report"] = solves
        frame = table(self.scores)
        with replacing(self.record.path("map.csv")) as temporary:
            frame.to_csv(temporary, index_label="seed")
        shown = frame.rename(columns=lambda name: labelled(name, self.plan.file.units))
        say("", shown.to_string(float_format=lambda v: f"{v:.4g}", na_rep=""))
        say(
            "",
            "Errors are relative (of functions and of u in L2); u is compared with the numerical",
        )
        say("solution at the estimate.", "", *solves, "", self.record.times())
        say(f"Results: {folder}/map.json, map.csv, run.json, estimate-*.eqx and figures/.")

"""``bilo-ppl compare``: every method on every data set, a table, a figure."""

import dataclasses
import json
import os
import tempfile
from typing import Any

from bilo_ppl._files import replacing
from bilo_ppl.run.compare.figures import draw_posteriors
from bilo_ppl.run.compare.outcome import Outcome, save_arrays
from bilo_ppl.run.compare.processes import Ran, run_apart
from bilo_ppl.run.compare.scores import Exact, exact_posterior, score
from bilo_ppl.run.compare.settings import CompareSettings
from bilo_ppl.run.compare.table import LEGEND, shown, table
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.compare.told import settings_of, times_of
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.record import Record, plain
from bilo_ppl.run.report import write_report
from bilo_ppl.run.settings import refusing

__all__ = ["compare_methods"]

INTERRUPTED, FAILED = 130, 1


def compare_methods(settings: CompareSettings) -> int:
    """Do the comparison and return the exit status: 0, 1 where every method has failed, or 130 after
    Ctrl-C, which keeps what there is.

    Raises `BadInputError` before anything is computed or written.

    >>> from bilo_ppl.run import CompareSettings, compare_methods
    >>> compare_methods(CompareSettings("poisson", methods="numerical", limit=-1.0))
    Traceback (most recent call last):
        ...
    bilo_ppl.run.errors.BadInputError: limit is -1; it must be positive.
    """
    with refusing():
        folder, tasks = _checked(settings)
    with folder:
        record = Record(folder, settings)
        record.read("model", tasks[0].file.path)
        return _Comparison(settings, record).run(tasks)


def _checked(settings: CompareSettings) -> tuple[RunFolder, list[Task]]:
    """The folder, and a task without a method for each data set, all of them looked at."""
    tasks = [
        Task(
            method="",
            model=os.fspath(settings.model),
            data=None if settings.data is None else os.fspath(settings.data),
            data_seed=seed,
            noise=settings.noise,
            seed=settings.seed,
            chains=settings.chains,
            warmup=settings.warmup,
            samples=settings.samples,
            folder="",
        )
        for seed in settings.data_seeds
    ]
    file = tasks[0].file
    for task in tasks:
        _ = task.observations
    inputs = [path for path in (file.path, settings.data) if path]
    folder = RunFolder(
        settings.output_folder(file.name),
        written=("run.json", *settings.FILES),
        inputs=inputs,
        overwrite=settings.overwrite,
    )
    folder.check()
    return folder, tasks


class _Comparison:
    def __init__(self, settings: CompareSettings, record: Record):
        self.settings, self.record = settings, record
        self.rows: list[dict[str, Any]] = []
        self.draws: dict[str, Any] = {}

    def run(self, tasks: list[Task]) -> int:
        file, say = tasks[0].file, self.record.say
        say(
            f"Model {file.path}: unknown {', '.join(file.problem.parameters)}.",
            f"Data: {tasks[0].described()}.",
            f"Methods: {', '.join(self.settings.chosen)}; at most {self.settings.limit:g} s each.",
        )
        self.record["problem"] = tasks[0].problem()
        interrupted = False
        first: tuple[dict[str, Outcome], Exact] | None = None
        for task in tasks:
            ran, interrupted = self._all(task)
            found = {r.task.method: r.outcome for r in ran if r.outcome is not None}
            with self.record.stage("scores", ""):
                exact = exact_posterior(task, found.get("numerical"))
                self.rows += [score(one, exact) for one in ran]
            first = first or (found, exact)
            self._write()
            if interrupted:
                break
        if first is not None:
            self._draw(*first, tasks[0])
        return self._conclude(interrupted)

    def _all(self, task: Task) -> tuple[list[Ran], bool]:
        """Every method on one data set; whether Ctrl-C has ended that."""
        ran: list[Ran] = []
        name = task.data or f"data seed {task.data_seed}"
        for method in self.settings.chosen:
            with tempfile.TemporaryDirectory(prefix="bilo-compare-") as folder:
                own = dataclasses.replace(task, method=method, folder=folder)
                try:
                    with self.record.stage(method):
                        one = run_apart(own, self.settings.limit)
                except KeyboardInterrupt:
                    self.record.say(f"  {method}, {name}: interrupted.")
                    return ran, True
            ran.append(one)
            ended = f"failed: {one.reason}" if one.outcome is None else "done"
            self.record.say(f"  {method}, {name}: {ended} ({one.wall_seconds:.0f} s).")
        return ran, False

    def _write(self) -> None:
        with replacing(self.record.path("compare.json")) as temporary:
            temporary.write_text(json.dumps(plain({"rows": self.rows}), indent=2) + "\n")
        with replacing(self.record.path("compare.csv")) as temporary:
            table(self.rows).to_csv(temporary)

    def _draw(self, outcomes: dict[str, Outcome], exact: Exact, task: Task) -> None:
        arrays = {
            f"{method}/{name}": draws
            for method, outcome in outcomes.items()
            for name, draws in outcome.samples.items()
        }
        with replacing(self.record.path("draws.npz")) as temporary:
            save_arrays(temporary, arrays)
        truth = (task.file.truth or {}) if task.data is None else {}
        ended = f"{len(outcomes)} of {len(self.settings.chosen)} methods have ended"
        if task.data is None:
            ended += f", data seed {task.data_seed}"
        self.record.draw(draw_posteriors(outcomes, exact, truth, task.file.units), ended)

    def _conclude(self, interrupted: bool) -> int:
        say = self.record.say
        if self.rows:
            frame = table(self.rows)
            say("", shown(frame), "", *LEGEND)
            known = frame.astype(object).where(frame.notna(), None)
            self.record["methods"], self.record["legend"] = known.to_dict(orient="index"), LEGEND
            self.record["method_settings"] = settings_of(self.rows)
            self.record["method_times"] = times_of(self.rows)
        failed = all("failed" in row for row in self.rows)
        self.record.status(
            "interrupted"
            if interrupted
            else "failed: no method has ended"
            if failed
            else "finished"
        )
        write_report(self.record)
        files = "report.html, compare.json, compare.csv, draws.npz and figures/"
        say("", f"Results: {self.record.folder}/{files}.")
        return INTERRUPTED if interrupted else FAILED if failed else 0

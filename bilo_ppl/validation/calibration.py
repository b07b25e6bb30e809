"""Simulation-based calibration: are posteriors right on the average over the prior?

A truth is drawn from the prior and data from the model; the posterior is sampled; the rank of the truth
among independent draws is uniform if everything is right (Talts et al. 2018), and so is that of any
function of unknowns and data (Modrák et al. 2023). The log-likelihood notices a posterior that is too
wide or too narrow.
"""

import concurrent.futures
import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bilo_ppl._progress import Progress
from bilo_ppl._snapshot import flat
from bilo_ppl._types import Key
from bilo_ppl.mcmc.blocks import fresh
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import look_at
from bilo_ppl.validation.replicate import Replicates, Setting, is_double
from bilo_ppl.validation.replicate_files import add_record, claim, origin_of_setting, records
from bilo_ppl.validation.uniformity import chi_square, ecdf_band, even_bins

__all__ = ["Calibration", "calibrate"]

LEVEL = 0.01


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The ranks of true values among posterior draws, over all replicates.

    Examples:
        >>> ranks = {"r": np.arange(100), "log-likelihood": np.arange(100)}
        >>> found = bilo.Calibration(ranks, kept=99, records=())
        >>> found.passes(), min(found.p_values["r"]) > 0.5
        (True, True)
        >>> bilo.Calibration({"r": np.arange(100) // 2}, kept=99, records=()).passes()
        False
    """

    ranks: Mapping[str, np.ndarray]
    """By scalar unknown, and of the log-likelihood: 0 to ``kept``, (replicates,)."""
    kept: int
    """Draws that a truth is ranked among."""
    records: Sequence[Mapping[str, Any]]
    """What is known of every replicate: truths, effective draws, counts of its chain, CPU seconds."""

    @property
    def p_values(self) -> dict[str, tuple[float, float]]:
        """Of uniform ranks, by name: by chi square on bins, and by the simultaneous band of the ECDF."""
        return {
            name: (chi_square(ranks, self.kept), ecdf_band(ranks, self.kept))
            for name, ranks in self.ranks.items()
        }

    def passes(self, level: float = LEVEL) -> bool:
        """Whether all p-values are above the level."""
        return all(min(values) > level for values in self.p_values.values())

    def total(self, name: str) -> float:
        """The sum of what the records have under a name, such as "cpu_seconds" or "diverging"."""
        return math.fsum(record[name] for record in self.records)

    def __str__(self) -> str:
        number = len(next(iter(self.ranks.values())))
        verdict = "passes" if self.passes() else "FAILS"
        lines = [f"Calibration of {number} replicates {verdict}; p-values of uniform ranks:"]
        for name, (bins, band) in self.p_values.items():
            lines.append(f"  {name}: {bins:.2g} (chi square), {band:.2g} (ECDF band)")
        if self.records:
            sizes = [record["effective_draws"] for record in self.records]
            lines.append(
                f"  Of {self.kept} kept draws {np.median(sizes):.0f} are effective in the median, "
                f"{min(sizes):.0f} at least; ranks are uniform only if nearly all are."
            )
            known = [n for n in ("diverging", "unsolved", "redrawn") if n in self.records[0]]
            counts = ", ".join(f"{self.total(name):.0f} {name}" for name in known)
            seconds = self.total("cpu_seconds") / len(self.records)
            lines.append(f"  {counts}; {seconds:.2g} CPU s a replicate.")
        return "\n".join(lines)


def calibrate(
    kernel: Any,
    key: Key,
    *model_args: Any,
    data: Sequence[str] = ("y",),
    generator: Callable | None = None,
    reference: AbstractSolutionOperator | Mapping[str, AbstractSolutionOperator] | None = None,
    replicates: int = 200,
    warmup: int = 300,
    kept: int = 127,
    thin: int = 10,
    folder: str | pathlib.Path | None = None,
    executor: concurrent.futures.Executor | None = None,
    per_job: int = 25,
    progress: bool = True,
    **model_kwargs: Any,
) -> Calibration:
    """Draw truths and data ``replicates`` times, sample each posterior, and rank the truths.

    ``kernel`` is one of NumPyro's or of this package, made with the model; ``model_args`` and
    ``model_kwargs`` are the model's arguments without the data, as a rule with an operator that `adapt`
    has fitted to the prior (``thetas="prior"``): it serves all data sets.

    **Arguments**

    - ``data``: names of sites, and of the arguments of the model that take their values.
    - ``generator``: the model that truths and data are drawn from, with the same arguments; by default
      the kernel's. It has the unknowns and the ``data`` as sites, sampled or deterministic: give it where
      the model cannot draw its data, as with a factor. Its data must always have the same shape.
    - ``reference``: operator, for all solution sites or by site, that data and log-likelihoods are
      computed with; by default the model's own. Truths at which it does not solve are drawn anew: the
      prior is then the one given that there is a solution, and posteriors must be cut off likewise.
    - ``warmup``, ``kept``, ``thin``: transitions; draws that are ranked among; transitions for each. Thin
      so that kept draws are nearly independent: `Calibration` counts the effective ones.
    - ``folder``: where every replicate leaves a small file as it ends. A call with the same arguments
      goes on from what is there, also with more ``replicates``; a folder of others is refused.
    - ``executor``: of `concurrent.futures`, or one like it (such as that of submitit, on a cluster),
      to which jobs of ``per_job`` replicates go. Without one all are done here.

    A job compiles once, and data are arguments. (The package simuk asks NumPyro for a new `MCMC` for each
    data set, compiled anew, and draws data with the operator that it samples with.)
    What goes to other processes must be picklable: models and formulas that can be imported.

    Raises a ``ValueError`` for sizes out of range, sites that are missing, a folder of another
    calibration, and where the reference finds no solution.

    Examples:
        >>> kernel = NUTS(model, init_strategy=bilo.init_near({"r": 5.0}))
        >>> sizes = {"replicates": 20, "warmup": 100, "kept": 19, "thin": 4}
        >>> found = bilo.calibrate(kernel, key, exact, x, **sizes, progress=False)
        >>> list(found.ranks), found.passes()
        (['r', 'log-likelihood'], True)
    """
    _check(replicates, warmup, kept, thin, per_job)
    if getattr(kernel, "model", None) is None:
        raise ValueError("calibrate: give a kernel that was made with a model.")
    given = reference or {}
    if not isinstance(given, Mapping):
        solutions = look_at(kernel.model, model_args, model_kwargs).solutions
        given = dict.fromkeys(solutions, given)
    setting = Setting(
        kernel=fresh(kernel),
        args=model_args,
        kwargs=model_kwargs,
        data=tuple(data),
        generator=generator or kernel.model,
        reference=given,
        warmup=warmup,
        kept=kept,
        thin=thin,
        key=tuple(flat(key)[0].ravel().tolist()),
        double=is_double(),
    )
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary if folder is None else folder).absolute()
        claim(place, origin_of_setting(setting))
        there = records(place, replicates)
        missing = [index for index in range(replicates) if index not in there]
        with Progress(replicates, "calibration", "replicate", progress) as shown:
            shown.resume(len(there))
            for done in _done(setting, place, missing, executor, per_job):
                shown.update(len(there) + done, "")
        found = records(place, replicates)
    every = [found[index] for index in range(replicates)]
    ranks = {
        name: np.array([record["ranks"][name] for record in every]) for name in every[0]["ranks"]
    }
    return Calibration(ranks, kept, every)


def _done(
    setting: Setting, folder: pathlib.Path, missing: list[int], executor: Any, per_job: int
) -> Iterator[int]:
    """Do what is missing; yield how many are done."""
    if not missing:
        return
    if executor is None:
        yield from _job(setting, folder, missing)
        return
    parts = [missing[i : i + per_job] for i in range(0, len(missing), per_job)]
    jobs = [executor.submit(run_job, setting, folder, part) for part in parts]
    done = 0
    for job in jobs:
        done += job.result()
        yield done


def run_job(setting: Setting, folder: pathlib.Path, indices: Sequence[int]) -> int:
    """Do some replicates, write a file for each, and say how many."""
    return sum(1 for _ in _job(setting, folder, indices))


def _job(setting: Setting, folder: pathlib.Path, indices: Sequence[int]) -> Iterator[int]:
    replicates = Replicates(setting)
    for number, index in enumerate(indices):
        add_record(folder, replicates.record(index))
        yield number + 1


def _check(replicates, warmup, kept, thin, per_job) -> None:
    wrong = {
        "replicates": (replicates, 10),
        "warmup": (warmup, 1),
        "kept": (kept, 9),
        "thin": (thin, 1),
        "per_job": (per_job, 1),
    }
    for name, (value, least) in wrong.items():
        if value < least:
            raise ValueError(f"calibrate: {name}={value}; the least is {least}.")
    even_bins(replicates, kept)

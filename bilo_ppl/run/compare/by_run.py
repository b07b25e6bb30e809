"""BiLO: as ``bilo-ppl run`` does it, and as in the papers."""

import json
import pathlib
from typing import Any

import numpy as np
import optax

from bilo_ppl.diagnostics import load
from bilo_ppl.inner.pretraining import pretrain
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, ResidualGradient
from bilo_ppl.inner.solvers import LevenbergMarquardt, OptaxSolver
from bilo_ppl.mcmc import BiLOHMC, init_near, sample_in_blocks
from bilo_ppl.network.features import is_one_layer
from bilo_ppl.network.operator_file import load_operator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.compare.by_operators import means, u_at
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.sample.pipeline import sample_model
from bilo_ppl.run.sample.settings import SampleSettings

__all__ = ["bilo", "papers"]

COUNTED = ("pretrain", "features", "adapt", "adapt again", "warmup", "sampling")
"""Stages of a run without which there would be no draws."""

PAPERS = {"width": 128, "depth": 2}
TOLERANCE, RATE, LEAPFROGS, STEP, RANK = 1e-4, 1e-3, 10, 0.01, 4
"""Of the papers' nonlinear Poisson problem: HMC with 10 leapfrog steps of 0.01, Adam, low rank 4."""

PRETRAINING_STEPS, INNER_STEPS = 20_000, 2000

FEWER = 2
"""Draws of the single chain for one of a chain of another method: a draw takes ten solves by Adam."""


def bilo(task: Task) -> Outcome:
    """The run, without its checks and comparisons."""
    folder = pathlib.Path(task.folder) / "run"
    settings = SampleSettings(
        task.model,
        data=task.data,
        data_seed=task.data_seed,
        seed=task.seed,
        chains=task.chains,
        warmup=task.warmup,
        samples=task.samples,
        certify=False,
        quiet=True,
        out=folder,
    )
    sample_model(settings)
    record = json.loads((folder / "run.json").read_text())
    idata = load(folder / "posterior.nc")
    samples = {name: v.values for name, v in idata["posterior"].data_vars.items()}
    for stage, cpu in record["cpu_seconds"].items():
        if stage in COUNTED:
            task.spent.add(stage, cpu, record["compile_seconds"][stage])
    values, statistics = means(samples), idata["sample_stats"]
    return Outcome(
        values,
        u_at(task, _operator(task, folder, record), values),
        samples,
        diverging=int(record["faults"]["diverging"]),
        evaluations=int(statistics["n_steps"].values.sum()),
        notes=f"verdict {record['verdict']['state']}",
        settings={
            "warm-up": task.warmup,
            **{name: found["value"] for name, found in record.get("sizes", {}).items()},
            "tolerance": record["adapt"]["tolerance"],
        },
    )


def _operator(task: Task, folder: pathlib.Path, record: Any) -> FineTuned | OutputLayer:
    """The operator of a run, random features or a network, to its tolerance."""
    network = task.file.architecture.get("network")
    local = load_operator(folder / "operator-adapted.eqx", task.file.problem, network=network)
    tolerance = record["adapt"]["tolerance"]
    if "features" in record and "features_failed" not in record and is_one_layer(local):
        ridge = record["features"]["ridge"]
        return OutputLayer(local, task.file.start, tolerance=tolerance, ridge=ridge)
    return FineTuned(local, LevenbergMarquardt(tolerance, max_steps=50), ImplicitDifferentiation())


def papers(task: Task) -> Outcome:
    """The papers' algorithm: Adam for pretraining and every inner solve, HMC of a fixed length."""
    args, kwargs = task.arguments
    adam = optax.adam(RATE)
    shape = {**PAPERS, **task.file.architecture}
    with task.spent.stage("pretrain"):
        network, _ = pretrain(
            task.file.problem,
            task.file.start,
            key=task.key(0),
            solver=OptaxSolver(adam, TOLERANCE, PRETRAINING_STEPS),
            progress=False,
            **shape,
        )
    operator = FineTuned(
        network.with_lora(RANK, key=task.key(1)),
        OptaxSolver(adam, TOLERANCE, INNER_STEPS),
        ResidualGradient(),
    )
    kernel = BiLOHMC(
        task.bound(operator),
        step_size=STEP,
        num_steps=LEAPFROGS,
        trajectory_length=None,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        init_strategy=init_near(task.first_values(operator)),
        # The papers never restore weights. Were they restored after every rejection, a chain that sets
        # out far from the mode would forget what it has learnt: 500 inner steps for a draw, not 40.
        learn_in_warmup=True,
    )
    with task.spent.stage("sampling"):
        draws = sample_in_blocks(
            kernel,
            task.key(2),
            *args,
            num_warmup=-(-task.warmup // FEWER),
            num_samples=-(-task.samples // FEWER),
            num_chains=1,
            progress=False,
            **kwargs,
        )
    values, inner = means(draws.samples), draws.statistics["inner_steps"]
    return Outcome(
        values,
        u_at(task, operator, values),
        draws.samples,
        diverging=int(draws.statistics["diverging"].sum()),
        evaluations=int(draws.statistics["num_steps"].sum()),
        notes=f"one chain, {np.mean(inner) / LEAPFROGS:.1f} inner steps each",
        settings={
            "warm-up": -(-task.warmup // FEWER),
            **PAPERS,
            **task.stated_sizes,
            "rank": RANK,
            "tolerance": TOLERANCE,
            "leapfrog steps": LEAPFROGS,
            "step size": STEP,
            "learning rate": RATE,
        },
    )

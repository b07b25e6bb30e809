"""Two stages: exact posteriors by a loose or coarse first stage, and what they cost.

    python benchmarks/two_stage.py [--out FILE.json] [--only NAME ...]

Problem 1, the nonlinear Poisson equation, with a network that is solved to 1e-2 only: HMC on it, the
same accepted against finite differences, and HMC on finite differences. Fisher-KPP with a time stepper of
SciPy that has no derivative as the second stage, and the method of lines on 21 nodes as the first: beside
HMC on the method of lines on 101 nodes. Every way has a process and one thread of its own. Times are CPU
seconds of sampling, warm-up and compilation left out.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from numpyro.infer import HMC
from scipy.integrate import solve_ivp

import bilo_ppl as bilo
from benchmarks.processes import run_each
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler
from models import fisher_kpp, nonlinear_poisson

jax.config.update("jax_enable_x64", True)

TRAJECTORY, FIRST_STEP = 1.5, 0.1
CHAINS, WARMUP, SAMPLES = 2, 100, 400
TIME_LIMIT = 900


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to sample a posterior."""

    problem: str
    """"poisson" or "fisher-kpp"."""
    way: str
    """"first" (the cheap operator alone), "two-stage", or "exact" (HMC on the differentiable one)."""

    @property
    def name(self) -> str:
        """A label for the table."""
        return f"{self.problem}/{self.way}"


def cases(profile: str) -> list[Case]:
    """All of them, whatever the profile."""
    ways = ("first", "two-stage", "exact")
    return [Case(problem, way) for problem in ("poisson", "fisher-kpp") for way in ways]


def loose_network() -> Any:
    """The network of problem 1, pretrained and solved to 1e-2."""
    solver = bilo.LevenbergMarquardt(tolerance=1e-2, max_steps=20)
    trained = bilo.pretrain(
        nonlinear_poisson.problem,
        nonlinear_poisson.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=5e-3, max_steps=300),
        sensitivity=bilo.ImplicitDifferentiation(),
        progress=False,
    )
    local = trained.operator.with_lora(4, key=jax.random.key(1))
    return bilo.FineTuned(local, solver, bilo.ImplicitDifferentiation())  # pyright: ignore[reportCallIssue]


def black_box(points: np.ndarray, nodes: int = 101) -> bilo.BlackBox:
    """SciPy's LSODA on second differences: the values at the points, which are among the nodes."""
    x = np.linspace(0, 1, nodes)
    times, which_time = np.unique(points[:, 1], return_inverse=True)
    which_node = np.rint(points[:, 0] * (nodes - 1)).astype(int)

    def values(theta):
        spread = fisher_kpp.DIFFUSION * float(theta["D"]) * (nodes - 1) ** 2
        rho = float(theta["rho"])

        def rate(t, u):
            du = rho * u * (1 - u)
            du[1:-1] += spread * (u[2:] - 2 * u[1:-1] + u[:-2])
            du[[0, -1]] = 0
            return du

        found = solve_ivp(
            rate,
            (0, 1),
            np.sin(np.pi * x) ** 2 / 2,
            "LSODA",
            times,
            rtol=1e-8,
            atol=1e-9,
            lband=1,
            uband=1,
        )
        if not found.success:
            return np.full(len(points), np.nan)
        return found.y[which_node, which_time]

    return bilo.BlackBox(fisher_kpp.problem, values, points)


def operators(case: Case, data: dict) -> tuple[Any, Any]:
    """The operator of HMC, and that of the second stage if there is one."""
    if case.problem == "poisson":
        if case.way == "exact":
            return nonlinear_poisson.reference(), None
        second = nonlinear_poisson.reference() if case.way == "two-stage" else None
        return loose_network(), second
    if case.way == "exact":
        return fisher_kpp.reference(), None
    second = black_box(np.asarray(data["x"])) if case.way == "two-stage" else None
    return fisher_kpp.reference(nodes=21), second


def measured(case: Case) -> dict[str, Any]:
    """Sample, and compare with the posterior on a grid."""
    file = nonlinear_poisson if case.problem == "poisson" else fisher_kpp
    data = file.synthetic_data(0)
    args = (data["x"], data["y"], data["sigma"])
    first, second = operators(case, data)
    kernel: Any = HMC(
        file.model,
        step_size=FIRST_STEP,
        trajectory_length=TRAJECTORY,
        dense_mass=True,
        init_strategy=bilo.init_near(file.truth),
    )
    if second is not None:
        kernel = bilo.TwoStage(kernel, {"u": second})
    sampler = BlockSampler(
        kernel, (first, *args), chains=CHAINS, chain_method="sequential", warmup=WARMUP, block=100
    )
    sampler.start(jax.random.key(2))
    sampler.run(WARMUP, keep=False, progress=False, label="warm-up")
    begun = time.process_time()
    sampler.run(SAMPLES, keep=True, progress=False, label="sampling")
    seconds = time.process_time() - begun
    draws = sampler.collected()
    reference = file.reference()
    exact = bilo.grid_posterior(
        lambda *args: file.model(reference, *args), file.reference_grid, *args
    )
    ess = min(chain_diagnostics(values).ess_bulk for values in draws.samples.values())
    record = {
        "name": case.name,
        "cpu_seconds": seconds,
        "draws": CHAINS * SAMPLES,
        "ess": ess,
        "ess_per_cpu_second": ess / seconds,
        "leapfrogs": int(draws.statistics["num_steps"].sum()),
        "distances": {
            name: bilo.distances(draws.samples[name], exact, name)._asdict() for name in exact.names
        },
        "device": "CPU, one thread",
    }
    if second is not None:
        record["stages"] = bilo.stage_acceptance(draws.statistics).as_dict()
    return record


HEAD = (
    "| way | unknown | total variation (band) | mean off, MC errors | acceptance (predicted) | solves "
    "| effective draws | CPU s | effective draws per CPU s |\n|---|---|---|---|---|---|---|---|---|"
)


def lines(record: dict[str, Any]) -> Iterator[str]:
    """A row for each unknown."""
    stages = record.get("stages")
    accepted = f"{stages['second']:.2f} ({stages['predicted']:.2f})" if stages else ""
    for name, found in record["distances"].items():
        yield (
            f"| {record['name']} | {name} | {found['total_variation']:.3f} "
            f"({found['total_variation_ess95']:.3f}) | {found['mean_error']:+.1f} | {accepted} | "
            f"{stages['solves'] if stages else ''} | {record['ess']:.0f} | "
            f"{record['cpu_seconds']:.1f} | {record['ess_per_cpu_second']:.0f} |"
        )


if __name__ == "__main__":
    run_each(__file__, __doc__, cases, measured, HEAD, lines, TIME_LIMIT)

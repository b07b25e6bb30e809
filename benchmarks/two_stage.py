"""Two stages: exact posteriors by a loose or coarse first stage, and what they cost.

    python benchmarks/two_stage.py [--out FILE.json] [--only NAME ...]

Problem 1, the nonlinear Poisson equation, with a network of tolerance 1e-2, adapted by one step only: HMC
on it, the same accepted against finite differences, and HMC on finite differences. No theta of the
posterior asks this network for an inner step: not because u is good, but because 1e-2 asks for so little.
Were there steps, the energy would jump where their number changes. Fisher-KPP with a time stepper of
SciPy that has no derivative as the second stage, and the method of lines on 21 nodes as the first: beside
HMC on the method of lines on 101 nodes.

Every way has a process and one thread of its own. Times are CPU seconds of sampling; warm-up, compilation
and the operator are recorded apart.
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
CHAINS, WARMUP = 2, 200
SAMPLES = {"poisson": 5000, "fisher-kpp": 1000}
TIME_LIMIT = 900

ADAPTED = np.linspace(0.55, 0.85, 16)
"""Values of k for the loose network: five posterior standard deviations on either side."""
FIT_STEPS = 1
"""As few as can be: with more the network is nearly right, whatever the tolerance."""


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


def loose_network(args: tuple) -> bilo.AbstractSolutionOperator:
    """The network of problem 1 at the tolerance 1e-2, adapted to ADAPTED by FIT_STEPS steps."""
    keys = jax.random.split(jax.random.key(0), 3)
    trained = bilo.pretrain(
        nonlinear_poisson.problem,
        nonlinear_poisson.start,
        key=keys[0],
        solver=bilo.LevenbergMarquardt(tolerance=5e-3, max_steps=300),
        sensitivity=bilo.ImplicitDifferentiation(),
        progress=False,
    )
    local = trained.operator.with_lora(4, key=keys[1])
    solver = bilo.LevenbergMarquardt(tolerance=1e-2, max_steps=20)
    # Without inner steps the partial derivative is that of the energy.
    operator = bilo.FineTuned(local, solver, bilo.PartialDerivative())
    adapted = bilo.adapt(
        nonlinear_poisson.model,
        keys[2],
        operator,
        *args,
        thetas={"k": ADAPTED},
        rank=0,
        fit_steps=FIT_STEPS,
        max_rounds=1,
        progress=False,
    )
    return adapted.operator


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


def operators(case: Case, args: tuple) -> tuple[Any, Any]:
    """The operator of HMC, and that of the second stage if there is one."""
    if case.problem == "poisson":
        if case.way == "exact":
            return nonlinear_poisson.reference(), None
        second = nonlinear_poisson.reference() if case.way == "two-stage" else None
        return loose_network(args), second
    if case.way == "exact":
        return fisher_kpp.reference(), None
    second = black_box(np.asarray(args[0])) if case.way == "two-stage" else None
    return fisher_kpp.reference(nodes=21), second


def measured(case: Case) -> dict[str, Any]:
    """Sample, and compare with the posterior on a grid."""
    file = nonlinear_poisson if case.problem == "poisson" else fisher_kpp
    data = file.synthetic_data(0)
    args = (data["x"], data["y"], data["sigma"])
    begun = time.process_time()
    first, second = operators(case, args)
    spent = {"operator": time.process_time() - begun}
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
    begun = time.process_time()
    sampler.start(jax.random.key(2))
    sampler.run(WARMUP, keep=False, progress=False, label="warm-up")
    spent["warmup"] = time.process_time() - begun
    samples = SAMPLES[case.problem]
    begun = time.process_time()
    sampler.run(samples, keep=True, progress=False, label="sampling")
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
        "cpu_seconds_before": spent,
        "draws": CHAINS * samples,
        "ess": ess,
        "ess_per_cpu_second": ess / seconds,
        "leapfrogs": int(draws.statistics["num_steps"].sum()),
        "acceptance": float(draws.statistics["accept_prob"].mean()),
        "divergent": int(draws.statistics["diverging"].sum()),
        "distances": {
            name: bilo.distances(draws.samples[name], exact, name)._asdict() for name in exact.names
        },
        "device": "CPU, one thread",
    }
    # Of the operator whose posterior is wanted; a leapfrog step is a solve with its gradient.
    record["solves"] = record["gradients"] = record["leapfrogs"] if case.way == "exact" else 0
    if second is not None:
        stages = bilo.stage_acceptance(draws.statistics)
        record |= {"stages": stages.as_dict(), "solves": stages.solves}
    return record


HEAD = (
    "| way | unknown | total variation (band) | mean off, MC errors | acceptance (predicted) "
    "| solves, gradients | effective draws | CPU s (warm-up) | effective draws per CPU s |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def lines(record: dict[str, Any]) -> Iterator[str]:
    """A row for each unknown."""
    stages = record.get("stages")
    accepted = f"{stages['second']:.2f} ({stages['predicted']:.2f})" if stages else ""
    seconds = f"{record['cpu_seconds']:.1f} ({record['cpu_seconds_before']['warmup']:.0f})"
    for name, found in record["distances"].items():
        yield (
            f"| {record['name']} | {name} | {found['total_variation']:.3f} "
            f"({found['total_variation_ess95']:.3f}) | {found['mean_error']:+.1f} | {accepted} | "
            f"{record['solves']}, {record['gradients']} | {record['ess']:.0f} | "
            f"{seconds} | {record['ess_per_cpu_second']:.0f} |"
        )


if __name__ == "__main__":
    run_each(__file__, __doc__, cases, measured, HEAD, lines, TIME_LIMIT)

"""Speed and accuracy on the nonlinear Poisson problem: solvers, sensitivities, ranks, adaptation.

    python benchmarks/nonlinear_poisson.py [--profile quick|paper] [--out FILE.json] [--only NAME ...]

One process and one thread for each method, so that compilation is cold and the peak memory is the
method's own; times are CPU seconds of that process. Prints a table and writes one record for each
method. Compilation of the sampler is a stage of its own: part of the whole run, not of the sampling.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import dataclasses
import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer import HMC, NUTS, init_to_value

import bilo_ppl as bilo
from benchmarks.processes import run_each
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler
from models import nonlinear_poisson as case

jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to sample the posterior."""

    inner: str
    """"lm" or "adam"."""
    sensitivity: str
    rank: int
    mode: str
    """"adapted" (plain NumPyro kernel on an adapted operator), "stateful" (weights carried along),
    or "numerical"."""
    sampler: str = "hmc"
    tolerance: float = 1e-6
    warmup: int = 200
    samples: int = 2000

    @property
    def name(self) -> str:
        """A label for the table."""
        if self.mode == "numerical":
            return f"numerical/{self.sampler}"
        rank = f"lora{self.rank}" if self.rank else "full"
        return f"{self.mode}/{self.sampler}/{self.inner}/{self.sensitivity}/{rank}"


CHAINS = 4
TIME_LIMIT = 300
"""Wall seconds that one method may take."""
SENSITIVITIES = {
    "partial": bilo.PartialDerivative,
    "implicit": bilo.ImplicitDifferentiation,
    "residual-gradient": bilo.ResidualGradient,
}


def methods(profile: str) -> list[Method]:
    """What is compared; the slow ones draw less."""
    rows = [Method("", "", 0, "numerical")]
    for tolerance in (1e-4, 1e-6):
        rows += [
            Method("lm", "partial", 4, "adapted", "hmc", tolerance),
            Method("lm", "partial", 4, "adapted", "nuts", tolerance),
        ]
    few = {"tolerance": 1e-4, "warmup": 50, "samples": 100}
    if profile == "quick":
        return [*rows, Method("lm", "implicit", 4, "stateful", **few)]
    few_tight = {**few, "tolerance": 1e-6}
    return [
        *rows,
        *(
            Method(inner, sensitivity, rank, mode, **few)
            for mode in ("adapted", "stateful")
            for inner in ("lm", "adam")
            for sensitivity in ("implicit", "residual-gradient")
            for rank in (0, 2, 4, 8)
        ),
        *(Method("lm", s, 4, "stateful", **few_tight) for s in ("implicit", "residual-gradient")),
    ]


class Clock:
    """CPU seconds by stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, work: Any) -> Any:
        """Do ``work()`` and add its CPU time to a stage."""
        begun = time.process_time()
        result = work()
        jax.block_until_ready([x for x in jax.tree.leaves(result) if isinstance(x, jax.Array)])
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begun
        return result


def pretrained(method: Method, clock: Clock) -> bilo.LocalOperator:
    """The operator at k = 0.6, on the rows that the method's sensitivity asks for.

    Adaptation fits it again: exploration solves to 1e-4, and nothing is gained by starting far below.
    """
    tolerance = 1e-5 if method.mode == "adapted" else 5e-7
    solver = bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=300)

    def work():
        return bilo.pretrain(
            case.problem,
            case.start,
            key=jax.random.key(0),
            solver=solver,
            sensitivity=SENSITIVITIES[method.sensitivity](),
            progress=False,
        ).operator

    return clock.stage("pretrain", work)


def prepared(method: Method, data: dict, clock: Clock) -> Any:
    """The solution operator of a method, and the mass matrix that adaptation found, if any."""
    if method.mode == "numerical":
        return case.reference(), None
    steps = 6 if method.mode == "adapted" else 20
    solver: Any = bilo.LevenbergMarquardt(method.tolerance, steps)
    if method.inner == "adam":
        solver = bilo.OptaxSolver(optax.adam(1e-3), method.tolerance, 2000)
    sensitivity = SENSITIVITIES[method.sensitivity]()
    local = pretrained(method, clock).with_lora(method.rank, key=jax.random.key(1))
    fine = bilo.FineTuned(local, solver, sensitivity)
    if method.mode != "adapted":
        return fine, None
    adapted = clock.stage(
        "adapt",
        lambda: bilo.adapt(
            case.model, jax.random.key(2), fine, data["x"], data["y"], progress=False
        ),
    )
    print(f"    {adapted.report}", file=sys.stderr)
    return adapted.operator, adapted.inverse_mass_matrix


def kernel_of(method: Method, model: Any, mass: Any) -> Any:
    """The NumPyro kernel of a method."""
    kinds = {
        ("adapted", "nuts"): NUTS,
        ("adapted", "hmc"): HMC,
        ("numerical", "hmc"): HMC,
        ("stateful", "nuts"): bilo.BiLONUTS,
        ("stateful", "hmc"): bilo.BiLOHMC,
    }
    options: dict[str, Any] = {"step_size": 0.7}
    if method.sampler == "hmc":
        # In units of the posterior's sd two leapfrog steps of 0.8 turn a Gaussian by 94 degrees: draws as
        # good as independent, at an acceptance that needs no adaptation.
        options = {
            "step_size": 0.8,
            "num_steps": 2,
            "trajectory_length": None,
            "adapt_step_size": False,
        }
    start = init_to_value(values=case.start)
    scale = np.array([1.5e-3]) if mass is None else mass
    return kinds[method.mode, method.sampler](
        model, init_strategy=start, inverse_mass_matrix=jnp.asarray(scale), **options
    )


def sampled(method: Method, operator: Any, mass: Any, data: dict, clock: Clock) -> dict:
    """Warm up and draw; the first transition, which compiles, is a stage of its own."""
    kernel = kernel_of(method, lambda x, y: case.model(operator, x, y), mass)
    block = BlockSampler(
        kernel,
        (data["x"], data["y"]),
        chains=CHAINS,
        chain_method="sequential",
        warmup=method.warmup,
        block=100,
    )
    options: dict[str, Any] = {"progress": False, "label": method.name}

    def compiled():
        block.start(jax.random.key(3))
        block.run(1, keep=False, **options)

    clock.stage("compile", compiled)
    clock.stage("warmup", lambda: block.run(method.warmup - 1, keep=False, **options))
    clock.stage("sampling", lambda: block.run(method.samples, keep=True, **options))
    draws = block.collected()
    return {**draws.samples, **draws.statistics}


def record(method: Method, fields: dict, exact: Any, clock: Clock, data: dict, fine: Any) -> dict:
    """What is kept of a method."""
    draws = fields["k"]
    quality = bilo.distances(draws, exact, "k")
    found = chain_diagnostics(draws)
    whole = sum(clock.seconds.values())
    leapfrogs = int(fields["num_steps"].sum())
    steps = fields.get("inner_steps")
    per_leapfrog = None if steps is None else float(steps.sum() / leapfrogs)
    if steps is None and isinstance(fine, bilo.FineTuned):
        inner = bilo.inner_statistics(
            lambda x, y: case.model(fine, x, y), {"k": draws}, data["x"], data["y"]
        )["u"]
        per_leapfrog = float(np.mean(inner.steps))
    return {
        "method": method.name,
        "tolerance": None if method.mode == "numerical" else method.tolerance,
        "chains": CHAINS,
        "samples": method.samples,
        "ess": quality.ess,
        "ess_per_cpu_second_sampling": quality.ess / clock.seconds["sampling"],
        "ess_per_cpu_second_whole": quality.ess / whole,
        "cpu_ms_per_leapfrog": 1e3 * clock.seconds["sampling"] / leapfrogs,
        "inner_steps_per_leapfrog": per_leapfrog,
        "mean_error_in_mcse": quality.mean_error,
        "sd_error": quality.sd_error,
        "total_variation": quality.total_variation,
        "total_variation_iid": quality.total_variation_iid,
        "total_variation_iid95": quality.total_variation_iid95,
        "total_variation_ess95": quality.total_variation_ess95,
        "r_hat": float(found.r_hat),
        "divergences": int(fields["diverging"].sum()),
        "cpu_seconds": {k: round(v, 3) for k, v in clock.seconds.items()},
        "cpu_seconds_whole": whole,
    }


COLUMNS = (
    ("method", "{:<48}", "method"),
    ("tolerance", "{!s:>7}", "tol"),
    ("ess", "{:>7.0f}", "ESS"),
    ("ess_per_cpu_second_sampling", "{:>9.0f}", "ESS/s"),
    ("ess_per_cpu_second_whole", "{:>9.1f}", "whole"),
    ("cpu_ms_per_leapfrog", "{:>8.2f}", "ms/leap"),
    ("inner_steps_per_leapfrog", "{!s:>8.6}", "inner"),
    ("mean_error_in_mcse", "{:>7.1f}", "mean/se"),
    ("sd_error", "{:>7.3f}", "sd err"),
    ("total_variation", "{:>7.3f}", "TV"),
    ("total_variation_iid95", "{:>7.3f}", "iid95"),
    ("r_hat", "{:>7.3f}", "R-hat"),
)


def line(entry: dict | None = None) -> str:
    """A row of the table, or its head."""
    parts = []
    for key, form, head in COLUMNS:
        width = form.split(":")[1].rstrip("}").lstrip("<>").split(".")[0]
        side = "<" if "<" in form else ">"
        parts.append(form.format(entry[key]) if entry else f"{head:{side}{width}}")
    return " ".join(parts)


def measured(method: Method) -> dict:
    """The record of one method, in this process."""
    data, clock = case.synthetic_data(0), Clock()
    fine, mass = prepared(method, data, clock)
    fields = sampled(method, fine, mass, data, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    exact = bilo.grid_posterior(
        case.model, case.reference_grid, case.reference(), data["x"], data["y"]
    )
    return {**record(method, fields, exact, clock, data, fine), "peak_memory_mib": peak}


if __name__ == "__main__":
    run_each(
        __file__, __doc__, methods, measured, line(), lambda record: [line(record)], TIME_LIMIT
    )

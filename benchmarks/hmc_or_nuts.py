"""NUTS against HMC with trajectories of fixed and of random length.

    python benchmarks/hmc_or_nuts.py [--problems NAME ...] [--seeds 5] [--again] [--out FILE.json]

nonlinear_poisson, fisher_kpp and variable_poisson (10 coefficients), each by the numerical operator of
the model file and by random features that are adapted to the posterior. All samplers start where the
exploration ended and with the units that it found, and have a warm-up of their own for the step size. HMC
goes 1.5 posterior standard deviations, as that of `bilo-ppl run` does, or a length drawn anew for each
trajectory, uniform between 0 and pi. The effective draws are those of the parameter with the fewest,
for its mean and, since HMC may be antithetic, for its variance. Prints a table of medians over seeds, and
writes a record for each problem and operator.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from numpyro.infer import HMC, NUTS

import bilo_ppl as bilo
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler
from models import fisher_kpp, nonlinear_poisson, variable_poisson

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

FIXED, LONGEST = 1.5, np.pi
"""Lengths of trajectories in posterior standard deviations: at pi / 2 a Gaussian draw is independent."""

CHAINS, WARMUP, BLOCK = 2, 150, 50
DRAWS = {"numerical": 250, "features": 1000}
"""By operator: gradients of Fisher-KPP by the method of lines take 5 ms."""

SAMPLERS = ("NUTS", "HMC, fixed", "HMC, random")


class RandomLengthHMC(HMC):
    """`numpyro.infer.HMC` whose trajectories are uniform between 0 and ``trajectory_length``.

    NumPyro keeps the length in the state of the chain and has no option to vary it. Here it is drawn
    before each transition, whatever the position: a mixture of kernels that leave the posterior as it is.
    """

    def sample(self, state, model_args, model_kwargs):
        """The next state."""
        key, own = jax.random.split(state.rng_key)
        longest = state.trajectory_length
        length = longest * jax.random.uniform(own, minval=0.02)
        moved = super().sample(
            state._replace(rng_key=key, trajectory_length=length), model_args, model_kwargs
        )
        return moved._replace(trajectory_length=longest)


PROBLEMS = {
    "nonlinear_poisson": (nonlinear_poisson, nonlinear_poisson.model),
    "fisher_kpp": (fisher_kpp, fisher_kpp.model),
    "variable_poisson": (variable_poisson, variable_poisson.bayesian_model),
}


def features(name: str) -> bilo.OutputLayer:
    """Random features for a problem: how many and how right, as `bilo-ppl run` finds them."""
    case, _ = PROBLEMS[name]
    key, problem, thetas = jax.random.key(0), case.problem, [case.start]
    if name == "variable_poisson":
        problem = ManyPoints()
        thetas = [{"D": bilo.KarhunenLoeve(a)} for a in jax.random.normal(key, (4, case.MODES))]
    if name == "nonlinear_poisson":
        problem, thetas = ManyNonlinear(), [{"k": 0.6}, {"k": 0.8}]
    if name == "fisher_kpp":
        thetas = [{"D": 1.0, "rho": 1.0}, {"D": 2.0, "rho": 2.0}]
    count = 256 if name == "fisher_kpp" else 128
    local, trials = bilo.choose_random_features(problem, thetas, count=count, key=key)
    tolerance = {"fisher_kpp": 2.5e-5, "variable_poisson": 5e-7, "nonlinear_poisson": 1e-6}[name]
    ridge = min(trials, key=lambda trial: trial.score).ridge
    return bilo.OutputLayer(local, thetas[0], tolerance=tolerance, ridge=ridge)


class ManyPoints(variable_poisson.VariablePoisson):
    """At as many points as features should have."""

    points = variable_poisson.VariablePoisson.domain.grid(512)


class ManyNonlinear(nonlinear_poisson.NonlinearPoisson):
    """At as many points as features should have."""

    points = nonlinear_poisson.NonlinearPoisson.domain.grid(512)


def measured(name: str, seeds: int) -> Iterator[dict[str, Any]]:
    """A record for each operator of a problem."""
    case, model = PROBLEMS[name]
    data = case.synthetic_data(0)
    adapted = bilo.adapt(
        model, jax.random.key(1), features(name), data["x"], data["y"], progress=False
    )
    print(f"{name}: {adapted.report}", file=sys.stderr, flush=True)
    for way, operator in (("numerical", case.reference()), ("features", adapted.operator)):
        runs = []
        for sampler in SAMPLERS:
            kernel = kernel_of(sampler, model, adapted)
            runs += sampled(sampler, kernel, (operator, data["x"], data["y"]), adapted, way, seeds)
        yield {"problem": name, "operator": way, "runs": runs}
        jax.clear_caches()


def kernel_of(sampler: str, model: Any, adapted: bilo.Adapted) -> HMC:
    """In the units of the posterior; only the step size is left to warm-up."""
    covariance = jnp.asarray(adapted.covariance)
    units: dict[str, Any] = {
        "inverse_mass_matrix": covariance,
        "dense_mass": True,
        "adapt_mass_matrix": False,
        "step_size": 0.5,
    }
    if sampler == "NUTS":
        return NUTS(model, max_tree_depth=8, **units)
    if sampler == "HMC, fixed":
        return HMC(model, trajectory_length=FIXED, **units)
    return RandomLengthHMC(model, trajectory_length=LONGEST, **units)


def sampled(
    sampler: str, kernel: HMC, arguments: tuple, adapted: bilo.Adapted, way: str, seeds: int
) -> list[dict[str, Any]]:
    """A record for each seed; the sampler is compiled once."""
    blocks = BlockSampler(
        *(kernel, arguments),
        chains=CHAINS,
        chain_method="sequential",
        warmup=WARMUP,
        block=BLOCK,
    )
    blocks.start(jax.random.key(2), adapted.starts(CHAINS))
    first, records = blocks.state, []
    quiet: dict[str, Any] = {"progress": False, "label": sampler}
    blocks.run(1, keep=False, **quiet)  # compiles
    for seed in range(seeds):
        blocks.state = first._replace(rng_key=jax.random.split(jax.random.key(100 + seed), CHAINS))
        blocks.draws.clear()
        blocks.run(WARMUP, keep=False, **quiet)
        begun = time.process_time()
        blocks.run(DRAWS[way], keep=True, **quiet)
        seconds = time.process_time() - begun
        draws, statistics = blocks.collected().samples, blocks.collected().statistics
        flat = {name: np.asarray(z).reshape(CHAINS, DRAWS[way], -1) for name, z in draws.items()}
        columns = [z[..., i] for z in flat.values() for i in range(z.shape[-1])]
        found = [chain_diagnostics(z) for z in columns]
        squares = [chain_diagnostics((z - z.mean()) ** 2).ess_bulk for z in columns]
        records.append(
            {
                "sampler": sampler,
                "seed": seed,
                "cpu_seconds": seconds,
                "gradients": int(np.sum(statistics["num_steps"])),
                "draws": CHAINS * DRAWS[way],
                "acceptance": float(np.mean(statistics["accept_prob"])),
                "diverging": int(np.sum(statistics["diverging"])),
                "ess": float(min(row.ess_bulk for row in found)),
                "ess_of_squares": float(min(squares)),
                "r_hat": float(max(row.r_hat for row in found)),
            }
        )
    return records


def figures(run: dict[str, Any]) -> dict[str, float]:
    """What the table has of a run."""
    least = min(run["ess"], run["ess_of_squares"])
    return {
        "gradients_per_draw": run["gradients"] / run["draws"],
        "acceptance": run["acceptance"],
        "mean_per_1000": 1e3 * run["ess"] / run["gradients"],
        "square_per_1000": 1e3 * run["ess_of_squares"] / run["gradients"],
        "ms_per_gradient": 1e3 * run["cpu_seconds"] / run["gradients"],
        "per_second": least / run["cpu_seconds"],
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """A row for each problem, operator and sampler: medians over the seeds, and a range."""
    lines = [
        "| problem | operator | sampler | gradients a draw | acceptance | "
        "effective draws per 1000 gradients: mean, variance | CPU ms a gradient | "
        "the fewer per CPU s (least to most of seeds) | diverging |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        for sampler in SAMPLERS:
            runs = [run for run in record["runs"] if run["sampler"] == sampler]
            each = [figures(run) for run in runs]
            m = {name: float(np.median([f[name] for f in each])) for name in each[0]}
            fast = [f["per_second"] for f in each]
            lines.append(
                f"| {record['problem']} | {record['operator']} | {sampler} | "
                f"{m['gradients_per_draw']:.1f} | {m['acceptance']:.2f} | {m['mean_per_1000']:.0f}, "
                f"{m['square_per_1000']:.0f} | {m['ms_per_gradient']:.2g} | {m['per_second']:.0f} "
                f"({min(fast):.0f} to {max(fast):.0f}) | {sum(r['diverging'] for r in runs)} |"
            )
    return "\n".join(lines)


def draw(path: pathlib.Path) -> None:
    """Every seed: effective draws per gradient and per second, by problem and operator."""
    records = json.loads(path.read_text())
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for offset, (sampler, colour) in enumerate(
        zip(SAMPLERS, ("#b2182b", "#92c5de", "#2166ac"), strict=True)
    ):
        for i, record in enumerate(records):
            runs = [run for run in record["runs"] if run["sampler"] == sampler]
            x = [i + 0.2 * (offset - 1)] * len(runs)
            least = np.array([min(run["ess"], run["ess_of_squares"]) for run in runs])
            label = sampler if i == 0 else None
            axes[0].plot(
                x, 1e3 * least / [r["gradients"] for r in runs], "o", color=colour, label=label
            )
            axes[1].plot(x, least / [r["cpu_seconds"] for r in runs], "o", color=colour)
    names = [f"{r['problem']}\n{r['operator']}" for r in records]
    for axis, title in zip(axes, ("1000 gradients", "CPU second of sampling"), strict=True):
        axis.set_xticks(range(len(names)), names, fontsize=7)
        axis.set(yscale="log", title=f"effective draws per {title}")
        axis.grid(True, axis="y", alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path.with_suffix(".png"), dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument(
        "--out", default=str(pathlib.Path(__file__).parent / "results" / "hmc_or_nuts.json")
    )
    arguments = parser.parse_args()
    path = pathlib.Path(arguments.out)
    records = json.loads(path.read_text()) if path.exists() else []
    for name in arguments.problems:
        if not arguments.again and any(record["problem"] == name for record in records):
            continue
        records = [record for record in records if record["problem"] != name]
        for record in measured(name, arguments.seeds):
            records.append(record)
            path.write_text(json.dumps(records, indent=1) + "\n")
            print(table([record]), flush=True)
    print("\n" + table(records))
    draw(path)


if __name__ == "__main__":
    main()

"""Simulation-based calibration of the whole method on the scalar Poisson problem.

    python benchmarks/calibration.py [--operator adapted|exact] [--broken] [--replicates 300] [--out FILE]

For each replicate theta is drawn from the prior of models/poisson.py and data from the closed form with
noise; the package's kernel samples the posterior with an operator that was adapted to the prior once. If
everything is right, the rank of the true theta among nearly independent posterior draws is uniform (Talts
et al. 2018), and so is that of any function of theta and data (Modrák et al. 2023): here of the
log-likelihood, which notices a posterior that is too wide or too narrow. Uniformity is tested by chi
square on bins, and by the simultaneous band of the empirical distribution function (Säilynoja et al.
2022); the calibration passes if all four p-values are above 0.01.

Two controls: ``--operator exact`` has the closed form in the place of the network, and must pass too;
``--broken`` understates the noise to the model by 20 %, and must fail. Prints a table and adds the record
to the file.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import Predictive

import bilo_ppl as bilo
from benchmarks.calibration_uniformity import binned, chi_square, ecdf_band, rank
from models import poisson as case

TOLERANCE = 1e-6
INNER_STEPS = 20
PRIOR_DRAWS = 400
LEVEL = 0.01
BROKEN = 0.8
"""What the broken model takes for the noise, in parts of the true one."""
EXACT = bilo.ClosedForm(case.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a calibration."""

    replicates: int = 300
    warmup: int = 300
    kept: int = 127
    """Draws that the truth is ranked among: it may have any of ``kept + 1`` ranks."""
    thin: int = 12
    """Transitions for a kept draw: about four times what an effective draw takes in the median."""
    bins: int = 16
    seed: int = 0


def adapted_operator(x: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """A network fitted to the prior, for data of any theta; and what it took."""
    keys = jax.random.split(key, 3)
    network = bilo.pretrain(case.problem, case.start, key=keys[0], progress=False).operator
    operator = bilo.FineTuned(
        network.with_lora(4, key=keys[1]),
        bilo.LevenbergMarquardt(tolerance=TOLERANCE, max_steps=INNER_STEPS),
        bilo.PartialDerivative(),
    )
    adapted = bilo.adapt(
        case.model, keys[2], operator, x, thetas="prior", draws=PRIOR_DRAWS, progress=False
    )
    report, names = adapted.report, ("fraction_ready", "worst_loss", "thetas", "rounds", "ready")
    found = {"report": str(report)} | {name: getattr(report, name) for name in names}
    return adapted.operators["u"], found


def simulated(x: Any, key: Any, replicates: int) -> tuple[np.ndarray, np.ndarray]:
    """Thetas from the prior, and data of the exact solution: (replicates,), (replicates, n)."""
    drawn = Predictive(case.model, num_samples=replicates)(key, EXACT, x)
    return np.asarray(drawn["D"]), np.asarray(drawn["y"])


def sampler(x: Any, sigma: float, settings: Settings) -> Callable:
    """``(operator, y, key) -> (log D, of warm-up, of sampling)``, compiled once.

    log D of every transition after warm-up, and statistics of all. The data are an argument, so that
    no replicate is compiled anew. The chain starts where NumPyro would: uniformly in log D.
    """
    kernel = bilo.BiLONUTS(case.model)

    def run(operator, y, key):
        arguments = (operator, x, y, sigma)

        def step(state, _):
            state = kernel.sample(state, arguments)
            fields = ("num_steps", "inner_steps", "inner_converged", "diverging")
            return state, (state.z["D"], {name: getattr(state, name) for name in fields})

        first = kernel.init(key, settings.warmup, model_args=arguments)
        state, (_, warmup) = jax.lax.scan(step, first, None, settings.warmup)
        _, (z, sampled) = jax.lax.scan(step, state, None, settings.kept * settings.thin)
        return z, warmup, sampled

    return eqx.filter_jit(run)


def log_likelihood(D: Any, x: Any, y: Any) -> np.ndarray:
    """Of the exact solution and the true noise, without its constant: (...,) for D (...,)."""
    u = np.sin(np.pi * np.asarray(x)[:, 0]) / np.asarray(D)[..., None]
    return -0.5 * np.sum(((y - u) / case.SIGMA) ** 2, axis=-1)


def counted(statistics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the inner solves of many chains did, all transitions taken together."""
    together = {key: np.concatenate([s[key] for s in statistics]) for key in statistics[0]}
    solves = int(together["num_steps"].sum())
    return {
        "transitions": len(together["num_steps"]),
        "solves": solves,
        "inner_steps_per_solve": float(together["inner_steps"].sum() / solves),
        "transitions_with_inner_steps": float(np.mean(together["inner_steps"] > 0)),
        "unsolved": int(np.sum(~together["inner_converged"])),
        "divergent": int(together["diverging"].sum()),
    }


def calibrated(operator: Any, sigma: float, settings: Settings, key: Any) -> dict[str, Any]:
    """The ranks of all replicates, their tests, and what they cost."""
    x = jnp.asarray(case.problem.domain.grid(11))
    key_data, key_chains = jax.random.split(key)
    truths, data = simulated(x, key_data, settings.replicates)
    keys = jax.random.split(key_chains, settings.replicates)
    run = sampler(x, sigma, settings)
    begun = time.process_time()
    # Once before the clock of the replicates runs: this call compiles.
    jax.block_until_ready(run(operator, jnp.asarray(data[0]), keys[0]))
    compiled = time.process_time() - begun
    ranks: dict[str, list[int]] = {"D": [], "log-likelihood": []}
    sizes, seconds, warmups, samples = [], [], [], []
    for truth, y, chain in zip(truths, data, keys, strict=True):
        begun = time.process_time()
        z, *statistics = jax.device_get(run(operator, jnp.asarray(y), chain))
        seconds.append(round(time.process_time() - begun, 3))
        kept = np.exp(z[settings.thin - 1 :: settings.thin])
        ranks["D"].append(rank(truth, kept))
        likelihoods = log_likelihood(np.append(kept, truth), x, y)
        ranks["log-likelihood"].append(rank(likelihoods[-1], likelihoods[:-1]))
        sizes.append(float(effective_sample_size(z[None])))
        warmups.append(statistics[0])
        samples.append(statistics[1])
    return {
        "quantities": {name: tested(found, settings) for name, found in ranks.items()},
        "truths": truths.round(6).tolist(),
        "effective_draws": {"median": float(np.median(sizes)), "least": min(sizes)},
        "warmup": counted(warmups),
        "sampling": counted(samples),
        "cpu_seconds": {"first": compiled, "replicates": seconds, "all": sum(seconds)},
    }


def tested(ranks: Sequence[int], settings: Settings) -> dict[str, Any]:
    """Ranks with their counts in bins and both p-values."""
    return {
        "ranks": list(ranks),
        "bins": binned(ranks, settings.kept, settings.bins).tolist(),
        "p_chi_square": chi_square(ranks, settings.kept, settings.bins),
        "p_ecdf_band": ecdf_band(ranks, settings.kept),
    }


def lines(record: Mapping[str, Any]) -> list[str]:
    """The record as a table."""
    found = [f"{record['name']}: {'passes' if record['passes'] else 'FAILS'}"]
    for name, part in record["quantities"].items():
        tests = f"p {part['p_chi_square']:.2g} (chi square), {part['p_ecdf_band']:.2g} (band)"
        found.append(f"  {name:<15} {tests}; bins {' '.join(map(str, part['bins']))}")
    if adaptation := record.get("adaptation"):
        found.append(f"  adaptation      {adaptation['report']}")
    for stage in ("warmup", "sampling"):
        part = record[stage]
        found.append(
            f"  {stage:<15} {part['solves']} solves, {part['inner_steps_per_solve']:.3f} inner steps "
            f"each, {100 * part['transitions_with_inner_steps']:.1f} % of {part['transitions']} "
            f"transitions took any; {part['unsolved']} unsolved, {part['divergent']} divergent"
        )
    sizes, seconds = record["effective_draws"], record["cpu_seconds"]
    found.append(
        f"  CPU s           {seconds.get('operator', 0):.0f} for the operator, {seconds['first']:.1f} "
        f"for the first data set, {seconds['all']:.0f} for all: {np.median(seconds['replicates']):.2f} "
        f"in the median, {max(seconds['replicates']):.1f} at most"
    )
    draws = f"{sizes['median']:.0f} (median), {sizes['least']:.0f} (least)"
    return [*found, f"  effective draws {draws}, before thinning"]


def main() -> None:
    arguments = _arguments()
    jax.config.update("jax_enable_x64", True)
    settings = Settings(replicates=arguments.replicates, seed=arguments.seed)
    key_operator, key_replicates = jax.random.split(jax.random.key(settings.seed))
    begun = time.process_time()
    operator, adaptation = EXACT, None
    if arguments.operator == "adapted":
        operator, adaptation = adapted_operator(case.problem.domain.grid(11), key_operator)
    spent = time.process_time() - begun
    sigma = case.SIGMA * (BROKEN if arguments.broken else 1.0)
    found = calibrated(operator, sigma, settings, key_replicates)
    found["cpu_seconds"]["operator"] = spent
    values = found["quantities"].values()
    inner = {"tolerance": TOLERANCE, "most_inner_steps": INNER_STEPS, "prior_draws": PRIOR_DRAWS}
    record = {
        "name": arguments.operator + ", broken" * arguments.broken,
        "passes": all(min(v["p_chi_square"], v["p_ecdf_band"]) > LEVEL for v in values),
        "settings": dataclasses.asdict(settings) | {"sigma": sigma} | (inner if adaptation else {}),
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (bilo, jax, numpyro, eqx)},
        "adaptation": adaptation,
    } | found
    print("\n".join(lines(record)))
    _add(pathlib.Path(arguments.out), record)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operator", choices=("adapted", "exact"), default="adapted")
    parser.add_argument("--broken", action="store_true", help="understate the noise by 20 %%")
    parser.add_argument("--replicates", type=int, default=Settings.replicates)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    default = pathlib.Path(__file__).resolve().parent / "results" / "calibration.json"
    parser.add_argument("--out", default=str(default))
    return parser.parse_args()


def _add(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Put the record into the file, a line for each, in the place of an earlier one of its name."""
    others = json.loads(path.read_text()) if path.exists() else []
    records = [*(other for other in others if other["name"] != record["name"]), record]
    path.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")


if __name__ == "__main__":
    main()

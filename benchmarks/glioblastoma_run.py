"""The network's posterior of a glioblastoma from a run of the command line, and further patients.

    python benchmarks/glioblastoma_run.py run --folder FOLDER [--known FILE.json] [--out FILE.json]
    python benchmarks/glioblastoma_run.py patients --folder FOLDER [--patients 10] [--out FILE.json]

- ``run``: what ``bilo-ppl run glioblastoma --out FOLDER`` has left there, beside the posterior by the
  numerical operator from the same data, which ``benchmarks/glioblastoma.py posterior`` has written to
  ``--known``: means in its standard deviations, u and DICE at the mean, CPU seconds;
- ``patients``: the adapted operator used again, for tumours with other parameters and new labels.

CPU seconds of one process on one thread.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from typing import Any

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from benchmarks.glioblastoma import density, divided, relative
from bilo_ppl.anatomy import dice, log_odds
from models import glioblastoma as tumour


def adapted(folder: pathlib.Path) -> bilo.FineTuned:
    """The operator that a run has adapted, with the solver of its chains."""
    written = json.loads((folder / "run.json").read_text())
    local = bilo.load_operator(folder / "operator-adapted.eqx", tumour.problem)
    tolerance = written.get("tolerance_at_mode", written["tolerance"])["loss"]
    return bilo.FineTuned(
        local.with_lora(4, key=jax.random.key(1)),
        bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=6),
        bilo.PartialDerivative(),
    )


def run(arguments: argparse.Namespace) -> dict:
    folder = pathlib.Path(arguments.folder)
    idata, written = (
        az.from_netcdf(folder / "posterior.nc"),
        json.loads((folder / "run.json").read_text()),
    )
    table: Any = az.summary(idata, kind="all", round_to=6)
    data = tumour.synthetic_data(0)
    records = json.loads(pathlib.Path(arguments.known).read_text())
    known = next(record for record in records if record["part"] == "posterior")
    found: dict[str, dict[str, float]] = {}
    for name, other in known["summary"].items():
        row = table.loc[name]
        noise = np.hypot(row["sd"] / row["ess_bulk"] ** 0.5, other["sd"] / other["ess_bulk"] ** 0.5)
        found[name] = {key: float(row[key]) for key in ("mean", "sd", "r_hat", "ess_bulk")} | {
            "off": float((row["mean"] - other["mean"]) / other["sd"]),
            "noise": float(noise / other["sd"]),
            "sd_ratio": float(row["sd"] / other["sd"]),
        }
    theta = {name: found[name]["mean"] for name in tumour.problem.parameters}
    x = jnp.asarray(data["x"])
    solve = eqx.filter_jit(lambda operator, theta: operator.solve(theta, operator.init_state()))
    solution, _, info = solve(adapted(folder), theta)
    u = density(solution, x, theta)
    numerical = density(tumour.reference().solve(theta, ())[0], x, theta)
    finer = tumour.numerical(divided(tumour.problem, 2), 96)
    wanted = density(finer.solve(theta, ())[0], x, theta)

    def with_labels(u: np.ndarray) -> list[float]:
        return [
            dice(u > found[name]["mean"], data["y"][:, i] > 0.5)
            for i, name in enumerate(("c1", "c2"))
        ]

    seconds = written["cpu_seconds"]
    least = min(row["ess_bulk"] for row in found.values())
    least_known = min(row["ess_bulk"] for row in known["summary"].values())
    return {
        "part": "run",
        "arguments": {
            key: written["arguments"][key]
            for key in ("chains", "warmup", "samples", "sampler", "points")
        },
        "sizes": written.get("sizes"),
        "summary": found,
        "cpu_seconds": seconds,
        "compile_seconds": written["compile_seconds"],
        "tolerance": written.get("tolerance_at_mode", written.get("tolerance")),
        "ess_per_second": {
            "warmup_and_sampling": least / (seconds["warmup"] + seconds["sampling"]),
            "all": least / sum(seconds.values()),
            "numerical": least_known / sum(known["cpu_seconds"]),
        },
        "certificates": written.get("certificates"),
        "alarms": written.get("alarms", []),
        "inner_steps_at_mean": int(info.steps),
        "error_of_u": {"to_1_mm": relative(u, numerical), "to_half_mm": relative(u, wanted)},
        "error_of_voxels": relative(numerical, wanted),
        "dice": {"network": with_labels(u), "numerical": with_labels(numerical)},
        "dice_of_both": [
            dice(u > found[name]["mean"], numerical > found[name]["mean"]) for name in ("c1", "c2")
        ],
    }


def patients(arguments: argparse.Namespace) -> dict:
    operator, reference = adapted(pathlib.Path(arguments.folder)), tumour.reference()
    x, rng = tumour.synthetic_data(0)["x"], np.random.default_rng(arguments.seed)
    solve = eqx.filter_jit(lambda theta: operator.solve(theta, operator.init_state()))
    records = []
    for number in range(arguments.patients):
        # Within what the posterior of the first one reaches, from where the operator was adapted.
        theta = {
            "rD": 1.3 * np.exp(0.05 * rng.normal()),
            "rRHO": 1.16 * np.exp(0.02 * rng.normal()),
        }
        c = np.clip(np.array([[0.36, 0.62]]) + 0.02 * rng.normal(size=(1, 2)), 0.05, 0.95)
        exact = density(reference.solve(theta, ())[0], jnp.asarray(x), theta)
        odds = np.asarray(log_odds(exact[:, None], c))
        y = (rng.logistic(size=odds.shape) < odds).astype(float)
        begun = time.process_time()
        kernel = NUTS(
            tumour.model,
            init_strategy=init_to_value(values={**operator.home, "c1": 0.3, "c2": 0.65}),
            dense_mass=True,
            step_size=0.1,
        )
        mcmc = MCMC(
            kernel,
            num_warmup=arguments.warmup,
            num_samples=arguments.draws,
            num_chains=1,
            progress_bar=False,
        )
        mcmc.run(
            jax.random.key(number),
            operator.checked_at_few(),
            x,
            y,
            extra_fields=("num_steps", "diverging"),
        )
        draws = mcmc.get_samples()
        seconds = time.process_time() - begun
        table: Any = az.summary(
            az.from_dict({k: np.asarray(v)[None] for k, v in draws.items()}), kind="all"
        )
        true = {**theta, "c1": c[0, 0], "c2": c[0, 1]}
        at = {name: float(np.mean(draws[name])) for name in theta}
        solution, _, info = solve(at)
        wanted = density(reference.solve(at, ())[0], jnp.asarray(x), at)
        records.append(
            {
                "truth": {name: float(v) for name, v in true.items()},
                "off": {n: float((np.mean(draws[n]) - true[n]) / np.std(draws[n])) for n in true},
                "cpu_seconds": seconds,
                "ess": float(table["ess_bulk"].min()),
                "gradients": int(np.sum(mcmc.get_extra_fields()["num_steps"])),
                "divergences": int(np.sum(mcmc.get_extra_fields()["diverging"])),
                "inner_steps_at_mean": int(info.steps),
                "error_of_u": relative(density(solution, jnp.asarray(x), at), wanted),
            }
        )
        print(json.dumps(records[-1]), flush=True)
    return {
        "part": "patients",
        "draws": [1, arguments.warmup, arguments.draws],
        "patients": records,
    }


PARTS = {f.__name__: f for f in (run, patients)}


def main() -> None:
    """Run the benchmark."""
    known = pathlib.Path(__file__).parent / "results" / "glioblastoma.json"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--folder", default="runs/glioblastoma-nuts", help="of a run")
    parser.add_argument("--known", default=str(known), help="has the numerical posterior")
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="glioblastoma_run.json")
    arguments = parser.parse_args()
    record = PARTS[arguments.part](arguments)
    pathlib.Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

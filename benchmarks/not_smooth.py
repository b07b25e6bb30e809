"""The default command line where u is not smooth in theta, or in x at a place that theta moves.

    python benchmarks/not_smooth.py [--problems NAME ...] [--seeds 5] [--checked] [--out FILE.json]

The model files of the folder not_smooth/: a source and a coefficient that jump at an unknown place, the
second also as a system with the flux as an unknown, and a fold, beyond which there is no solution, with
data that exclude the turning point and with data that do not. They have no numerical solver, as files of
users who need this package; with ``--checked`` they get their closed form as one, by which a run
certifies itself. Each is a run of ``bilo-ppl run`` without options in a process of its own, compared with
quadrature over the closed form, and judged as in gallery.py. Prints a table and writes a record for each
run as it ends; what the file has already is not run again without --again. ``--solves`` tells what
random features make of the equation at the truth, without data.
"""

import argparse
import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gallery
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from commands import write_records
from numpyro.distributions import LogNormal, Uniform

import bilo_ppl as bilo

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE / "not_smooth"
CHECKED = "\n\ndef reference():\n    return bilo.ClosedForm(problem, closed_form)\n"

PRIORS: dict[str, tuple[str, Any, tuple[float, float]]] = {
    "jump_source": ("z", Uniform(0.0, 1.0), (0.0, 1.0)),
    "jump_coefficient": ("z", Uniform(0.0, 1.0), (0.0, 1.0)),
    "flux_form": ("z", Uniform(0.0, 1.0), (0.0, 1.0)),
    "fold_reached": ("c", LogNormal(np.log(2.5), 0.5), (0.1, 3.51383071)),
    "fold": ("c", LogNormal(np.log(2.5), 0.5), (0.1, 3.51383071)),
}
"""By problem: the unknown, its prior, and where there are solutions."""


def main() -> None:
    """Run the benchmark."""
    arguments = _arguments()
    jax.config.update("jax_enable_x64", True)
    out = pathlib.Path(arguments.out)
    if arguments.solves:
        found = list(solves())
        out.with_name("not_smooth_solves.json").write_text(json.dumps(found, indent=1) + "\n")
        print(solves_table(found))
        return
    records = json.loads(out.read_text()) if out.exists() else []
    known = {_key(record): record for record in records}
    for seed in range(arguments.seeds):
        for name in arguments.problems:
            if not arguments.again and (name, arguments.checked, seed) in known:
                continue
            record = measured(name, arguments.checked, seed, arguments.time_limit)
            known[_key(record)] = record
            write_records(out, [known[key] for key in sorted(known)])
            print(f"{name} {seed}: {record['verdict']}, {record['alarms']}", flush=True)
    print(table([known[key] for key in sorted(known)]))
    draw(out.with_suffix(".png"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on")
    parser.add_argument(
        "--checked", action="store_true", help="with a numerical solver in the file"
    )
    parser.add_argument("--solves", action="store_true", help="single solves in the place of runs")
    parser.add_argument("--time-limit", type=float, default=600.0, help="wall seconds of one run")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--out", default=str(HERE / "results" / "not_smooth.json"))
    return parser.parse_args()


def solves() -> Iterator[dict[str, Any]]:
    """What random features make of each equation at the truth, without data: u, and its derivative."""
    for name, (unknown, _, _) in PRIORS.items():
        module = load(name)
        problem, truth = module.problem, module.truth[unknown]
        problem = _finer(problem)
        features, trials = bilo.choose_random_features(
            problem, [module.start, module.truth], count=128, key=jax.random.key(0)
        )
        ridge = min(trials, key=lambda trial: trial.score).ridge
        operator = bilo.OutputLayer(features, module.start, tolerance=np.inf, ridge=ridge)
        data = module.synthetic_data(0)
        x = jnp.asarray(data["x"])

        def seen(value, operator=operator, unknown=unknown, x=x):
            field, _, info = operator.solve({unknown: value}, operator.init_state())
            return jax.vmap(field)(x).reshape(len(x), -1)[:, 0], info.loss

        def exact(value, module=module, unknown=unknown, x=x):
            u = jax.vmap(lambda p: module.closed_form(p, {unknown: value}))(x)
            return u.reshape(len(x), -1)[:, 0]

        u, loss = jax.jit(seen)(truth)
        slope = jax.jit(jax.jacfwd(lambda value, f=seen: f(value)[0]))(jnp.asarray(truth))
        step = 1e-4
        true_slope = (exact(truth + step) - exact(truth - step)) / (2 * step)
        yield {
            "problem": name,
            "loss": float(loss),
            "error_in_sigma": float(jnp.abs(u - exact(truth)).max() / data["sigma"]),
            "slope": float(jnp.linalg.norm(slope)),
            "true_slope": float(jnp.linalg.norm(true_slope)),
            "slope_error": float(jnp.linalg.norm(slope - true_slope) / jnp.linalg.norm(true_slope)),
        }


def _finer(problem: bilo.Problem) -> bilo.Problem:
    """At as many points as features should have."""

    class Finer(type(problem)):
        points = problem.domain.grid(512)  # pyright: ignore[reportAttributeAccessIssue]

    return Finer()


def solves_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each problem."""
    lines = [
        "| problem | loss | largest error of u at a sensor, in sigma | "
        "du/dtheta at the sensors: norm, exact | its relative error |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['problem']} | {r['loss']:.1e} | {r['error_in_sigma']:.2g} | {r['slope']:.3g}, "
        f"{r['true_slope']:.3g} | {r['slope_error']:.1%} |"
        for r in records
    ]
    return "\n".join(lines)


def _key(record: Mapping[str, Any]) -> tuple[str, bool, int]:
    return record["problem"], record["checked"], record["seed"]


def measured(name: str, checked: bool, seed: int, time_limit: float) -> dict[str, Any]:
    """A run and its verdict."""
    if not checked:
        found = gallery.run(name, seed, time_limit, FOLDER)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / f"{name}.py"
            path.write_text((FOLDER / path.name).read_text() + CHECKED)
            found = gallery.run(name, seed, time_limit, path.parent)
    record = gallery.compared(found, {PRIORS[name][0]: posterior(name, seed)[2:]})
    return record | {"checked": checked}


def load(name: str) -> Any:
    """The model file as a module."""
    spec = importlib.util.spec_from_file_location(f"not_smooth_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def posterior(name: str, seed: int) -> tuple[Any, Any, float, float]:
    """Grid, density, mean and standard deviation, by the closed form and the trapezoidal rule."""
    module, (unknown, prior, ends) = load(name), PRIORS[name]
    data, grid = module.synthetic_data(seed), jnp.linspace(*ends, 8001)[1:-1]

    def misfit(value):
        u = jax.vmap(lambda x: module.closed_form(x, {unknown: value}))(jnp.asarray(data["x"]))
        return jnp.sum(((u.reshape(len(u), -1)[:, 0] - data["y"]) / data["sigma"]) ** 2) / 2

    log = np.asarray(prior.log_prob(grid) - jax.vmap(misfit)(grid))
    values, density = np.asarray(grid), np.exp(log - log.max())
    density /= np.trapezoid(density, values)
    mean = np.trapezoid(density * values, values)
    sd = np.trapezoid(density * (values - mean) ** 2, values) ** 0.5
    return values, density, float(mean), float(sd)


def table(records: list[dict[str, Any]]) -> str:
    """A row for each problem and kind of file: verdicts by seed, and how far the worst was off."""
    lines = [
        "| problem | solver in the file | verdicts by seed | mean off, sd | ratio of sds | certificates "
        "| alarms of the first seed | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, checked in dict.fromkeys(_key(record)[:2] for record in records):
        mine = [r for r in records if _key(r)[:2] == (name, checked)]
        scalars = [s for r in mine for s in r.get("scalars", {}).values() if "shift" in s]
        shifts = ", ".join(f"{s['shift']:+.2f}" for s in scalars)
        ratios = ", ".join(f"{s['sd_ratio']:.2f}" for s in scalars)
        verdicts = ", ".join(
            r["verdict"] + "!" * (r["verdict"] == "right" and bool(r["alarms"])) for r in mine
        )
        certificates = "; ".join(
            ", ".join(
                f"{key} {'GOOD' if good else 'not good'}" for key, good in r["certificates"].items()
            )
            or "none"
            for r in mine
        )
        said = [*mine[0]["alarms"], mine[0]["message"]]
        said = " / ".join(text[:160] for text in said if text)
        seconds = ", ".join(f"{r['cpu_seconds']:.0f}" for r in mine)
        lines.append(
            f"| {name} | {'yes' if checked else 'no'} | {verdicts} | {shifts} | {ratios} | "
            f"{certificates} | {said} | {seconds} |"
        )
    return "\n".join(lines)


def draw(path: pathlib.Path) -> None:
    """The unknown's posterior by quadrature, and what the runs found, as normal densities."""
    records = [r for r in json.loads(path.with_suffix(".json").read_text()) if not r["checked"]]
    names = list(dict.fromkeys(r["problem"] for r in records))
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.6 * len(names), 3.2), layout="constrained"
    )
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        values, density, mean, sd = posterior(name, 0)
        axis.plot(values, density, color="black", label="exact, seed 0")
        low, high = mean - 6 * sd, mean + 6 * sd
        for r in (r for r in records if r["problem"] == name and r.get("scalars")):
            (scalar,) = r["scalars"].values()
            if "shift" not in scalar:
                continue
            colour = "#1b7837" if r["verdict"] == "right" else "#b2182b"
            # Each seed has data of its own: moved to where the exact mean of seed 0 is.
            middle = mean + scalar["mean"] - scalar["reference_mean"]
            x = middle + scalar["sd"] * np.linspace(-3, 3, 61)
            y = np.exp(-((x - middle) ** 2) / (2 * scalar["sd"] ** 2)) / scalar["sd"] / 2.507
            axis.plot(x, y, color=colour, alpha=0.6)
            low, high = min(low, x.min()), max(high, x.max())
        axis.set(title=name, xlabel=PRIORS[name][0], xlim=(low, high), yticks=[])
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()

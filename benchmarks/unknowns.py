"""From 2 to 256 unknowns: what a gradient, an effective draw and an error of the mean come to.

    python benchmarks/unknowns.py [--coefficients 2 8 ...] [--growth] [--again] [--out FILE.json]

Poisson's equation with a diffusion coefficient exp(m(x)), m a Karhunen-Loeve expansion of K coefficients,
and the 51 data of models/variable_poisson.py for every K. Two ways, each in a process of its own: random
features with a reduced basis, adapted as `bilo-ppl run` does it, and finite differences; NUTS with 2
chains from both, until there are 1000 draws of each or 20 CPU seconds are over. ``--growth`` adds what
a gradient costs against features, collocation points and nodes. Prints the tables, draws the figure, and
writes a record for each case as it ends; what the file has already is not run again without --again.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS

import bilo_ppl as bilo
from benchmarks.plane import milliseconds
from benchmarks.unknowns_table import draw, growth_table, table
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.mcmc import BlockSampler
from models import variable_poisson as case

jax.config.update("jax_enable_x64", True)

COEFFICIENTS = (2, 8, 32, 64, 128, 256)
WAYS = ("features", "numerical")
FEATURES, POINTS, NODES = 128, 512, 401
MANY = 16
"""Coefficients from which on there are twice as many features."""

TOLERANCE, SPREAD = 5e-7, 10.0
"""On the loss: what `bilo-ppl run` takes for these data, u being right to 0.05 of their noise; no less
than so many times what the features leave at a few prior draws, as there."""

CHAINS, WARMUP, DRAWS, BLOCK, SECONDS = 2, 300, 1000, 50, 20.0
SHORTER_BEYOND = 64
"""Coefficients beyond which warm-up has half as many transitions, for the numerical operator's sake."""

DENSE_UP_TO, LEARNT_UP_TO = 100, 50
"""Unknowns up to which the mass matrix is dense, and up to which warm-up changes a dense one: as in
`bilo-ppl run`."""


class ManyPoints(case.VariablePoisson):
    """At as many points as features should have."""

    points = case.VariablePoisson.domain.grid(POINTS)


def model(operator, x, y, coefficients):
    """Noisy values y of u at the points x; log D is a Gaussian field with so many coefficients."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([coefficients]).to_event(1))
    u = bilo.solution("u", operator, {"D": bilo.KarhunenLoeve(a)})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), case.SIGMA), obs=y)


def prior_thetas(coefficients: int, count: int, key: Any) -> list[dict[str, Any]]:
    """The first guess, and draws from the prior."""
    drawn = jax.random.normal(key, (count, coefficients))
    return [{"D": bilo.KarhunenLoeve(a)} for a in jnp.concatenate([0 * drawn[:1], drawn])]


def random_features(coefficients: int, count: int | None = None) -> bilo.OutputLayer:
    """An output layer on features of the scale that suits the prior."""
    thetas = prior_thetas(coefficients, 4, jax.random.key(1))
    count = (FEATURES if coefficients < MANY else 2 * FEATURES) if count is None else count
    features, trials = bilo.choose_random_features(
        ManyPoints(), thetas, count=count, key=jax.random.key(0)
    )
    best = min(trials, key=lambda trial: trial.score)
    tolerance = max(TOLERANCE, SPREAD * max(best.losses))
    return bilo.OutputLayer(features, thetas[0], tolerance=tolerance, ridge=best.ridge)


def energy(operator: Any, coefficients: int) -> Callable:
    """U of the coefficients."""
    data = case.synthetic_data(0)
    potential = bilo.StatefulPotential(model, (operator, data["x"], data["y"], coefficients))
    state = {"u": operator.init_state()}
    return lambda a: potential({"a": a}, state)[0]


class Stages(dict):
    """CPU seconds by stage."""

    def timed(self, name: str, work: Callable) -> Any:
        """Do ``work()``."""
        begun = time.process_time()
        result = work()
        self[name] = self.get(name, 0.0) + time.process_time() - begun
        return result


def measured(way: str, coefficients: int) -> dict[str, Any]:
    """The record of one case, in this process."""
    stages, data = Stages(), case.synthetic_data(0)
    operator, starts, units, report = case.reference(NODES), None, {}, ""
    if way == "features":
        features = stages.timed("features", lambda: random_features(coefficients))
        adapted = stages.timed(
            "adapt",
            lambda: bilo.adapt(
                *(model, jax.random.key(2), features, data["x"], data["y"], coefficients),
                progress=False,
            ),
        )
        operator, starts, report = adapted.operator, adapted.starts(CHAINS), str(adapted.report)
        units = _units(adapted, coefficients)
    warmup = WARMUP if coefficients <= SHORTER_BEYOND else WARMUP // 2
    start = bilo.init_near({"a": jnp.zeros(coefficients)})
    kernel = NUTS(model, init_strategy=start, step_size=0.1, max_tree_depth=(6, 10), **units)  # pyright: ignore[reportArgumentType]
    sampler = BlockSampler(
        kernel,
        (operator, data["x"], data["y"], coefficients),
        chains=CHAINS,
        chain_method="sequential",
        warmup=warmup,
        block=BLOCK,
    )
    quiet: dict[str, Any] = {"progress": False, "label": way}

    def begin():
        sampler.start(jax.random.key(3), starts)
        sampler.run(1, keep=False, **quiet)

    def sample():
        for _ in range(DRAWS // BLOCK):
            if stages.get("sampling", 0.0) > SECONDS:
                break
            stages.timed("sampling", lambda: sampler.run(BLOCK, keep=True, **quiet))

    stages.timed("compile", begin)
    stages.timed("warmup", lambda: sampler.run(warmup - 1, keep=False, **quiet))
    sample()
    found = sampler.collected()
    a, steps = np.asarray(found.samples["a"]), np.asarray(found.statistics["num_steps"])
    rows = [chain_diagnostics(a[..., i]) for i in range(coefficients)]
    mean = a.mean(axis=(0, 1))
    gradient = jax.value_and_grad(energy(operator, coefficients))
    return {
        "way": way,
        "coefficients": coefficients,
        "cpu_seconds": dict(stages),
        "gradient_ms": milliseconds(gradient, jnp.asarray(mean)),
        "gradients_per_draw": float(steps.mean()),
        "draws": int(a.shape[0] * a.shape[1]),
        "ess": [row.ess_bulk for row in rows],
        "mcse": [row.mcse_mean for row in rows],
        "r_hat": float(max(row.r_hat for row in rows)),
        "diverging": int(np.sum(found.statistics["diverging"])),
        "warmup_diverging": sampler.warmup_divergences,
        "mean": mean.tolist(),
        "sd": a.std(axis=(0, 1)).tolist(),
        "sizes": getattr(operator, "reduced_sizes", None),
        "tolerance": getattr(operator, "loss_tolerance", None),
        "adapted": report,
    }


def _units(adapted: bilo.Adapted, coefficients: int) -> dict[str, Any]:
    """The mass matrix of the exploration, and what warm-up may change."""
    dense = 1 < coefficients <= DENSE_UP_TO
    matrix = adapted.covariance if dense else adapted.inverse_mass_matrix
    if matrix is None:
        return {}
    learnt = not dense or coefficients <= LEARNT_UP_TO
    return {
        "inverse_mass_matrix": jnp.asarray(matrix),
        "dense_mass": dense,
        "adapt_mass_matrix": learnt,
    }


def growth(coefficients: int = 32) -> Iterator[dict[str, Any]]:
    """What value and gradient of U cost, operator by operator."""
    for number in COEFFICIENTS:
        yield _cost("numerical", NODES, energy(case.reference(NODES), number), number)
    for nodes in (101, 1601):
        yield _cost("numerical", nodes, energy(case.reference(nodes), coefficients), coefficients)
    for count, points in ((64, POINTS), (128, POINTS), (256, POINTS), (128, 256), (128, 1024)):
        ManyPoints.points = case.VariablePoisson.domain.grid(points)
        operator = random_features(coefficients, count)
        thetas = prior_thetas(coefficients, 60, jax.random.key(4))
        batch = jax.tree.map(lambda *rows: jnp.stack(rows), *thetas)
        fitted, _ = operator.fitted_to(
            batch, rank=0, steps=1, key=jax.random.key(0), progress=False
        )
        for name, one in (("all features", operator), ("reduced basis", fitted)):
            found = _cost(name, count, energy(one, coefficients), coefficients)
            yield found | {"points": points, "sizes": one.reduced_sizes}


def _cost(way: str, size: int, value: Callable, coefficients: int) -> dict[str, Any]:
    a = jnp.zeros(coefficients)
    return {
        "way": way,
        "size": size,
        "coefficients": coefficients,
        "value_ms": milliseconds(value, a),
        "gradient_ms": milliseconds(jax.value_and_grad(value), a),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--coefficients", nargs="+", type=int, default=list(COEFFICIENTS))
    parser.add_argument("--growth", action="store_true", help="also cost against size")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument(
        "--out", default=str(pathlib.Path(__file__).parent / "results" / "unknowns.json")
    )
    parser.add_argument("--one", nargs=2, help="a way and a number: print the record")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.one[0], int(arguments.one[1]))))
        return
    path = pathlib.Path(arguments.out)
    kept = json.loads(path.read_text()) if path.exists() else {"cases": [], "growth": []}
    known = {(record["way"], record["coefficients"]): record for record in kept["cases"]}
    for coefficients in arguments.coefficients:
        for way in WAYS:
            if (way, coefficients) in known and not arguments.again:
                continue
            command = [sys.executable, __file__, "--one", way, str(coefficients)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{way}, {coefficients} coefficients: failed", file=sys.stderr)
                continue
            known[way, coefficients] = json.loads(done.stdout.splitlines()[-1])
            kept["cases"] = [known[key] for key in sorted(known, key=lambda key: (key[1], key[0]))]
            path.write_text(json.dumps(kept, indent=1) + "\n")
            print(table(kept["cases"]), flush=True)
    if arguments.growth:
        kept["growth"] = []
        for record in growth():
            kept["growth"].append(record)
            print(record, file=sys.stderr, flush=True)
            path.write_text(json.dumps(kept, indent=1) + "\n")
    print("\n".join([table(kept["cases"]), "", growth_table(kept["growth"])]))
    draw(path)


if __name__ == "__main__":
    main()

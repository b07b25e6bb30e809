"""Fisher-KPP by random features: all of them, a reduced basis between solutions, and that at few points.

    python benchmarks/features.py [--out FILE.json]

256 features of the scale that `bilo-ppl run fisher_kpp` chooses, on the 51 x 51 points of the model file,
and the numerical operator beside. Solutions are known at thetas spread over twice the posterior's
standard deviations about the truth; U is compared at others, by the standard deviation of the
difference, since a constant does not matter. CPU milliseconds of one thread for a solve, U and its
gradient, after compilation.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bilo_ppl as bilo
from benchmarks.plane import milliseconds
from bilo_ppl.operators.random_features import random_features
from models import fisher_kpp as case

jax.config.update("jax_enable_x64", True)

COUNT, SCALE, TOLERANCE = 256, 2.0, 2.5e-5
"""Features, their scale and the tolerance, as the command finds them."""

SPREAD = {"D": 0.05, "rho": 0.009}
"""Posterior standard deviations of the logarithms."""

KNOWN, FRESH = 85, 20


def thetas(count: int, seed: int, widened: float) -> dict[str, Any]:
    """About the truth, normal in the logarithms."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(value * np.exp(widened * SPREAD[name] * rng.normal(size=count)))
        for name, value in case.truth.items()
    }


def operators() -> dict[str, Any]:
    """By name."""
    local = random_features(
        case.problem, case.start, count=COUNT, scale=SCALE, key=jax.random.key(0)
    )
    every = bilo.OutputLayer(local, case.start, tolerance=TOLERANCE)
    fitted, _ = every.fitted_to(
        thetas(KNOWN, 0, 2.0), rank=0, steps=1, key=jax.random.key(0), progress=False
    )
    return {
        "all features": every,
        "reduced basis": fitted.checked_at_all(),
        "reduced basis, few points": fitted,
        "numerical": case.reference(),
    }


def energy(operator: Any, theta: Any, data: dict) -> tuple[Any, Any]:
    """The misfit in nats, and the report of the solve."""
    field, _, info = operator.solve(theta, operator.init_state())
    misfit = (jax.vmap(field)(jnp.asarray(data["x"])) - data["y"]) / data["sigma"]
    return jnp.sum(misfit**2) / 2, info


def measured() -> list[dict[str, Any]]:
    """A record for each operator; errors of U are against all features, and against the numerical one."""
    data, fresh = case.synthetic_data(0), thetas(FRESH, 1, 1.0)
    found: list[dict[str, Any]] = []
    energies: dict[str, np.ndarray] = {}
    for name, operator in operators().items():
        arrays, static = eqx.partition(operator, eqx.is_array)

        def value(theta, arrays=arrays, static=static):
            return energy(eqx.combine(arrays, static), theta, data)

        one = {n: v[0] for n, v in fresh.items()}
        many, infos = jax.jit(lambda batch, f=value: jax.lax.map(f, batch))(fresh)
        energies[name] = np.asarray(many)
        sizes = getattr(operator, "reduced_sizes", None) or (None, None)
        found.append(
            {
                "operator": name,
                "directions": sizes[0],
                "points": sizes[1],
                "gradient_ms": milliseconds(jax.value_and_grad(lambda t, f=value: f(t)[0]), one),
                "unsolved": int(np.sum(~np.asarray(infos.converged))),
                "largest_loss": float(np.max(infos.loss)),
            }
        )
    for record in found:
        own = energies[record["operator"]]
        for other in ("all features", "numerical"):
            record[f"energy_off_from_{other.replace(' ', '_')}"] = float(
                np.std(own - energies[other])
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", default="features.json")
    arguments = parser.parse_args()
    found = measured()
    pathlib.Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")
    print("| operator | directions, points | CPU ms | U off from all features | from numerical |")
    print("|---|---|---|---|---|")
    for r in found:
        sizes = "" if r["directions"] is None else f"{r['directions']}, {r['points']}"
        print(
            f"| {r['operator']} | {sizes} | {r['gradient_ms']:.2g} | "
            f"{r['energy_off_from_all_features']:.1e} | {r['energy_off_from_numerical']:.1e} |"
        )


if __name__ == "__main__":
    main()

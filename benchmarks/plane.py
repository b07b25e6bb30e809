"""What the numerical operators on rectangles and images cost.

    python benchmarks/plane.py [--parts darcy contrast transform image] [--out FILE.json]

- ``darcy``: -div(A grad u) = 10 on the unit square, A = 3 + 9 sigmoid(20 phi), phi of 64 coefficients: a
  solve, value and gradient of a misfit, and the same for 8 chains side by side, by method and mesh;
- ``contrast``: iterations of conjugate gradients against mesh and contrast, smooth and with jumps;
- ``transform``: the fast Poisson solver by FFT against dense sine matrices;
- ``image``: growth of a tumour in a disk of 161 x 161 voxels and in a ball of 41^3, and the error against
  the number of time steps.

CPU milliseconds after compilation, one thread, double precision.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bilo_ppl as bilo
from bilo_ppl.numerics.plane.sine_transform import poisson_eigenvalues, solve_poisson

jax.config.update("jax_enable_x64", True)

MODES = 8
CHAINS = 8
SECONDS = 0.5


def milliseconds(function: Any, *arguments: Any) -> float:
    """CPU time of a call, the least of three means over half a second."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    means = []
    for _ in range(3):
        begun, calls = time.process_time(), 0
        while time.process_time() - begun < SECONDS / 3:
            jax.block_until_ready(compiled(*arguments))
            calls += 1
        means.append((time.process_time() - begun) / calls)
    return 1e3 * min(means)


class Coefficient(eqx.Module):
    """3 + 9 sigmoid(20 phi), phi a Karhunen-Loeve expansion by cosines."""

    a: jax.Array

    def __call__(self, x):
        """The value at a point (2,)."""
        i = jnp.arange(1, MODES + 1)
        sd = 1 / (jnp.pi**2 * (i[:, None] ** 2 + i[None, :] ** 2) + 9)
        one, two = (jnp.cos(i * jnp.pi * x[axis]) for axis in range(2))
        return 3 + 9 * jax.nn.sigmoid(20 * one @ (2 * sd * self.a) @ two)


class Darcy(bilo.Problem):
    """-div(A grad u) = 10 on the unit square."""

    parameters = ("A",)
    components = 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    points = domain.grid(5, 5)

    def residual(self, u, x, theta):
        """The equation."""
        return bilo.divergence(lambda y: theta["A"](y) * bilo.grad(u)(y))(x) + 10

    def lift(self, x, raw, theta):
        """Zero on the boundary."""
        return x[0] * (1 - x[0]) * x[1] * (1 - x[1]) * raw


def finite_volumes(n: int, A: Any, **options: Any) -> bilo.FiniteVolumes:
    return bilo.FiniteVolumes(
        Darcy(),
        (n, n),
        theta={"A": A},
        coefficient=lambda theta: theta["A"],
        source=lambda theta: 10.0,
        **options,
    )


def darcy() -> Iterator[dict]:
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.normal(size=(CHAINS, MODES, MODES)))
    x = jnp.asarray(Darcy.domain.interior_grid(31, 31))
    y = 0.01 * jnp.asarray(rng.normal(size=len(x)))
    for n in (32, 64, 128):
        for method in ("cg", "direct"):
            if method == "direct" and n == 128:
                continue
            operator = finite_volumes(n, Coefficient(batch[0]), method=method)

            def misfit(a, operator=operator):
                u = operator.solve({"A": Coefficient(a)}, ())[0]
                return jnp.sum((jax.vmap(u)(x) - y) ** 2)

            def solved(a, operator=operator):
                return operator.solve({"A": Coefficient(a)}, ())[0].values

            both = jax.value_and_grad(misfit)
            yield {
                "part": "darcy",
                "cells": n,
                "method": method,
                "steps": int(operator.solve({"A": Coefficient(batch[0])}, ())[2].steps),
                "coefficient_ms": milliseconds(
                    lambda a, op=operator: op._faces({"A": Coefficient(a)}, float), batch[0]
                ),
                "solve_ms": milliseconds(solved, batch[0]),
                "gradient_ms": milliseconds(both, batch[0]),
                "gradient_per_chain_ms": milliseconds(jax.vmap(both), batch) / CHAINS,
            }


def wave(x):
    """A smooth function between -1.3 and 1.3 with a few maxima."""
    return jnp.sin(5 * x[0] + 1) * jnp.cos(6 * x[1]) + 0.3 * jnp.cos(9 * x[0] * x[1])


def contrast() -> Iterator[dict]:
    cases = {
        "12 and 3, sigmoid": lambda x: 3 + 9 * jax.nn.sigmoid(20 * wave(x)),
        "12 and 3, jump": lambda x: jnp.where(wave(x) > 0, 12.0, 3.0),
        "2 decades, smooth": lambda x: jnp.exp(1.8 * wave(x)),
        "4 decades, smooth": lambda x: jnp.exp(3.6 * wave(x)),
        "2 decades, jump": lambda x: jnp.where(wave(x) > 0, 1e2, 1.0),
        "4 decades, jump": lambda x: jnp.where(wave(x) > 0, 1e4, 1.0),
    }
    for name, A in cases.items():
        steps = {}
        for n in (32, 64, 128):
            operator = finite_volumes(n, A, method="cg", max_steps=2000)
            steps[str(n)] = int(operator.solve({"A": A}, ())[2].steps)
        yield {"part": "contrast", "coefficient": name, "steps": steps}


def transform() -> Iterator[dict]:
    for n in (32, 64, 128, 256):
        k = np.arange(1, n)
        sines = jnp.asarray(np.sqrt(2 / n) * np.sin(np.pi * np.outer(k, k) / n))
        eigenvalues = poisson_eigenvalues((n, n), (1 / n, 1 / n))
        b = jnp.asarray(np.random.default_rng(0).normal(size=(n - 1, n - 1)))

        def dense(b, sines=sines, eigenvalues=eigenvalues):
            return sines @ ((sines @ b @ sines) / eigenvalues) @ sines

        yield {
            "part": "transform",
            "cells": n,
            "fft_ms": milliseconds(lambda b, e=eigenvalues: solve_poisson(b, e), b),
            "dense_ms": milliseconds(dense, b),
        }


class Growth(bilo.Problem):
    """u_t = D div(P grad u) + rho u (1 - u), in millimetres and days."""

    domain: bilo.ImageDomain

    parameters = ("D", "rho")
    components = 1
    points = np.zeros((1, 3))


def tumour(half: int, radius: float, dimension: int, **options: Any) -> bilo.ReactionDiffusion:
    """In a ball of grey (0.1) matter about white (1) matter, from a blob at its middle."""
    index = np.indices((2 * half + 1,) * dimension) - half
    distance = np.sqrt(np.sum(index**2, axis=0))
    domain = bilo.image_domain(distance < radius, 1.0, -float(half))
    tissue = np.where(distance + 3 * np.sin(index[0] / 5) < 0.7 * radius, 1.0, 0.1)
    return bilo.ReactionDiffusion(
        Growth(bilo.space_time(domain, 240.0)),
        theta={"D": 0.13, "rho": 0.025},
        diffusivity=lambda theta: theta["D"] * tissue,
        initial=lambda theta: 0.1 * np.exp(-0.1 * distance**2),
        flow=bilo.logistic_flow(lambda theta: theta["rho"]),
        **options,
    )


def image() -> Iterator[dict]:
    theta = {"D": 0.13, "rho": 0.025}
    for half, radius, dimension in ((80, 75.0, 2), (20, 19.0, 3)):
        reference = tumour(half, radius, dimension, steps=960, times=2).solve(theta, ())[0]
        for steps in (32, 64, 128):
            operator = tumour(half, radius, dimension, steps=steps)
            fewest = tumour(half, radius, dimension)
            u, _, info = operator.solve(theta, ())

            def misfit(D, rho, operator=operator):
                return jnp.sum(operator.solve({"D": D, "rho": rho}, ())[0].images[-1] ** 2)

            error = jnp.linalg.norm(u.images[-1] - reference.images[-1])
            yield {
                "part": "image",
                "voxels": f"{2 * half + 1}^{dimension}",
                "steps": operator.steps * (len(operator.times) - 1),
                "default": fewest.steps * (len(fewest.times) - 1),
                "converged": bool(info.converged),
                "iterations_a_step": int(info.steps) / operator.steps / (len(operator.times) - 1),
                "error": float(error / jnp.linalg.norm(reference.images[-1])),
                "solve_ms": milliseconds(misfit, 0.13, 0.025),
                "gradient_ms": milliseconds(jax.value_and_grad(misfit, (0, 1)), 0.13, 0.025),
            }


PARTS = {f.__name__: f for f in (darcy, contrast, transform, image)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", default="plane.json")
    arguments = parser.parse_args()
    records = []
    for part in arguments.parts:
        for record in PARTS[part]():
            records.append(record)
            shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in record.items()}
            print(", ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
            pathlib.Path(arguments.out).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()

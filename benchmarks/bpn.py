"""Broyden's hypergradient against the boundary toy: inner iterations to a parameter error of 0.01.

    python benchmarks/bpn.py [--seeds N]

Four hidden layers of 50, 64 points, 1000 steps of pretraining; for one step of Adam (0.05) on theta 64 of
Adam (1e-3) on the weights and 32 of Broyden's method. The boundary values, which alone depend on theta,
are soft: with exact ones the weights would not depend on theta, and there were no hypergradient to find.
Published: 27 outer, that is 1728 inner iterations, where BiLO takes fewer than 80.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import time

import jax
import jax.numpy as jnp

import bilo_ppl as bilo
from bilo_ppl.baselines import BPN, FreeNetwork, fit_bpn
from models import boundary_toy

WIDTH, DEPTH, OUTER = 50, 4, 60
ERROR = 0.01


class SoftBoundary(bilo.Problem):
    """The boundary toy with boundary values that are rows of the lower level."""

    parameters = ("theta0", "theta1")
    components = 1
    domain = boundary_toy.problem.domain
    points = boundary_toy.problem.points

    def residual(self, u, x, theta):
        """That of the toy."""
        return boundary_toy.problem.residual(u, x, theta)

    def conditions(self, u, theta):
        """The boundary values."""
        ends = jnp.stack([u(jnp.zeros(1)), u(jnp.ones(1))])
        return {"boundary": ends - jnp.stack([theta["theta0"], theta["theta1"]])}


def run(seed: int, outer: int = OUTER) -> BPN:
    """The published setting, from random weights."""
    problem = SoftBoundary()
    network = FreeNetwork(
        problem, boundary_toy.start, key=jax.random.key(seed), width=WIDTH, depth=DEPTH
    )
    points = jnp.asarray(problem.points)

    def upper(weights, theta):
        u = jax.vmap(network.operator.with_weights(weights).field(theta))(points)
        return jnp.mean((u - points[:, 0] ** 2) ** 2)

    def lower(weights, theta):
        return network.mean_squares(theta, weights)

    return fit_bpn(lower, upper, network.init_state(), boundary_toy.start, outer=outer)


def main() -> None:
    """Print one line for each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    for seed in range(parser.parse_args().seeds):
        began = time.process_time()
        found = run(seed)
        cpu, steps = time.process_time() - began, found.inner_steps(boundary_toy.truth, ERROR)
        print(f"seed {seed}: {steps} inner iterations to {ERROR}; {OUTER} outer, {cpu:.1f} CPU s")


if __name__ == "__main__":
    main()

"""Hypergradients of fine-tuned operators against the discrete adjoint, problem by problem.

    python benchmarks/hypergradient.py [--profile quick|paper] [--out FILE.json] [--only NAME ...]

The misfit J(theta) = sum (u(x_i; theta) - y_i)^2 / 2 is differentiated through the inner solve, at
several inner tolerances and thetas, and compared with the gradient through finite differences, whose
reverse mode is the adjoint of the discrete problem. The error of the gradient is that of u, which
the misfit passes on, and that of the sensitivity; the second alone is measured by pulling back the
reference's misfit. Prints a table of the worst relative errors over the thetas and writes JSON.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import bilo_ppl as bilo
from benchmarks.hypergradient_cases import Case, field_cases, scalar_cases

jax.config.update("jax_enable_x64", True)

NODES = 3201
"""Of the reference; the error of its gradient is estimated from half as many intervals."""

FOURIER, FOURIER_SCALE = 32, 3.0
"""Fourier features of the second network that is tried."""


class Derivatives(NamedTuple):
    """What is compared between an operator and the reference."""

    u: Any
    """Values on a grid of 41 points."""
    along: Any
    """Their derivative along the direction from the pretrained to the present theta."""
    gradient: Any
    """Of the misfit, flat."""
    pulled: Any
    """The same with the misfit of the reference solution, flat."""
    misfit: Any
    """u - y at the points of the data."""


def derivatives(
    operator: Any, theta: Any, case: Case, y: Any, misfit: Any = None
) -> tuple[Derivatives, Any]:
    """Solve once, differentiate in reverse and in forward mode; also the report of the solve.

    ``misfit`` is that of the reference; by default the operator's own.
    """
    moving, fixed = eqx.partition(theta, eqx.is_inexact_array)
    grid, points = jnp.asarray(case.problem.domain.grid(41)), jnp.asarray(case.points)

    def values(moving):
        field, _, info = operator.solve(eqx.combine(moving, fixed), operator.init_state())
        return (jax.vmap(field)(grid), jax.vmap(field)(points)), info

    begin = eqx.filter(jax.tree.map(jnp.asarray, case.start), eqx.is_inexact_array)
    direction = jax.tree.map(lambda a, b: a - b, moving, begin)
    (u, at_points), push, info = jax.linearize(values, moving, has_aux=True)
    transpose = jax.linear_transpose(push, moving)
    own = at_points - y

    def pull(misfit):
        return ravel_pytree(transpose((jnp.zeros_like(u), misfit.astype(at_points.dtype))))[0]

    gradient, pulled = pull(own), pull(own if misfit is None else misfit)
    return Derivatives(u, push(direction)[0], gradient, pulled, own), info


@dataclasses.dataclass(frozen=True)
class Method:
    """An inner problem: sensitivity, rank of the increments (0: all weights), and the network."""

    sensitivity: Any
    fourier: int = 0
    rank: int = 4
    dtype: Any = np.float32


def methods(profile: str) -> list[Method]:
    """What is compared on a problem."""
    implicit, papers = bilo.ImplicitDifferentiation(), bilo.ResidualGradient()
    chosen = [Method(s, fourier) for fourier in (0, FOURIER) for s in (papers, implicit)]
    if profile == "paper":
        chosen += [
            Method(implicit, fourier, rank, dtype)
            for fourier in (0, FOURIER)
            for rank, dtype in ((0, np.float32), (4, np.float64), (0, np.float64))
        ]
    return chosen


class Study:
    """One case: the reference derivatives, and operators pretrained once for each precision."""

    def __init__(self, case: Case, nodes: int = NODES, **pretraining: Any):
        self.case, self.pretraining = case, pretraining
        self.reference = case.reference(nodes)
        self.y = case.data(self.reference)
        self.exact = self._derivatives(self.reference)
        self.pretrained: dict[tuple, bilo.LocalOperator] = {}

    def _derivatives(self, operator: bilo.FiniteDifferences) -> list[Derivatives]:
        solve = eqx.filter_jit(lambda theta: derivatives(operator, theta, self.case, self.y)[0])
        return [solve(theta) for theta in self.case.thetas]

    def reference_error(self) -> float:
        """What the reference gradients are off by, from those with half as many intervals.

        The error is O(h^2): that of the finer grid is a third of the difference.
        """
        coarse = self._derivatives(self.case.reference(len(self.reference.nodes) // 2 + 1))
        pairs = zip(coarse, self.exact, strict=True)
        return max(relative(a.gradient, b.gradient) / 3 for a, b in pairs)

    def local(self, method: Method) -> bilo.LocalOperator:
        """The operator at the start, the same for all methods with this network."""
        network = (method.fourier, method.dtype)
        if network not in self.pretrained:
            result = bilo.pretrain(
                self.case.problem,
                self.case.start,
                key=jax.random.key(0),
                solver=bilo.LevenbergMarquardt(tolerance=2e-7, max_steps=300),
                progress=False,
                fourier=method.fourier,
                fourier_scale=FOURIER_SCALE,
                dtype=method.dtype,
                **self.pretraining,
            )
            print(f"{self.case.name}: pretraining, {result.report}", file=sys.stderr)
            self.pretrained[network] = result.operator
        return self.pretrained[network]

    def records(self, method: Method, tolerances: tuple[float, ...]) -> Iterator[dict[str, Any]]:
        """One record for each tolerance and theta; one compilation for all."""
        local = self.local(method).with_lora(method.rank, key=jax.random.key(1))
        solver = bilo.LevenbergMarquardt(tolerance=1.0, max_steps=60)
        operator = bilo.FineTuned(local, solver, method.sensitivity)
        run = eqx.filter_jit(
            lambda op, theta, misfit: derivatives(op, theta, self.case, self.y, misfit)
        )
        for tolerance in tolerances:
            # As an array the tolerance is an argument of the compiled function, not a constant.
            now = eqx.tree_at(lambda op: op.solver.tolerance, operator, jnp.asarray(tolerance))
            for i, (theta, exact) in enumerate(zip(self.case.thetas, self.exact, strict=True)):
                begun = time.process_time()
                found, info = jax.block_until_ready(run(now, theta, exact.misfit))
                yield {
                    "case": self.case.name,
                    "sensitivity": type(method.sensitivity).__name__,
                    "fourier": method.fourier,
                    "rank": method.rank,
                    "dtype": np.dtype(method.dtype).name,
                    "tolerance": tolerance,
                    "theta": i,
                    "steps": int(info.steps),
                    "loss": float(info.loss),
                    "converged": bool(info.converged),
                    "error_u": relative(found.u, exact.u),
                    "error_derivative": relative(found.along, exact.along),
                    "error_sensitivity": relative(found.pulled, exact.gradient),
                    "error_gradient": relative(found.gradient, exact.gradient),
                    "cpu_seconds": time.process_time() - begun,
                }


def relative(a: Any, b: Any) -> float:
    """Relative difference of a from b in the Euclidean norm."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


HEAD = (
    f"{'case':<18} {'sensitivity':<24} {'fourier':>7} {'rank':>4} {'dtype':<7} {'tol':>6} "
    f"{'steps':>6} {'solved':>6} {'u':>8} {'du':>8} {'sens.':>8} {'gradient':>8}"
)


def line(group: list[dict[str, Any]]) -> str:
    """A row of the table: the worst errors over the thetas, the mean number of steps."""
    first = group[0]
    names = ("error_u", "error_derivative", "error_sensitivity", "error_gradient")
    worst = " ".join(f"{max(r[name] for r in group):>8.1e}" for name in names)
    steps = np.mean([r["steps"] for r in group])
    solved = f"{sum(r['converged'] for r in group)}/{len(group)}"
    return (
        f"{first['case']:<18} {first['sensitivity']:<24} {first['fourier']:>7} "
        f"{first['rank']:>4} {first['dtype']:<7} {first['tolerance']:>6.0e} {steps:>6.1f} "
        f"{solved:>6} {worst}"
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", choices=("quick", "paper"), default="quick")
    parser.add_argument("--out", default="hypergradient.json")
    parser.add_argument("--only", nargs="*", help="names of cases to run")
    arguments = parser.parse_args()
    tolerances = (1e-2, 1e-4, 1e-6, 1e-7)
    if arguments.profile == "paper":
        tolerances = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
    records = []
    print(HEAD, flush=True)
    for case in scalar_cases() + field_cases():
        if arguments.only and case.name not in arguments.only:
            continue
        study = Study(case)
        error = study.reference_error()
        print(f"{case.name:<18} relative error of the reference gradients: {error:.0e}", flush=True)
        for method in methods(arguments.profile):
            found = list(study.records(method, tolerances))
            for tolerance in tolerances:
                print(line([r for r in found if r["tolerance"] == tolerance]), flush=True)
            records += [{**r, "reference_error": error} for r in found]
            pathlib.Path(arguments.out).write_text(json.dumps(records, indent=1) + "\n")
        jax.clear_caches()


if __name__ == "__main__":
    main()

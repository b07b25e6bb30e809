"""Derivative of the solution by fine-tuned operators against the numerical one, problem by problem.

    python benchmarks/derivatives.py [--out FILE.json]

For the nonlinear Poisson problem: relative L2 errors of u and du/dk at several k and tolerances, from
an operator pretrained at k = 0.6, for each sensitivity. Prints a table and writes JSON.
"""

import argparse
import json
import pathlib
import sys

import jax
import jax.numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import bilo_ppl as bilo
from models import nonlinear_poisson as case

jax.config.update("jax_enable_x64", True)

POINTS = case.problem.domain.grid(41)
SENSITIVITIES = (bilo.ResidualGradient(), bilo.ImplicitDifferentiation())


def solution_and_derivative(operator: bilo.AbstractSolutionOperator):
    """A compiled function of k: (u, du/dk, report of the solve) at the points."""

    def values(k):
        field, _, info = operator.solve({"k": k}, operator.init_state())
        return jax.vmap(field)(jnp.asarray(POINTS)), info

    def both(k):
        return jax.jvp(values, (k,), (jnp.ones_like(k),), has_aux=True)

    return jax.jit(both)


def relative(a: jax.Array, b: jax.Array) -> float:
    """Relative L2 difference of a from b."""
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", default="derivatives.json")
    arguments = parser.parse_args()
    exact = bilo.FiniteDifferences(case.problem, nodes=3201, theta=case.truth, guess=case.exact)
    reference = solution_and_derivative(exact)
    solver = bilo.LevenbergMarquardt(tolerance=2e-7, max_steps=300)
    local, _ = bilo.pretrain(case.problem, case.start, key=jax.random.key(0), solver=solver)
    local = local.with_lora(4, key=jax.random.key(1))
    records = []
    print(f"{'sensitivity':<24} {'tol':>7} {'k':>5} {'steps':>5} {'loss':>8} {'u':>8} {'du/dk':>8}")
    for sensitivity in SENSITIVITIES:
        for tolerance in (1e-2, 1e-4, 1e-6, 1e-7):
            fine = bilo.FineTuned(local, bilo.LevenbergMarquardt(tolerance, 60), sensitivity)
            solve = solution_and_derivative(fine)
            for k in (0.62, 0.66, 0.7, 0.74):
                at = jnp.asarray(k)
                u, du, info = solve(at)
                u_exact, du_exact, _ = reference(at)
                records.append(
                    {
                        "sensitivity": type(sensitivity).__name__,
                        "tolerance": tolerance,
                        "k": k,
                        "steps": int(info.steps),
                        "loss": float(info.loss),
                        "converged": bool(info.converged),
                        "error_u": relative(u, u_exact),
                        "error_derivative": relative(du, du_exact),
                    }
                )
                r = records[-1]
                print(
                    f"{r['sensitivity']:<24} {tolerance:>7.0e} {k:>5} {r['steps']:>5} "
                    f"{r['loss']:>8.1e} {r['error_u']:>8.1e} {r['error_derivative']:>8.1e}",
                    flush=True,
                )
    pathlib.Path(arguments.out).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()

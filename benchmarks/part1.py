"""Point estimates on the PDEs of BiLO's first part, against the PDE-constrained optimum.

    python benchmarks/part1.py [--profile quick|paper] [--out FILE.json] [--only NAME ...]

Every problem is estimated twice from the same data: with the fine-tuned network, and with the
numerical operator (whose reverse mode is the adjoint method) or, for gene expression, the closed form;
where the network's equation has a viscosity, the first data set a third time, with the numerical operator
of that equation.
One process and one thread for a problem; times are CPU seconds, compilation included. Prints a table
and writes one record for each problem. `part1_studies.py` has the papers' own algorithm.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import bilo_ppl as bilo
from benchmarks.part1_cases import Case, cases
from benchmarks.processes import run_each
from bilo_ppl.estimate import Estimate, find_map, gauss_newton
from bilo_ppl.estimate.result import evaluate
from bilo_ppl.run.map.scores import numerical_solution

jax.config.update("jax_enable_x64", True)

NEWTON = gauss_newton()

FINE = 51
"""Least number of points in every direction for the comparison of u and the check of the residual."""

SHARP = 401
"""Points in space for a second comparison of u with a shock: a grid that no layer escapes."""


def pretrained(case: Case) -> tuple[bilo.FineTuned, float]:
    """The operator at the first guess, all weights free, and what it took."""
    begun = time.process_time()
    operator, report = bilo.pretrain(
        case.problem,
        case.file.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(case.tolerance / 2, max_steps=200),
        sensitivity=case.sensitivity,
        width=case.width,
        fourier=case.fourier,
        fourier_scale=case.fourier_scale,
        dtype=np.dtype(case.dtype),
        progress=False,
    )
    print(f"  {case.name}: {report}", file=sys.stderr)
    solver = bilo.LevenbergMarquardt(case.tolerance, max_steps=case.inner_steps)
    return bilo.FineTuned(operator, solver, case.sensitivity), time.process_time() - begun


def estimated(case: Case, operator: Any, data: dict) -> tuple[Estimate, float]:
    """The MAP with one operator, and its CPU seconds."""
    begun = time.process_time()
    arguments = {"sigma": data["sigma"], **case.arguments}
    found = find_map(
        getattr(case.file, case.prior),
        jax.random.key(2),
        operator,
        data["x"],
        data["y"],
        steps=case.steps,
        optimizer=NEWTON if case.newton else None,
        patience=case.patience,
        progress=False,
        **arguments,
    )
    return found, time.process_time() - begun


def excess(found: Estimate, reference: Estimate) -> float:
    """Nats by which the reference's objective is larger at the network's estimate than at its own."""
    at, _ = evaluate(reference.objective, found.z, reference.operator_states)
    return float(at) - reference.energy


def against_the_same_equation(case: Case, found: Estimate, data: dict) -> dict:
    """With a viscosity: the network against the numerical operator of the *viscous* equation."""
    reference = case.file.reference(viscosity=case.viscosity)
    optimum, _ = estimated(case, reference, data)
    theta, wanted = found.theta(), optimum.theta()
    return {
        "difference": {n: distance(case, theta[n], wanted[n], t) for n, t in case.truths.items()},
        "excess_nats": excess(found, optimum),
        "u_relative_error": error_of_u(found, reference, fine_points(case)),
        "u_relative_error_sharp": error_of_u(found, reference, fine_points(case, sharp=True)),
    }


def likeliest(case: Case, data: dict) -> dict[str, float]:
    """The MAP of gene expression from the closed form, by Nelder and Mead's method in log theta."""
    file = case.file
    x = np.asarray(data["x"])

    def energy(position):
        theta = dict(zip(file.problem.parameters, np.exp(position), strict=True))
        if theta["mu"] >= 30:
            return np.inf
        log_likelihood = np.sum(np.log(file.closed_form(x, theta)))
        return float(file.SNAPSHOTS * file.total(theta) - log_likelihood + 0.004 * theta["lam"])

    start = np.log([file.start[name] for name in file.problem.parameters])
    options = {"xatol": 1e-8, "fatol": 1e-8, "maxiter": 2000}
    found = scipy.optimize.minimize(energy, start, method="Nelder-Mead", options=options)
    return dict(zip(file.problem.parameters, np.exp(found.x).tolist(), strict=True))


def distance(case: Case, found: Any, wanted: Any, truth: Any, everywhere: bool = True) -> float:
    """In units of the truth, absolute where that is zero; of functions of the first coordinate in L2.

    Not ``everywhere``: without what the shock has swallowed.
    """
    if callable(truth):
        s = np.linspace(0, 1, 401)
        if case.swallowed is not None and not everywhere:
            low, high = case.swallowed
            s = s[((s - low) % 1) > high - low]
        x = jnp.zeros((len(s), case.problem.domain.dimension)).at[:, 0].set(s)
        found, wanted, truth = (np.asarray(jax.jit(jax.vmap(f))(x)) for f in (found, wanted, truth))
    found, wanted, truth = (np.asarray(v, float) for v in (found, wanted, truth))
    return float(np.linalg.norm(found - wanted) / (np.linalg.norm(truth) or 1.0))


def finer(case: Case) -> tuple[int, int]:
    """Numbers of points in space and time with others between those of the collocation."""
    nx, nt = case.points or (0, 0)
    return max(FINE, 2 * nx - 1), max(FINE, 2 * nt - 1)


def fine_points(case: Case, sharp: bool = False) -> np.ndarray:
    """Where u is compared; sharply, so that no layer escapes."""
    domain = case.problem.domain
    if domain.dimension == 1:
        return domain.grid(SHARP)
    nx, nt = finer(case)
    return domain.grid(SHARP if sharp else nx, nt)


def error_of_u(found: Estimate, reference: Any, points: np.ndarray) -> float:
    """Relative error of the network's u at its estimate, in the mean square over points."""
    u = np.asarray(found.solution(points))
    numerical = numerical_solution(reference, found.theta(), points)
    return float(np.linalg.norm(u - numerical) / np.linalg.norm(numerical))


def loss_between(case: Case, fine: bilo.FineTuned, found: Estimate) -> float | None:
    """Mean squared residual of a space-time problem at the estimate, on more and other points."""
    if case.points is None:
        return None
    problem = case.on(*finer(case))
    (weights,) = found.operator_states.values()
    local = fine.operator.with_weights(weights)
    u = local.field(found.theta())
    residual = jax.vmap(lambda x: problem.residual(u, x, found.theta()))
    return float(jnp.mean(jax.jit(residual)(jnp.asarray(problem.points, local.dtype)) ** 2))


def measured(case: Case) -> dict:
    """The record of one case, in this process."""
    imported = time.process_time()
    fine, seconds = pretrained(case)
    reference = case.file.reference(*case.nodes)
    runs = []
    for seed in range(case.seeds):
        data = case.file.synthetic_data(seed, **case.data)
        found, took = estimated(case, fine, data)
        theta = found.theta()
        optimum = None if case.exact else estimated(case, reference, data)[0]
        wanted = likeliest(case, data) if optimum is None else optimum.theta()

        def between(one, other, everywhere=True):
            truths = case.truths.items()
            return {n: distance(case, one[n], other[n], t, everywhere) for n, t in truths}

        runs.append(
            {
                "seed": seed,
                "error": between(theta, case.truths),
                "reference_error": between(wanted, case.truths),
                "difference": between(theta, wanted),
                "difference_outside_shock": between(theta, wanted, everywhere=False),
                "excess_nats": None if optimum is None else excess(found, optimum),
                "u_relative_error": error_of_u(found, reference, fine_points(case)),
                "u_relative_error_sharp": error_of_u(
                    found, reference, fine_points(case, sharp=True)
                )
                if case.swallowed
                else None,
                "same_equation": against_the_same_equation(case, found, data)
                if case.viscosity and not runs
                else None,
                "cpu_seconds": took,
                "steps": found.history.steps,
                "inner_steps": int(np.sum(found.history.inner_steps)),
                "inner_loss": float(found.inner.loss),
                "fine_grid_loss": loss_between(case, fine, found),
                "status": found.status,
            }
        )
        print(f"  {case.name}, seed {seed}: {found}", file=sys.stderr)
    return {
        "case": case.name,
        "device": jax.devices()[0].device_kind,
        "tolerance": case.tolerance,
        "collocation_points": len(case.problem.points),
        "cpu_seconds_import": imported,
        "cpu_seconds_pretrain": seconds,
        "cpu_seconds_first": seconds + runs[0]["cpu_seconds"],
        "runs": runs,
    }


HEAD = f"{'case':<48} {'unknown':>7} {'error, %':>16} {'reference, %':>16} {'between, %':>11} "
HEAD += f"{'nats':>8} {'u, %':>7} {'CPU s':>6} {'steps':>6}"

SAME = "  the same, viscous reference"


def lines(entry: dict) -> list[str]:
    """Rows of the table: mean and sd over the data sets, in percent."""
    runs = entry["runs"]
    rows = []
    for name in runs[0]["error"]:
        spread = [
            f"{100 * np.mean(v):.3g} ({100 * np.std(v, ddof=1):.2g})"
            if len(v) > 1
            else f"{100 * v[0]:.3g}"
            for v in ([r[key][name] for r in runs] for key in ("error", "reference_error"))
        ]
        between = 100 * max(r["difference"][name] for r in runs)
        nats = max((r["excess_nats"] for r in runs if r["excess_nats"] is not None), default=np.nan)
        u = 100 * max(r["u_relative_error"] for r in runs)
        steps = np.mean([r["steps"] for r in runs])
        rows.append(
            f"{entry['case']:<48} {name:>7} {spread[0]:>16} {spread[1]:>16} {between:>11.2g} "
            f"{nats:>8.2g} {u:>7.2g} {entry['cpu_seconds_first']:>6.0f} {steps:>6.0f}"
        )
        same = [r["same_equation"] for r in runs if r["same_equation"] is not None]
        if same:
            between = 100 * max(r["difference"][name] for r in same)
            nats = max(r["excess_nats"] for r in same)
            u = 100 * max(r["u_relative_error"] for r in same)
            rows.append(f"{SAME:<48} {name:>7} {between:>45.2g} {nats:>8.2g} {u:>7.2g}")
    return rows


if __name__ == "__main__":
    run_each(__file__, __doc__, cases, measured, HEAD, lines)

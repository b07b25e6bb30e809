"""Posterior error against inner tolerance on the nonlinear Poisson problem, without sampling noise.

    python benchmarks/tolerance.py [--profile quick|paper] [--out DIRECTORY] [--only NAME ...]

The potential under a tolerance, U_eps, is evaluated on a grid of log k and the posterior that it
defines is compared with that of the numerical operator by quadrature. Two ways to reach a grid point:
"fresh" starts every solve from the stored weights at k = 0.6, so that U_eps is a function of k;
"carried" walks the grid outwards from there with the weights of the neighbour, as the chain of
`BiLOHMC` does. Short chains of that kernel give the CPU time of sampling. Prints a table with the
fitted orders (error ~ tolerance^order) and writes tolerance.json, tolerance.png and tolerance.svg.
"""

import os

# One thread, and the faster-compiling code generator, before JAX starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
)
if __name__ == "__main__" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer import init_to_value

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import bilo_ppl as bilo
from benchmarks.tolerance_figure import draw
from models import nonlinear_poisson as case

jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True)
class Method:
    """Inner solver, sensitivity, and number of Fourier features of the network."""

    name: str
    solver: Any
    sensitivity: Any
    fourier: int = 0


ADAM = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1.0, max_steps=5000)
LM = bilo.LevenbergMarquardt(tolerance=1.0, max_steps=60)
PAPERS, IMPLICIT = bilo.ResidualGradient(), bilo.ImplicitDifferentiation()
METHODS = (
    Method("residual gradient, Adam", ADAM, PAPERS),
    Method("residual gradient, LM", LM, PAPERS),
    Method("implicit, LM", LM, IMPLICIT),
    Method("implicit, LM, Fourier", LM, IMPLICIT, fourier=32),
)


@dataclasses.dataclass(frozen=True)
class Profile:
    """How much is computed."""

    points: int
    """Grid points over plus and minus five posterior standard deviations."""
    tolerances: tuple[float, ...]
    chains: int
    draws: int
    sigmas: tuple[float, ...]
    """Noise levels at which the posterior is formed; the solves serve them all."""
    seconds: float
    """CPU time after which a grid or a chain is left unfinished, and tighter tolerances out."""


PROFILES = {
    "quick": Profile(31, tuple(10.0**-i for i in range(1, 9)), 2, 100, (0.1,), 30.0),
    "paper": Profile(
        121, tuple(10.0 ** -(i / 2) for i in range(2, 17)), 4, 500, (0.1, 0.02), 1200.0
    ),
}


class Potential:
    """U, dU/dz and the report of the solve at z = log k, compiled once for every tolerance."""

    def __init__(self, arguments: tuple):
        """``arguments`` of the model after the operator: points, values, sigma."""

        def evaluate(operator, z, state):
            potential = bilo.StatefulPotential(
                case.model, (operator, *arguments), accept_unconverged=True
            )
            value_and_grad = jax.value_and_grad(potential, has_aux=True)
            (U, (state, info)), gradient = value_and_grad({"k": z}, state)
            return U, gradient["k"], state, info

        self._evaluate = eqx.filter_jit(evaluate)

    def __call__(self, operator: Any, z: float, state: Any) -> tuple[Any, Any, Any, Any]:
        """``(U, dU/dz, state, info)``, computed when it returns."""
        return jax.block_until_ready(self._evaluate(operator, jnp.asarray(z), state))


def at_tolerance(method: Method, local: bilo.LocalOperator, tolerance: float) -> bilo.FineTuned:
    """The solution operator; the tolerance is an array, hence an argument of compiled functions."""
    fine = bilo.FineTuned(local, method.solver, method.sensitivity)
    return eqx.tree_at(lambda op: op.solver.tolerance, fine, jnp.asarray(tolerance))


def walk(z: np.ndarray, start: float) -> list[tuple[int, bool]]:
    """Grid points outwards from the one nearest to ``start``, and where the walk begins anew."""
    first = int(np.abs(z - start).argmin())
    upwards = [(i, i == first) for i in range(first, len(z))]
    return upwards + [(i, i == first - 1) for i in range(first - 1, -1, -1)]


class Grid:
    """Potential energies on a grid of z = log k, and what they cost."""

    def __init__(self, z: np.ndarray):
        self.z, self.U = z, np.full(len(z), np.nan)
        self.steps, self.converged = np.zeros(len(z), int), np.zeros(len(z), bool)
        self.seconds = 0.0

    def solve(self, potential: Potential, operator: Any, *, carried: bool, limit: float) -> "Grid":
        """Fill the grid, unless it takes more than ``limit`` CPU seconds."""
        start = {"u": operator.init_state()}
        begun, state = time.process_time(), start
        for i, anew in walk(self.z, float(np.log(case.start["k"]))):
            state = start if anew or not carried else state
            self.U[i], _, state, info = potential(operator, self.z[i], state)
            self.steps[i], self.converged[i] = int(info.steps), bool(info.converged)
            self.seconds = time.process_time() - begun
            if self.seconds > limit:
                break
        return self

    @property
    def finished(self) -> bool:
        """Whether every point was reached within the time allowed."""
        return bool(np.isfinite(self.U).all())

    @property
    def density(self) -> np.ndarray:
        """Posterior density of z, normalised by the trapezoidal rule."""
        density = np.exp(self.U.min() - self.U)
        return density / np.trapezoid(density, self.z)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of k = exp z."""
        k = np.exp(self.z)
        mean = np.trapezoid(self.density * k, self.z)
        variance = np.trapezoid(self.density * (k - mean) ** 2, self.z)
        return float(mean), float(variance**0.5)


def errors(found: Grid, exact: Grid) -> dict[str, float]:
    """Distances of two posteriors of k; total variation is the same for k and log k."""
    (mean, sd), (true_mean, true_sd) = found.moments(), exact.moments()
    gap = np.abs(found.density - exact.density)
    return {
        "total_variation": float(np.trapezoid(gap, exact.z) / 2),
        "mean_error": abs(mean - true_mean) / true_sd,
        "sd_error": abs(sd / true_sd - 1),
    }


class Study:
    """One noise level: the data, the exact posterior on the grid, and the operators on it."""

    def __init__(self, sigma: float, profile: Profile):
        data = case.synthetic_data(0)
        noiseless = np.asarray(jax.vmap(case.exact)(jnp.asarray(data["x"])))
        y = noiseless + sigma / case.SIGMA * (data["y"] - noiseless)
        self.sigma, self.profile = sigma, profile
        self.arguments = (jnp.asarray(data["x"]), jnp.asarray(y), sigma)
        numerical = bilo.FiniteDifferences(
            case.problem, nodes=3201, theta=case.truth, guess=case.exact
        )
        self.exact = self._exact(numerical)
        self.potential = Potential(self.arguments)

    def _exact(self, numerical: bilo.FiniteDifferences) -> Grid:
        potential = Potential(self.arguments)
        wide = Grid(np.linspace(np.log(0.52), np.log(1.1), 201))
        wide.solve(potential, numerical, carried=False, limit=np.inf)
        z, density = wide.z, wide.density
        mean = np.trapezoid(density * z, z)
        sd = np.trapezoid(density * (z - mean) ** 2, z) ** 0.5
        grid = Grid(np.linspace(mean - 5 * sd, mean + 5 * sd, self.profile.points))
        return grid.solve(potential, numerical, carried=False, limit=np.inf)

    def record(self, method: Method, local: Any, tolerance: float, carried: bool) -> dict[str, Any]:
        """One tolerance and way of reaching the grid points."""
        grid = Grid(self.exact.z)
        operator = at_tolerance(method, local, tolerance)
        grid.solve(self.potential, operator, carried=carried, limit=self.profile.seconds)
        reached = np.isfinite(grid.U)
        return {
            "sigma": self.sigma,
            "method": method.name,
            "weights": "carried" if carried else "fresh",
            "tolerance": tolerance,
            "points": int(reached.sum()),
            "of_points": len(grid.z),
            "converged": float(grid.converged[reached].mean()),
            "inner_steps": float(grid.steps[reached].mean()),
            "cpu_ms": 1e3 * grid.seconds / int(reached.sum()),
        } | (errors(grid, self.exact) if grid.finished else {})


class Chain:
    """Short chains of `BiLOHMC` from k = 0.6: what a draw costs when the weights are carried."""

    def __init__(self, method: Method, local: bilo.LocalOperator, study: Study):
        self.method, self.local, self.profile = method, local, study.profile
        operator = at_tolerance(method, local, 1.0)
        arrays, static = eqx.partition(operator, eqx.is_array)

        def model(arrays):
            return case.model(eqx.combine(arrays, static), *study.arguments)

        mean, sd = study.exact.moments()
        self.kernel = bilo.BiLOHMC(
            model,
            # Near pi / 2 posterior standard deviations a trajectory forgets where it began.
            step_size=0.75,
            trajectory_length=1.5,
            inverse_mass_matrix=jnp.asarray([(sd / mean) ** 2]),
            adapt_step_size=False,
            adapt_mass_matrix=False,
            init_strategy=init_to_value(values=case.start),
            accept_unconverged=True,
        )
        self.first = self.kernel.init(jax.random.key(0), 0, model_args=(arrays,))
        self.next = jax.jit(lambda state, arrays: self.kernel.sample(state, (arrays,), {}))
        jax.block_until_ready(self.next(self.first, arrays))

    def record(self, tolerance: float) -> dict[str, Any]:
        """CPU time, inner steps and acceptance of the draws of all chains."""
        arrays = eqx.filter(at_tolerance(self.method, self.local, tolerance), eqx.is_array)
        draws = []
        begun = time.process_time()
        for chain in range(self.profile.chains):
            state = self.first._replace(rng_key=jax.random.key(chain))
            for _ in range(self.profile.draws):
                state = jax.block_until_ready(self.next(state, arrays))
                draws.append(
                    [state.num_steps, state.inner_steps, state.inner_converged, state.accept_prob]
                )
                seconds = time.process_time() - begun
                if seconds > self.profile.seconds:
                    break
        leapfrogs, inner, converged, accepted = np.array(draws, float).T
        return {
            "chain_draws": len(draws),
            "chain_cpu_ms_per_draw": 1e3 * seconds / len(draws),
            "chain_inner_steps": inner.sum() / leapfrogs.sum(),
            "chain_converged": converged.mean(),
            "chain_acceptance": accepted.mean(),
        }


HEAD = (
    f"{'method':<26} {'weights':<8} {'tol':>7} {'solved':>6} {'steps':>7} {'ms':>8} {'TV':>8} "
    f"{'mean/sd':>8} {'sd':>8} {'ms/draw':>8} {'steps':>6} {'solved':>6} {'accept':>6}"
)


def line(entry: dict[str, Any]) -> str:
    """A row of the table."""

    def number(key, form):
        width = form.split(".")[0]
        return f"{entry[key]:>{form}}" if key in entry else f"{'-':>{width}}"

    parts = [
        f"{entry['method']:<26} {entry['weights']:<8} {entry['tolerance']:>7.0e}",
        number("converged", "6.2f"),
        number("inner_steps", "7.1f"),
        number("cpu_ms", "8.1f"),
        *(number(key, "8.1e") for key in ("total_variation", "mean_error", "sd_error")),
        number("chain_cpu_ms_per_draw", "8.1f"),
        number("chain_inner_steps", "6.1f"),
        number("chain_converged", "6.2f"),
        number("chain_acceptance", "6.2f"),
    ]
    return " ".join(parts)


def fitted_orders(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slopes of log error against log tolerance, of each method and way, for each error.

    Only tolerances that every point reached, at which the error is below 0.3 (the posterior is
    about in its place) and above three times the smallest (the floor of the network).
    """
    orders = []
    for key in dict.fromkeys((r["sigma"], r["method"], r["weights"]) for r in records):
        mine = [r for r in records if (r["sigma"], r["method"], r["weights"]) == key]
        solved = [r for r in mine if r["converged"] == 1 and "total_variation" in r]
        entry: dict[str, Any] = dict(zip(("sigma", "method", "weights"), key, strict=True))
        for name in ("total_variation", "mean_error", "sd_error"):
            floor = min((r[name] for r in solved), default=0.0)
            used = [r for r in solved if 3 * floor < r[name] < 0.3]
            x, y = (np.log([r[k] for r in used]) for k in ("tolerance", name))
            if len(used) >= 3:
                entry[f"order_{name}"] = float(np.polyfit(x, y, 1)[0])
                entry[f"points_{name}"] = len(used)
        orders.append(entry)
    return orders


def pretrained(method: Method) -> bilo.LocalOperator:
    """The operator at k = 0.6, well below most tolerances, with rank-4 increments."""
    result = bilo.pretrain(
        case.problem,
        case.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=400),
        progress=False,
        fourier=method.fourier,
        fourier_scale=3.0,
    )
    print(f"pretraining, {method.fourier} Fourier features: {result.report}", file=sys.stderr)
    return result.operator.with_lora(4, key=jax.random.key(1))


def study_method(study: Study, method: Method, local: bilo.LocalOperator) -> list[dict[str, Any]]:
    """Every tolerance that can be reached within the time allowed, printed on the way."""
    start = {"u": local.weights}
    study.potential(at_tolerance(method, local, 1.0), study.exact.z[0], start)  # compiles
    chain = Chain(method, local, study)
    records, ways = [], {"fresh", "carried"}
    for tolerance in study.profile.tolerances:
        for way in sorted(ways, reverse=True):
            entry = study.record(method, local, tolerance, carried=way == "carried")
            if entry["points"] < entry["of_points"] or entry["converged"] < 0.5:
                ways.remove(way)  # a tighter tolerance takes longer still
            if way == "carried":
                entry |= chain.record(tolerance)
            records.append(entry)
            print(line(entry), flush=True)
    return records


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", choices=tuple(PROFILES), default="quick")
    parser.add_argument("--out", default=".", help="directory of tolerance.json, .png and .svg")
    parser.add_argument("--only", nargs="*", help="parts of method names to run")
    arguments = parser.parse_args()
    profile, out = PROFILES[arguments.profile], pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    operators: dict[int, bilo.LocalOperator] = {}
    records: list[dict[str, Any]] = []
    print(HEAD, flush=True)
    for sigma in profile.sigmas:
        study = Study(sigma, profile)
        for method in METHODS:
            if arguments.only and not any(part in method.name for part in arguments.only):
                continue
            if method.fourier not in operators:
                operators[method.fourier] = pretrained(method)
            records += study_method(study, method, operators[method.fourier])
            results = {
                "profile": dataclasses.asdict(profile),
                "records": records,
                "orders": fitted_orders(records),
            }
            path = out / "tolerance.json"
            path.write_text(json.dumps(results, indent=1) + "\n")
            jax.clear_caches()
    for entry in fitted_orders(records):
        print(entry)
    draw(out / "tolerance.json")


if __name__ == "__main__":
    main()

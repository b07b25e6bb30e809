"""The posterior under an inner tolerance on a grid, and short chains: parts of the benchmark."""

import dataclasses
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_value

import bilo_ppl as bilo
from models import nonlinear_poisson as case

__all__ = ["Chain", "Method", "Profile", "Study", "at_tolerance"]


@dataclasses.dataclass(frozen=True)
class Method:
    """Inner solver, sensitivity, and number of Fourier features of the network."""

    name: str
    solver: Any
    sensitivity: Any
    fourier: int = 0


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
        self.block = jax.jit(self._block)
        # Twice: the first state and one that a block returns need not be of the same (weak) types.
        state, _ = self.block(self.first, arrays)
        jax.block_until_ready(self.block(state, arrays))

    def _block(self, state: Any, arrays: Any) -> tuple[Any, Any]:
        """Ten draws; the numbers reported of each."""

        def step(state, _):
            state = self.kernel.sample(state, (arrays,), {})
            report = (state.num_steps, state.inner_steps, state.inner_converged, state.accept_prob)
            return state, jnp.stack([jnp.asarray(part, float) for part in report])

        return jax.lax.scan(step, state, None, 10)

    def record(self, tolerance: float) -> dict[str, Any]:
        """CPU time, inner steps and acceptance of the draws of all chains."""
        arrays = eqx.filter(at_tolerance(self.method, self.local, tolerance), eqx.is_array)
        blocks = []
        begun, seconds = time.process_time(), 0.0
        for chain in range(self.profile.chains):
            state = self.first._replace(rng_key=jax.random.key(chain))
            for _ in range(self.profile.draws // 10):
                if seconds < self.profile.seconds:
                    state, block = jax.block_until_ready(self.block(state, arrays))
                    blocks.append(np.asarray(block))
                    seconds = time.process_time() - begun
        draws = np.concatenate(blocks)
        leapfrogs, inner, converged, accepted = draws.T
        return {
            "chain_draws": len(draws),
            "chain_cpu_ms_per_draw": 1e3 * seconds / len(draws),
            "chain_inner_steps": inner.sum() / leapfrogs.sum(),
            "chain_converged": converged.mean(),
            "chain_acceptance": accepted.mean(),
        }

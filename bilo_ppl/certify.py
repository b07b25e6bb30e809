"""A certificate: how far the sampled posterior can be from the one with an exact PDE solution.

For a subset of draws the potential energy is recomputed with a solution that is much nearer to exact
(a tolerance a hundred times tighter, or a numerical operator). The difference of the energies gives
importance weights, and their statistics say what a perfect inner solver would have changed.
Pareto-smoothed importance sampling: Vehtari, Simpson, Gelman, Yao, Gabry, JMLR 25 (2024).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpyro import handlers
from numpyro.infer.util import log_density

from bilo_ppl.effects import find_solutions, replace_operator, warm_start
from bilo_ppl.sensitivity import PartialDerivative
from bilo_ppl.solution_operators import AbstractSolutionOperator, FineTuned
from bilo_ppl.solvers import LevenbergMarquardt

__all__ = ["Certificate", "certify", "pareto_k"]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Importance-weight statistics of a subset of draws against a nearly exact solution."""

    against: str
    """What the draws were compared with."""
    draws: int
    """Draws that were recomputed."""
    energy_error_sd: float
    """Standard deviation of U - U_exact over the draws (a constant difference does not matter)."""
    kl_divergence: float
    """Estimated KL divergence of the sampled posterior from the exact one, in nats."""
    effective_fraction: float
    """Effective sample size of the importance weights, relative to the number of draws."""
    pareto_k: float
    """Tail index of the weights; NaN when they are too even to have a tail."""
    unsolved: int
    """Draws at which the tighter solve did not reach its tolerance (its energy is used all the same)."""
    achieved_loss: float
    """Median loss of the tighter solve."""
    means: dict[str, tuple[float, float]]
    """Mean of every parameter: as sampled, and corrected by the weights."""
    sds: dict[str, tuple[float, float]]
    """Standard deviation likewise."""

    @property
    def trustworthy(self) -> bool:
        """Whether the correction is small: KL below 0.01, effective fraction above 0.95, k below 0.7."""
        tail = np.isnan(self.pareto_k) or self.pareto_k < 0.7
        return bool(self.kl_divergence < 0.01 and self.effective_fraction > 0.95 and tail)

    @property
    def verdict(self) -> str:
        """One line for a person."""
        moved = max(
            (abs(a - b) / self.sds[n][0] for n, (a, b) in self.means.items() if self.sds[n][0] > 0),
            default=0.0,
        )
        if self.trustworthy:
            return (
                f"GOOD: an exact PDE solution would move the posterior mean by {moved:.2f} posterior "
                f"sd or less (KL {self.kl_divergence:.1e})."
            )
        return (
            f"ALARM: the inner tolerance distorts the posterior (KL {self.kl_divergence:.1e}, mean off "
            f"by about {moved:.2f} posterior sd); run again with a tighter tolerance."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict, "good": self.trustworthy}

    def __str__(self) -> str:
        lines = [
            self.verdict,
            f"  {self.draws} draws against {self.against}: sd of the energy error "
            f"{self.energy_error_sd:.1e}, effective fraction {self.effective_fraction:.3f}, PSIS k-hat "
            f"{self.pareto_k:.2f}, {self.unsolved} not solved (median loss {self.achieved_loss:.1e})",
        ]
        for name, (sampled, corrected) in self.means.items():
            sd, corrected_sd = self.sds[name]
            lines.append(
                f"  {name}: {sampled:.5g} +- {sd:.3g} as sampled, {corrected:.5g} +- "
                f"{corrected_sd:.3g} corrected"
            )
        return "\n".join(lines)


def certify(
    model: Callable,
    samples: Mapping[str, Any],
    *model_args: Any,
    reference: AbstractSolutionOperator | Mapping[str, AbstractSolutionOperator] | None = None,
    subset: int = 200,
    factor: float = 100.0,
    max_steps: int = 60,
    seed: int = 0,
    **model_kwargs: Any,
) -> Certificate:
    """Compare draws with a nearly exact solution of the PDE.

    ``samples`` are constrained values by site, ``(chains, draws, ...)``; ``subset`` of them are
    recomputed. Without ``reference`` every `FineTuned` operator of the model is run again to a
    tolerance ``factor`` times tighter, by Levenberg-Marquardt of at most ``max_steps`` steps on the
    residual rows; with it (one operator for all solution sites, or one a site) that operator is taken
    as exact. The energies of the draws themselves come from the pure solves of the model as given.
    """
    flat = {name: np.asarray(v).reshape(-1, *np.shape(v)[2:]) for name, v in samples.items()}
    total = len(next(iter(flat.values())))
    picked = np.random.default_rng(seed).permutation(total)[: min(subset, total)]
    draws = {name: jnp.asarray(v[picked]) for name, v in flat.items()}
    first = {name: value[0] for name, value in draws.items()}
    operators = _operators(model, first, model_args, model_kwargs)
    if reference is None:
        against = f"solves to a tolerance {factor:g} times tighter"
        operators = {n: _tightened(n, op, factor, max_steps) for n, op in operators.items()}
    else:
        given = reference if isinstance(reference, Mapping) else dict.fromkeys(operators, reference)
        against, operators = "the numerical operator", dict(given)

    def energies(draw):
        rough, _ = log_density(model, model_args, model_kwargs, draw)
        collector = warm_start(accept_unconverged=True)
        with collector, replace_operator(operators=operators):
            exact, _ = log_density(model, model_args, model_kwargs, draw)
        infos = list(collector.infos.values())
        converged = jnp.all(jnp.stack([info.converged for info in infos]))
        return rough, exact, converged, jnp.max(jnp.stack([info.loss for info in infos]))

    evaluate = jax.jit(lambda d: jax.lax.map(energies, d))
    rough, exact, converged, loss = (np.asarray(part, float) for part in evaluate(draws))
    return _statistics(flat, picked, exact - rough, converged, loss, against)


def _operators(model, draw, args, kwargs) -> dict[str, AbstractSolutionOperator]:
    """The operators that the model names, by solution site; nothing is solved."""
    seeded = handlers.seed(model, jax.random.key(0))
    found = find_solutions(handlers.substitute(seeded, data=draw))
    found(*args, **kwargs)
    if not found.sites:
        raise ValueError("certify: the model has no solution(...) site.")
    return {name: operator for name, (operator, _) in found.sites.items()}


def _tightened(
    name: str, operator: AbstractSolutionOperator, factor: float, max_steps: int
) -> FineTuned:
    """The operator with a tighter tolerance, on the residual rows, by Levenberg-Marquardt."""
    if not isinstance(operator, FineTuned):
        raise ValueError(
            f"certify: site {name!r} has a {type(operator).__name__}, whose tolerance cannot be "
            "tightened; give reference=."
        )
    solver = LevenbergMarquardt(operator.solver.tolerance / factor, max_steps)
    return eqx.tree_at(lambda o: (o.solver, o.sensitivity), operator, (solver, PartialDerivative()))


def _statistics(flat, picked, log_ratio, converged, loss, against) -> Certificate:
    """Importance weights exp(log_ratio) of the picked draws, and what they say."""
    finite = np.isfinite(log_ratio)
    if not finite.any():
        raise ValueError(
            "certify: no draw has a finite energy under both solvers; were the samples drawn from "
            "this model and data?"
        )
    shifted = np.where(finite, log_ratio - log_ratio[finite].max(), -np.inf)
    weights = np.exp(shifted) / np.exp(shifted).sum()
    mean_ratio = np.log(np.mean(np.exp(shifted[finite]))) + log_ratio[finite].max()
    means, sds = {}, {}
    for label, values in _scalars(flat):
        chosen = values[picked]
        mean = float(weights @ chosen)
        means[label] = (float(chosen.mean()), mean)
        sds[label] = (float(chosen.std()), float(np.sqrt(weights @ (chosen - mean) ** 2)))
    return Certificate(
        against=against,
        draws=len(picked),
        energy_error_sd=float(log_ratio[finite].std()),
        kl_divergence=float(max(mean_ratio - log_ratio[finite].mean(), 0.0)),
        effective_fraction=float(1 / (len(weights) * np.sum(weights**2))),
        pareto_k=pareto_k(log_ratio[finite]),
        unsolved=int(np.sum(converged == 0)),
        achieved_loss=float(np.median(loss)),
        means=means,
        sds=sds,
    )


def _scalars(flat: Mapping[str, np.ndarray]):
    """Every scalar component of every site, with a label."""
    for name, values in flat.items():
        columns = values.reshape(len(values), -1)
        for j in range(columns.shape[1]):
            yield name if values.ndim == 1 else f"{name}[{j}]", columns[:, j]


def pareto_k(log_weights: Float[np.ndarray, " n"]) -> float:
    """Shape of the generalised Pareto distribution of the largest weights (PSIS k-hat).

    Zhang and Stephens' estimator (Technometrics 51, 2009) with the weak prior of the PSIS paper, on the
    largest min(n/5, 3 sqrt(n)) weights. NaN for fewer than 25 weights or weights that are equal to
    rounding.
    """
    n = len(log_weights)
    if n < 25 or np.ptp(log_weights) < 1e-8:
        return float("nan")
    weights = np.sort(np.exp(log_weights - log_weights.max()))
    tail = int(min(n / 5, 3 * np.sqrt(n)))
    excess = weights[-tail:] - weights[-tail - 1]
    if excess[-1] <= 0 or excess[0] < 0:
        return float("nan")
    count = 30 + int(np.sqrt(tail))
    quartile = excess[int(tail / 4 + 0.5) - 1]
    if quartile <= 0:
        return float("nan")
    grid = 1 / excess[-1] + (1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))) / (3 * quartile)
    shape = np.mean(np.log1p(-grid[:, None] * excess), axis=1)
    likelihood = tail * (np.log(-grid / shape) - shape - 1)
    posterior = np.exp(likelihood - likelihood.max())
    b = np.sum(grid * posterior) / posterior.sum()
    k = np.mean(np.log1p(-b * excess))
    return float((tail * k + 10 * 0.5) / (tail + 10))

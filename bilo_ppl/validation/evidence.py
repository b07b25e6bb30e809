"""The evidence of a model, by which two equations for the same data are compared.

``p(data | model)``, the integral of likelihood times prior, is estimated by importance sampling: new
draws from a Student distribution with the mean and covariance of the posterior draws in unconstrained
space, each with one solve. Its tails are heavier than those of a posterior that is nearly Gaussian, and
where they are not, the tail of the weights says so (PSIS k-hat).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.distributions import ImproperUniform
from numpyro.infer.util import constrain_fn, unconstrain_fn
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.data_sites import innermost
from bilo_ppl.ppl.handlers import without_solving
from bilo_ppl.ppl.look import ModelLook
from bilo_ppl.validation.energies import by_site, energies_at, flattened, look_at_draw
from bilo_ppl.validation.importance import smoothed_log_weights

__all__ = ["Evidence", "log_evidence"]

FREEDOM = 5
"""Degrees of freedom of the Student distribution: heavy tails, and still a covariance."""

SHAPE_LIMIT, UNSOLVED_LIMIT = 0.7, 0.1
"""k-hat, and the part of new draws that are not solved, from which on an estimate says little."""

EACH = 2
"""Posterior draws for each unknown that a covariance needs at least."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """An estimate of the logarithm of the evidence, and how far it can be trusted.

    Examples:
        >>> narrow = bilo.log_evidence(model, draws, exact, x, y, proposals=400)
        >>> wide = bilo.log_evidence(model, draws, exact, x, y, 0.2, proposals=400)
        >>> narrow.trustworthy, narrow.log_evidence > wide.log_evidence + 10
        (True, True)
    """

    log_evidence: float
    """Natural logarithm."""
    standard_error: float
    """Of the logarithm."""
    pareto_k: float
    """PSIS k-hat of the weights; NaN where they are too even to have a tail."""
    effective_fraction: float
    """Effective number of the new draws, relative to their number."""
    proposals: int
    """New draws."""
    unsolved: int
    """Those where the PDE was not solved: they count as impossible, as they do in sampling."""

    @property
    def trustworthy(self) -> bool:
        """Whether k-hat is below 0.7 and the PDE was solved at nine of ten new draws."""
        return not self.pareto_k >= SHAPE_LIMIT and self.unsolved <= UNSOLVED_LIMIT * self.proposals

    def __str__(self) -> str:
        shape = "none" if np.isnan(self.pareto_k) else f"{self.pareto_k:.2f}"
        text = (
            f"log evidence {self.log_evidence:.2f} +- {self.standard_error:.2f} ({self.proposals} draws, "
            f"effective fraction {self.effective_fraction:.2f}, PSIS k-hat {shape})"
        )
        if self.unsolved:
            text += f"; the PDE was not solved at {self.unsolved} of them"
        return text if self.trustworthy else f"{text}: NOT to be trusted"


def log_evidence(
    model: Callable,
    samples: Mapping[str, Any],
    *model_args: Any,
    reference: AbstractSolutionOperator | Mapping[str, AbstractSolutionOperator] | None = None,
    proposals: int = 1000,
    seed: int = 0,
    **model_kwargs: Any,
) -> Evidence:
    """Estimate log p(data | model) around posterior draws.

    ``samples`` are constrained values by site, ``(chains, draws, ...)``, of ``model``, ``model_args`` and
    ``model_kwargs``: they say where new draws, ``proposals`` of them, are taken, and are not used
    otherwise. Each costs one solve, by the model's own operator or by ``reference`` (one operator for all
    solution sites, or one a site).

    The difference of two log evidences on the same data is the logarithm of their Bayes factor: by so
    much the data speak for one equation and its priors. It depends on the priors' widths, also where the
    posterior does not; and a posterior with several modes needs draws from all of them.

    Raises a ``ValueError`` for a site with a flat prior, of which there is no evidence, for too few
    samples to have a covariance, or where U is finite at none of the new draws.

    Examples:
        >>> found = bilo.log_evidence(model, draws, exact, x, y, proposals=400)
        >>> found.trustworthy, 0 < found.standard_error < 0.1
        (True, True)
    """
    if proposals < 1:
        raise ValueError(f"log_evidence: proposals is {proposals}; at least one is needed.")
    flat = flattened("log_evidence", samples)
    look = _look(model, {name: v[0] for name, v in flat.items()}, model_args, model_kwargs)
    chosen = {name: jnp.asarray(flat[name]) for name in look.latent}
    positions, unravel = _unconstrained(model, model_args, model_kwargs, chosen)
    around = _around(positions)
    new = np.reshape(
        around.rvs(proposals, random_state=np.random.default_rng(seed)), (proposals, -1)
    )
    draws = _constrained(model, model_args, model_kwargs, jax.vmap(unravel)(jnp.asarray(new)))
    operators = {} if reference is None else by_site(reference, look.solutions)
    found = energies_at(
        model,
        model_args,
        model_kwargs,
        {name: draws[name] for name in look.latent},
        operators,
        accept=False,
    )
    return _estimate(-found.energy - around.logpdf(new), int((~found.converged).sum()))


def _look(model: Callable, draw: Mapping[str, Any], args: tuple, kwargs: Any) -> ModelLook:
    """The model at a draw, checked; nothing is solved."""
    look = look_at_draw("log_evidence", model, draw, args, kwargs)
    for name, site in look.latent.items():
        if isinstance(innermost(site["fn"]), ImproperUniform):
            raise ValueError(
                f"log_evidence: site {name!r} has a flat prior, which is no probability: there is no "
                "evidence. Give it a proper one."
            )
    return look


def _unconstrained(
    model: Callable, args: tuple, kwargs: Mapping[str, Any], draws: Mapping[str, Any]
) -> tuple[Float[np.ndarray, "n dim"], Callable]:
    """Positions of draws, and the way back to values by site."""

    def position(draw):
        with without_solving():
            return unconstrain_fn(model, args, kwargs, draw)

    z = jax.jit(jax.vmap(position))(draws)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], z))[1]
    return np.asarray(jax.vmap(lambda one: ravel_pytree(one)[0])(z)), unravel


def _constrained(model: Callable, args: tuple, kwargs: Mapping[str, Any], z: Any) -> dict[str, Any]:
    def values(one):
        with without_solving():
            return constrain_fn(model, args, kwargs, one)

    return jax.jit(jax.vmap(values))(z)


def _around(positions: Float[np.ndarray, "n dim"]) -> Any:
    """The distribution of the new draws."""
    count, dim = positions.shape
    if count <= EACH * dim:
        raise ValueError(
            f"log_evidence: {count} draws are too few for the covariance of {dim} unknowns; more than "
            f"{EACH * dim} are needed."
        )
    covariance = np.atleast_2d(np.cov(positions.T))
    if not np.all(np.isfinite(covariance)) or np.linalg.matrix_rank(covariance) < dim:
        raise ValueError(
            "log_evidence: the draws have no covariance: some unknown never moves, or is a function of "
            "the others."
        )
    shape: Any = (FREEDOM - 2) / FREEDOM * covariance
    return multivariate_t(positions.mean(axis=0), shape, df=FREEDOM)


def _estimate(log_weights: Float[np.ndarray, " n"], unsolved: int) -> Evidence:
    """From the logarithms of weights; one that is not finite is of a draw that is impossible."""
    finite = np.isfinite(log_weights)
    if not finite.any():
        raise ValueError("log_evidence: U is finite at none of the new draws.")
    count, possible = len(log_weights), log_weights[finite]
    smoothed, shape = smoothed_log_weights(possible)
    total = float(np.asarray(logsumexp(smoothed)))
    weights = np.zeros(count)
    weights[finite] = np.exp(smoothed - total)
    return Evidence(
        log_evidence=total - float(np.log(count)),
        standard_error=float(np.std(weights, ddof=1) * np.sqrt(count))
        if count > 1
        else float("nan"),
        pareto_k=shape,
        effective_fraction=float(1 / (count * np.sum(weights**2))),
        proposals=count,
        unsolved=unsolved,
    )

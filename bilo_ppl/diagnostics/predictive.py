"""What a model predicts, as ArviZ's groups: before the data and after, with solves and without.

Each group is asked for by name, since most cost a solve a draw.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.infer import Predictive

from bilo_ppl._types import Key
from bilo_ppl.diagnostics import _groups
from bilo_ppl.diagnostics.results import add_group
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.ppl.handlers import without_solving
from bilo_ppl.ppl.look import look_at

__all__ = ["GROUPS", "WITHOUT_SOLVES", "add_groups", "predicted"]

GROUPS = ("constant_data", "prior", "log_likelihood", "posterior_predictive", "prior_predictive")
"""Those that can be added, the ones without solves first."""


WITHOUT_SOLVES = GROUPS[:2]
"""Those that are always in the results of a run."""


def add_groups(idata: Any, mcmc: Any, groups: Sequence[str], *, key: Key, **more: Any) -> None:
    """Add groups of ArviZ to the result of `to_arviz`, from the run that it was made of: see `predicted`.

    Groups of these names that are there already are replaced.

    >>> from bilo_ppl.diagnostics.predictive import add_groups
    >>> add_groups(idata, run, ["prior", "log_likelihood"], key=key, prior_draws=50)
    >>> idata["log_likelihood"]["y"].shape == (2, 200, len(x)), idata["prior"]["r"].shape
    (True, (1, 50))
    """
    for name, values in predicted(mcmc, groups, key=key, **more).items():
        add_group(idata, name, values)


def predicted(
    mcmc: Any,
    groups: Sequence[str],
    *,
    key: Key,
    constant: Mapping[str, Any] | None = None,
    prior_model: Callable | None = None,
    prior_draws: int = 500,
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of groups of ArviZ, by group and name, of a run (`numpyro.infer.MCMC`, or `Draws`).

    - ``constant_data``: ``constant``, arrays by name such as the points ``x`` and the noise ``sigma``;
    - ``prior``: ``prior_draws`` draws of the latent sites, without a solve;
    - ``log_likelihood``: of every datum at every draw, ``(chain, draw, ...)``, for `arviz.loo` and
      `arviz.compare`: a solve a draw;
    - ``posterior_predictive``: replicated data, noise included, at every draw: a solve a draw;
    - ``prior_predictive``: replicated data at the draws of ``prior``: a solve each. They are far from
      where an operator was trained: ``prior_model``, the model with an operator that solves all over the
      prior, takes the place of the model of the run there.

    Raises a ``ValueError`` for other names, for ``constant_data`` without ``constant``, and for a run
    whose model is not known.
    """
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise ValueError(f"there are no groups {unknown}; known are {', '.join(GROUPS)}.")
    if "constant_data" in groups and not constant:
        raise ValueError("constant_data needs constant, arrays by name.")
    draws = Draws.of(mcmc)
    model = draws.model
    if model is None:
        raise ValueError("the run has no model; sample a NumPyro model.")
    of_prior, of_posterior = jax.random.split(key)
    args, kwargs = draws.args, draws.kwargs
    latent = list(look_at(model, args, kwargs).latent)
    observed = _groups.observations(model, args, kwargs)
    values = {name: draws.samples[name] for name in latent}
    found: dict[str, dict[str, np.ndarray]] = {}
    if "constant_data" in groups:
        found["constant_data"] = {name: np.asarray(v) for name, v in (constant or {}).items()}
    if "log_likelihood" in groups:
        found["log_likelihood"] = _groups.log_likelihoods(model, values, args, kwargs)
    if "posterior_predictive" in groups:
        replicate = Predictive(_replicating(model), values, batch_ndims=2, parallel=False)
        found["posterior_predictive"] = _data_of(observed, replicate(of_posterior, *args, **kwargs))
    if {"prior", "prior_predictive"} & set(groups):
        before = _prior(model, draws, latent, of_prior, prior_draws)
        if "prior" in groups:
            found["prior"] = _one_chain(before)
        if "prior_predictive" in groups:
            replicate = Predictive(_replicating(prior_model or model), before, parallel=False)
            replicas = _data_of(observed, replicate(of_prior, *args, **kwargs))
            found["prior_predictive"] = _one_chain(replicas)
    return found


def _replicating(model: Callable) -> Callable:
    """The model with data of its own in the place of those that were observed."""
    return handlers.uncondition(model)


def _prior(
    model: Callable, draws: Draws, latent: Sequence[str], key: Key, count: int
) -> dict[str, Any]:
    def silent(*args: Any, **kwargs: Any) -> None:
        with without_solving():
            model(*args, **kwargs)

    found = Predictive(_replicating(silent), num_samples=count)(key, *draws.args, **draws.kwargs)
    return {name: found[name] for name in latent}


def _data_of(observed: Mapping[str, np.ndarray], found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The sites that have data, with NaN where these are missing."""
    kept = {}
    for name in (name for name in found if name in observed):
        value, data = np.asarray(found[name]), observed[name]
        floating = np.issubdtype(data.dtype, np.floating)
        missing = np.isnan(data) if floating else np.zeros(data.shape, bool)
        kept[name] = np.where(missing, np.nan, value) if missing.any() else value
    return kept


def _one_chain(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value)[None] for name, value in values.items()}

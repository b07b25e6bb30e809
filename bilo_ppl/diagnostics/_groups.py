"""The contents of ArviZ's groups as plain dictionaries, from a NumPyro run and without solving."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpyro.infer.util import log_likelihood

from bilo_ppl.operators.base import SolveInfo
from bilo_ppl.ppl.data_sites import data_mask
from bilo_ppl.ppl.look import look_at
from bilo_ppl.validation.certificate import PROBABILITIES

__all__ = [
    "certificates",
    "inner_stats",
    "log_likelihoods",
    "observations",
    "sample_stats",
    "weights",
]

_ARVIZ_NAMES = {
    "potential_energy": "lp",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "mean_accept_prob": "mean_acceptance_rate",
}


def sample_stats(fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The extra fields that are arrays, by ArviZ's names; ``lp`` is minus the potential energy."""
    arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, (jax.Array, np.ndarray))}
    if "potential_energy" in arrays:
        arrays["potential_energy"] = -arrays["potential_energy"]
    found = {_ARVIZ_NAMES.get(name, name): value for name, value in arrays.items()}
    if "n_steps" in found:
        # A tree of depth j has at most 2^j - 1 steps.
        found["tree_depth"] = np.ceil(np.log2(found["n_steps"] + 1.0)).astype(int)
    return found


def inner_stats(
    inner: Mapping[str, SolveInfo], shape: tuple[int, int], prefix: str
) -> dict[str, np.ndarray]:
    """Steps (the sum), loss and converged (the worst) over solution sites: ``(chains, draws)``."""
    infos = [jax.tree.map(np.asarray, info) for info in inner.values()]
    for name, info in zip(inner, infos, strict=True):
        if info.steps.shape != shape:
            raise ValueError(
                f"inner[{name!r}] has shape {info.steps.shape}, but the draws have {shape}; "
                "compute it from get_samples(group_by_chain=True)."
            )
    return {
        prefix + "steps": np.sum([info.steps for info in infos], axis=0),
        prefix + "loss": np.max([info.loss for info in infos], axis=0),
        prefix + "converged": np.all([info.converged for info in infos], axis=0),
    }


def certificates(found: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables and coordinates of a group with a row for each certificate, given as plain values."""
    coords = {"solution": list(found), "parameter": list(next(iter(found.values()))["means"])}
    variables: dict[str, Any] = {}
    for name in next(iter(found.values())):
        column = [entry[name] for entry in found.values()]
        if name in ("means", "sds"):
            pairs = np.array([[entry[label] for label in coords["parameter"]] for entry in column])
            dims, kind = ("solution", "parameter"), name[:-1]
            variables[kind] = dims, pairs[..., 0]
            variables["corrected_" + kind] = dims, pairs[..., 1]
        elif name == "quantiles":
            _add_quantiles(variables, coords, column)
        else:
            variables[name] = "solution", column
    return variables, coords


def _add_quantiles(variables: dict[str, Any], coords: dict[str, Any], column: list) -> None:
    """Those as sampled, and the corrected ones."""
    if not all(column):
        return
    pairs = np.array([[entry[label] for label in coords["parameter"]] for entry in column])
    coords["probability"] = list(PROBABILITIES)
    for which, name in enumerate(("quantile", "corrected_quantile")):
        variables[name] = ("solution", "parameter", "probability"), pairs[:, :, which]


def weights(found: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of certificates of all draws, as a variable; those without are NaN."""
    known = [one.weights for one in found.values() if one.weights is not None]
    if not known:
        return {}
    none = np.full(known[0].shape, np.nan)
    column = [none if one.weights is None else one.weights for one in found.values()]
    return {"weight": (("solution", "chain", "draw"), np.array(column))}


def observations(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values of the observed sites, NaN where they are masked; nothing is solved."""
    observed = look_at(model, args, kwargs).observed
    return {name: _values(site) for name, site in observed.items()}


def _values(site: Any) -> np.ndarray:
    value, mask = np.asarray(site["value"]), np.asarray(data_mask(site["fn"]))
    return value if mask.all() else np.where(mask, value, np.nan)


def log_likelihoods(
    model: Callable, samples: Mapping[str, Any], args: tuple, kwargs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Log likelihoods ``(chains, draws, ...)`` by observed site: a pure solve for every draw."""
    values = log_likelihood(model, dict(samples), *args, batch_ndims=2, **kwargs)
    return {name: np.asarray(value) for name, value in values.items()}

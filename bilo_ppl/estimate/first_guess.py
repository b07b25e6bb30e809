"""Where an estimate starts, and every check that needs no solve."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_median

from bilo_ppl._types import Key, Theta
from bilo_ppl.estimate.objective import find_rows
from bilo_ppl.fields.weights import field_weights
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.data_sites import data_mask, innermost, is_data
from bilo_ppl.ppl.look import look_at
from bilo_ppl.ppl.model_checks import check_shapes, check_solutions
from bilo_ppl.ppl.site_values import as_site_value
from bilo_ppl.ppl.unknowns import FIRST_GUESS

__all__ = ["Start", "find_start"]


class Start(NamedTuple):
    """A first position, and the solution sites of the model."""

    z: dict[str, Any]
    """Unconstrained values by latent site."""
    operators: dict[str, AbstractSolutionOperator]
    """By solution site."""
    thetas: dict[str, Theta]
    """Theta of each solution site at the first position."""
    batches: dict[str, int | None]
    """The number of experiments of each solution site; None for a single solution."""
    least_squares: bool
    """Whether there are data whose negative log likelihood is a sum of squares."""


def find_start(
    model: Callable, key: Key, args: tuple, kwargs: Mapping[str, Any], init: Mapping[str, Any]
) -> Start:
    """The first position: given values, first guesses, the theta of pretraining, prior medians.

    Raises a ``ValueError`` for a model without solution or latent site, a discrete one, names in
    ``init`` that are no latent sites, values of another shape or outside the support, data that are
    not finite or not of the shape of their likelihood, or a noise scale that is negative.
    """
    given = {name: _as_value(value) for name, value in init.items()}
    operators = look_at(model, args, kwargs, values=given, key=key, first=_guess({})).operators
    if not operators:
        raise ValueError(
            "find_map: the model has no solution(...) site, so no PDE; minimise "
            "numpyro.infer.util.potential_energy directly."
        )
    pretrained = {name: value for op in operators.values() for name, value in op.home.items()}
    look = look_at(model, args, kwargs, values=given, key=key, first=_guess(pretrained))
    _check_names(given, look.latent)
    for name, site in look.latent.items():
        _check_value(name, site)
    for name, site in look.observed.items():
        _check_observed(name, site)
    check_shapes(look)
    check_solutions(look)
    z = {
        name: biject_to(site["fn"].support).inv(jnp.asarray(site["value"], jnp.result_type(float)))
        for name, site in look.latent.items()
    }
    edge = [name for name, value in z.items() if not np.isfinite(value).all()]
    if edge:
        raise ValueError(
            f"find_map: the first guess of {edge} lies on the edge of its support; give init a value "
            "inside."
        )
    return Start(
        z,
        look.operators,
        look.thetas,
        look.batches,
        any(is_data(site) and find_rows(site) is not None for site in look.observed.values()),
    )


def _as_value(value: Any) -> Any:
    """A field stands for its weights, as in `unknown_function`."""
    return field_weights(value) if callable(value) else jnp.asarray(value, jnp.result_type(float))


def _guess(pretrained: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The first value of a site that none was given for; ``pretrained`` are values by name."""

    def first(site):
        name = site["name"]
        if FIRST_GUESS in site["infer"]:
            return site["infer"][FIRST_GUESS]
        known = as_site_value(pretrained[name], site["fn"]) if name in pretrained else None
        return init_to_median(site) if known is None else known

    return first


def _check_names(given: Mapping[str, Any], latent: Mapping[str, Any]) -> None:
    if not latent:
        raise ValueError("find_map: the model has no latent sample site: nothing to estimate.")
    unknown = [name for name in given if name not in latent]
    if unknown:
        raise ValueError(f"find_map: init names {unknown}; the latent sites are {list(latent)}.")


def _check_value(name: str, site: Any) -> None:
    fn, value = site["fn"], site["value"]
    if fn.support.is_discrete:
        raise ValueError(f"find_map: {name!r} is discrete; only continuous sites have a gradient.")
    if jnp.shape(value) != fn.shape():
        raise ValueError(
            f"find_map: the first guess of {name!r} has shape {jnp.shape(value)}; the site has "
            f"shape {fn.shape()}."
        )
    if not (np.isfinite(value).all() and np.all(fn.support(value))):
        raise ValueError(
            f"find_map: the first guess {name} = {value} lies outside the support of its prior, "
            f"{fn.support}; give init another value."
        )


def _check_observed(name: str, site: Any) -> None:
    value = np.asarray(site["value"]) if site["value"] is not None else np.zeros(())
    bad = ~np.isfinite(value) & np.asarray(data_mask(site["fn"]))
    if bad.any():
        raise ValueError(
            f"find_map: {bad.sum()} of the {value.size} data of {name!r} are NaN or infinite; missing "
            "ones (NaN) can be left out by bilo_ppl.observed."
        )
    fn = innermost(site["fn"])
    for parameter, constraint in fn.arg_constraints.items():
        if constraint is not constraints.positive:
            continue
        scale = np.asarray(getattr(fn, parameter))
        # u is zero here, so that a scale of zero may be one that u gives.
        if not (scale >= 0).all():
            raise ValueError(
                f"find_map: {type(fn).__name__} of {name!r} has {parameter} = {scale.min():g}; it "
                "must be positive."
            )

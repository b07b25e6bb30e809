"""Sample sites with data: one whose missing data are left out, and which data of a site count."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from jax.core import Tracer
from numpyro.distributions import (
    CategoricalLogits,
    CategoricalProbs,
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    Unit,
    constraints,
)

from bilo_ppl.ppl.look import ModelLook

__all__ = ["check_missing", "data_kind", "data_mask", "innermost", "is_data", "observed"]

_WRAPPERS = (ExpandedDistribution, Independent, MaskedDistribution)


def observed(name: str, distribution: Distribution, y: Any = None) -> Any:
    """A sample site ``name`` with data ``y``, of which those that are NaN are missing and do not count.

    ``distribution`` is one of single values, such as ``Normal(mean, sigma)`` with mean and sigma of the
    shape of y, or broadcast to it: a sigma for each component is ``(components,)`` beside a y of
    ``(n, components)``. Without y it is an ordinary latent site, for predictions.

    Raises a ``ValueError`` for a distribution of vectors (``to_event``, ``MultivariateNormal``), of which
    no part can be left out.

    Examples:
        >>> from numpyro.infer.util import log_density
        >>> def noisy(y):
        ...     bilo.observed("y", dist.Normal(jnp.zeros(2), 1.0), y)
        >>> gap = jnp.array([1.0, jnp.nan])
        >>> round(float(log_density(noisy, (gap,), {}, {})[0]), 3)
        -1.419
        >>> round(float(dist.Normal(0.0, 1.0).log_prob(1.0)), 3)
        -1.419
    """
    if y is None:
        return numpyro.sample(name, distribution)
    if distribution.event_dim:
        raise ValueError(
            f"observed({name!r}): {type(distribution).__name__} is a distribution of arrays of shape "
            f"{tuple(distribution.event_shape)}, of which no part can be left out; give one of single "
            "values, without to_event."
        )
    y = jnp.asarray(y, jnp.result_type(float))
    missing = jnp.isnan(y)
    # Nothing depends on it, but what is computed from it must be finite.
    support = distribution.support
    assert support is not None
    instead = support.feasible_like(y)
    value = jnp.where(missing, jnp.broadcast_to(instead, y.shape), y)
    return numpyro.sample(name, distribution.mask(~missing), obs=value)


def innermost(fn: Any) -> Any:
    """The distribution without what expands, masks or joins its entries."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def data_mask(fn: Any) -> Any:
    """Which entries of a value of the distribution count: bools, broadcast against the value."""
    mask: Any = np.ones((), bool)
    while isinstance(fn, _WRAPPERS):
        if isinstance(fn, MaskedDistribution):
            own = fn._mask
            own = own if isinstance(own, Tracer) else np.asarray(own, bool)
            mask = mask & own.reshape(own.shape + (1,) * len(fn.event_shape) * bool(own.ndim))
        fn = fn.base_dist
    return mask


def check_missing(look: ModelLook) -> None:
    """Raise a ``ValueError`` for an observed site with data that are NaN, and are not masked.

    Traced data and masks are not looked at.
    """
    for name, site in look.observed.items():
        value, mask = site["value"], data_mask(site["fn"])
        if isinstance(value, Tracer) or isinstance(mask, Tracer):
            continue
        bad = np.isnan(np.asarray(value, float)) & mask
        if bad.any():
            raise ValueError(
                f"{bad.sum()} of the {bad.size} data of {name!r} are missing (NaN), and would make the "
                f"likelihood NaN. bilo_ppl.observed({name!r}, distribution, y), in the place of "
                "numpyro.sample, leaves them out."
            )


def is_data(site: Any) -> bool:
    """Whether a site has data, and is no factor."""
    return site["is_observed"] and not isinstance(innermost(site["fn"]), Unit)


def data_kind(look: ModelLook) -> str:
    """What the data of a model are: "values" (which a noise is added to), "positive", "fractions" (both
    with a likelihood that has no other), "binary", "counts", "categories", "discrete" for several of the
    last three, "mixed" for other mixtures, or "points" where there are but factors.
    """
    kinds = {_kind(innermost(s["fn"])) for s in look.observed.values() if is_data(s)}
    if not kinds:
        return "points"
    if "values" in kinds:
        return "values"
    if len(kinds) == 1:
        return kinds.pop()
    return "mixed" if kinds & {"positive", "fractions"} else "discrete"


def _kind(fn: Distribution) -> str:
    if not fn.is_discrete:
        positive, fractions = constraints.positive, constraints.unit_interval
        within = fn.support
        return (
            "positive" if within is positive else "fractions" if within is fractions else "values"
        )
    if isinstance(fn, CategoricalLogits | CategoricalProbs):
        return "categories"
    return "binary" if fn.support is constraints.boolean else "counts"

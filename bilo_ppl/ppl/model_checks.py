"""What is wrong with a model in ways that sampling would not show: shapes that do not belong together.

And what would show as an error deep inside of a solver: a solution that is mapped over thetas.

NumPyro broadcasts data against a likelihood of another shape, and samples whatever comes out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import ImproperUniform, Normal, Unit, constraints

from bilo_ppl._pages import see
from bilo_ppl._types import Theta
from bilo_ppl.ppl.data_sites import check_missing, innermost, is_data
from bilo_ppl.ppl.effect import check_entries
from bilo_ppl.ppl.handlers import given_solution, zero_solution
from bilo_ppl.ppl.look import ModelLook, look_at
from bilo_ppl.ppl.unknowns import SquaredPenalty

__all__ = [
    "check_latent",
    "check_likelihood",
    "check_model",
    "check_noise",
    "check_parameters",
    "check_priors",
    "check_shapes",
    "check_solutions",
    "check_within",
]

LEAST_NOISE = 1e-8
"""Noise, relative to the size of the data, that no solver could do justice to."""


def check_model(model: Callable, *model_args: Any, **model_kwargs: Any) -> None:
    """Check a NumPyro model with its data, before it is sampled; nothing is solved.

    Raises a ``ValueError`` if a likelihood has not the shape of its data, or there is none, or its data
    are NaN where they count, or the noise is nothing next to them; for a ``solution`` inside of a
    ``jax.vmap``, with an entry of theta of another shape than the operator's, or asked for outside of the
    domain; and for a discrete unknown.

    Examples:
        >>> bilo.check_model(model, exact, x, y)  # says nothing: all is well
        >>> bilo.check_model(model, exact, x, y[:-1])
        Traceback (most recent call last):
            ...
        ValueError: the likelihood of 'y' has shape (10,) and its data have shape (9,): ...
    """
    look = look_at(model, model_args, model_kwargs)
    check_solutions(look)
    check_latent(look)
    check_within(look, model, model_args, model_kwargs)
    check_shapes(look)
    check_missing(look)
    check_parameters(look)
    check_noise(look)
    check_likelihood(look)


def check_solutions(look: ModelLook, known: Theta | None = None) -> None:
    """Raise a ``ValueError`` for a solution inside of a ``jax.vmap``, or with entries of other shapes.

    To be called where the model was looked at: what is traced there is no sign of a vmap inside of the
    model. ``known`` is a theta whose shapes are right, for operators that know none.
    """
    outside = type(jnp.zeros(()))
    for name, site in look.solutions.items():
        check_entries(name, site.theta, site.batch, known or {})
        leaves = jax.tree.leaves(dict(site.theta))
        if any(isinstance(leaf, Tracer) and type(leaf) is not outside for leaf in leaves):
            raise ValueError(
                f"the solution {name!r} is inside of a jax.vmap, or another transformation of JAX, in "
                "the model. For several experiments use bilo.solutions(name, operator, thetas). "
                f"{see('Several experiments')}"
            )


def check_latent(look: ModelLook) -> None:
    """Raise a ``ValueError`` for a discrete unknown: a gradient is what samplers and estimates follow."""
    for name, site in look.latent.items():
        support = site["fn"].support
        if support is not None and support.is_discrete:
            raise ValueError(
                f"the unknown {name!r} is discrete ({type(innermost(site['fn'])).__name__}); only "
                "continuous ones can be sampled here. Sum over its values in the likelihood, or make a "
                "model for each of them."
            )


def check_within(
    look: ModelLook, model: Callable, args: tuple, kwargs: Mapping[str, Any] | None = None
) -> None:
    """Raise a ``ValueError`` if a likelihood has a part that was asked for outside of the domain.

    ``look`` is the model as it is; where u is NaN outside, what is computed from that is NaN too.
    """
    fields = {
        name: zero_solution(site.operator.problem, name, np.nan)
        for name, site in look.solutions.items()
    }
    other = look_at(given_solution(model, fields), args, kwargs)
    for name, site in other.observed.items():
        if _nans(site["fn"]) > _nans(look.observed[name]["fn"]):
            domains = ", ".join(str(s.operator.problem.domain) for s in look.solutions.values())
            raise ValueError(
                f"the likelihood of {name!r} asks for the solution at points outside of the domain "
                f"{domains}, where nothing is known of it. Leave these data out, or make the domain "
                "larger."
            )


def _nans(fn: Any) -> int:
    return sum(int(np.isnan(np.asarray(leaf, float)).sum()) for leaf in _numbers(fn))


def _numbers(fn: Any) -> list[Any]:
    leaves = [leaf for leaf in jax.tree.leaves(fn) if not isinstance(leaf, Tracer)]
    return [leaf for leaf in leaves if np.asarray(leaf).dtype.kind == "f"]


def check_parameters(look: ModelLook) -> None:
    """Raise a ``ValueError`` for a distribution whose scale, rate or the like is not positive.

    A likelihood may have one of zero, which u = 0 may give. Traced ones are not looked at.
    """
    for name, site in (look.latent | look.observed).items():
        fn = innermost(site["fn"])
        for parameter, constraint in fn.arg_constraints.items():
            value = getattr(fn, parameter, None)
            if constraint is not constraints.positive or value is None or isinstance(value, Tracer):
                continue
            least = np.asarray(value, float).min(initial=np.inf)
            if not (least >= 0 if site["is_observed"] else least > 0):
                raise ValueError(
                    f"{type(fn).__name__} of {name!r} has {parameter} = {least:g}; it must be positive."
                )


def check_noise(look: ModelLook) -> None:
    """Raise a ``ValueError`` for a normal likelihood whose noise is next to nothing.

    Traced data are not looked at.
    """
    for name, site in look.observed.items():
        fn = innermost(site["fn"])
        if not isinstance(fn, Normal) or any(
            isinstance(v, Tracer) for v in (fn.scale, site["value"])
        ):
            continue
        value = np.abs(np.asarray(site["value"], float))
        scale = np.asarray(fn.scale, float)
        size = np.nanmax(value, initial=0.0)
        if 0 < scale.min(initial=np.inf) < LEAST_NOISE * size:
            raise ValueError(
                f"the noise of {name!r} is {scale.min():.3g} where its data are up to {size:.3g}: no "
                f"solution is right to less than {LEAST_NOISE:g} of its size. Give the sd with "
                "errors of the model included."
            )


def check_priors(look: ModelLook) -> None:
    """Raise a ``ValueError`` for an improper prior of more unknowns than there are data.

    A posterior cannot be had from these; of a few parameters with flat priors it may.
    """
    data = sum(np.size(site["value"]) for site in look.observed.values() if is_data(site))
    for name, site in look.latent.items():
        size = int(np.prod(site["fn"].shape()))
        if isinstance(innermost(site["fn"]), ImproperUniform) and size > data:
            raise ValueError(
                f"the {size} unknowns of {name!r} have an improper prior, and there are {data} data: "
                "no posterior to sample. Take bilo-ppl map or a proper prior: "
                "unknown_function(..., prior_sd=1.0)."
            )


def check_shapes(look: ModelLook) -> None:
    """Raise a ``ValueError`` for an observed site whose distribution is larger than its data.

    A single number may be the datum of many entries, such as the 0 of a boundary condition.
    """
    for name, site in look.observed.items():
        data = np.shape(site["value"])
        if isinstance(innermost(site["fn"]), Unit) or data == ():
            continue
        shape = tuple(site["fn"].batch_shape) + tuple(site["fn"].event_shape)
        if _together(shape, data) != data:
            raise ValueError(
                f"the likelihood of {name!r} has shape {shape} and its data have shape {data}: "
                "every datum would count several times. Give mean, sigma and data the same shape. "
                f"{see('Shapes of a likelihood')}"
            )


def check_likelihood(look: ModelLook, data: Any = None) -> None:
    """Raise a ``ValueError`` for a model that no data enter: only priors and penalties of fields.

    With ``data``, also where they seem to be drawn: a latent site has their shape, and no observed one.
    """
    shapes = {
        name: np.shape(site["value"])
        for name, site in look.observed.items()
        if not isinstance(innermost(site["fn"]), Unit)
    }
    factors = [
        name
        for name, site in look.observed.items()
        if name not in shapes and not isinstance(innermost(site["fn"]), SquaredPenalty)
    ]
    wanted = np.shape(data)
    drawn = [name for name, site in look.latent.items() if np.shape(site["value"]) == wanted != ()]
    absent = drawn and wanted not in shapes.values()
    if not factors and (not shapes or absent):
        raise ValueError(
            f"the model has no likelihood: none of its sites {[*look.latent, *shapes]} holds the data, "
            "and there is no factor. Did it forget obs=y?"
        )


def _together(shape: tuple[int, ...], data: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of their log densities; None if they do not fit."""
    try:
        return np.broadcast_shapes(shape, data)
    except ValueError:
        return None

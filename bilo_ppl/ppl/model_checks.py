"""What is wrong with a model in ways that sampling would not show: shapes that do not belong together.

And what would show as an error deep inside of a solver: a solution that is mapped over thetas.

NumPyro broadcasts data against a likelihood of another shape, and samples whatever comes out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import ImproperUniform, Unit

from bilo_ppl._types import Theta
from bilo_ppl.ppl.data_sites import check_missing, innermost, is_data
from bilo_ppl.ppl.effect import check_entries
from bilo_ppl.ppl.look import ModelLook, look_at
from bilo_ppl.ppl.unknowns import SquaredPenalty

__all__ = [
    "check_likelihood",
    "check_model",
    "check_priors",
    "check_shapes",
    "check_solutions",
]


def check_model(model: Callable, *model_args: Any, **model_kwargs: Any) -> None:
    """Check a NumPyro model with its data, before it is sampled; nothing is solved.

    Raises a ``ValueError`` if a likelihood has not the shape of its data, or there is none, or its data
    are NaN where they count, and for a ``solution`` inside of a ``jax.vmap`` or with an entry of theta of
    another shape than the operator's.
    """
    look = look_at(model, model_args, model_kwargs)
    check_solutions(look)
    check_shapes(look)
    check_missing(look)
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
                "the model, where a site can neither keep its state nor report. For several experiments "
                "use us = bilo.solutions(name, operator, thetas), with one axis of experiments in front "
                "of every array; it solves all of them at once."
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
                "there is no posterior to sample. Give a point estimate (bilo-ppl map), or a proper "
                "prior (unknown_function(..., prior_sd=1.0))."
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
                "broadcast against each other, every datum would count several times. A usual cause is "
                "one array of shape (n, 1) among those of shape (n,), such as x[:, None] or a sigma or "
                "y with two axes; give mean, sigma and data the same shape."
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

"""What a point estimate minimises: the samplers' potential energy, with or without the Jacobian."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import LogNormal, Normal, biject_to

from bilo_ppl._types import Rows, Scalar
from bilo_ppl.ppl.data_sites import data_mask, innermost, is_data
from bilo_ppl.ppl.handlers import replace_operator
from bilo_ppl.ppl.potential import PotentialInfo, StatefulPotential
from bilo_ppl.ppl.unknowns import SquaredPenalty

__all__ = ["Evaluation", "Objective", "find_rows"]


class Evaluation(NamedTuple):
    """What one evaluation reports besides U and its gradient."""

    info: PotentialInfo
    """Inner steps, lower-level loss, convergence."""
    terms: dict[str, Scalar]
    """Negative log density of every site: priors, observations, factors."""
    data_loss: Scalar
    """Negative log likelihood: the observed sites, or, if there are none, the factors."""
    values: dict[str, Any]
    """Latent sites, in the space of the model."""


def _constrained(z: Mapping[str, Any], site: Any) -> Any:
    if site["type"] != "sample" or site["is_observed"] or site["name"] not in z:
        return None
    return biject_to(site["fn"].support)(z[site["name"]])


class Objective(eqx.Module):
    """``(z, state) -> (U, (state', evaluation))`` for unconstrained positions z by site.

    U is ``-log p(values, data)``. With ``jacobian`` it is the density of z that is meant, as in the
    samplers: the log determinant of the map from z to the values is added.
    """

    model: Any
    args: tuple
    kwargs: dict[str, Any]
    operators: dict[str, Any]
    """Operators by solution site, in the place of those that the model names."""
    jacobian: bool

    def __call__(self, z: Any, state: Any) -> tuple[Scalar, tuple[Any, Evaluation]]:
        """U at z with solves from ``state``; solves that miss their tolerance stand."""
        (energy, _), aux = self.with_rows(z, state)
        return energy, aux

    def with_rows(self, z: Any, state: Any) -> tuple[tuple[Scalar, Rows], tuple[Any, Evaluation]]:
        """U and the least-squares rows of data and priors.

        U is half the squared norm of these rows and of those of the `penalties`, and terms without rows.
        """
        sites, energy, state, info = self._traced(z, state)
        terms = {name: -_log_density(site) for name, site in sites.items()}
        data_loss = sum(terms[name] for name in data_sites(sites))
        values = {name: jnp.asarray(sites[name]["value"]) for name in z}
        parts = [rows for site in sites.values() if (rows := find_rows(site)) is not None]
        rows = jnp.concatenate([jnp.zeros(0), *parts])
        found = Evaluation(info, terms, jnp.asarray(data_loss), values)
        return (energy, rows), (state, found)

    def is_gaussian(self, z: Any, state: Any) -> bool:
        """Whether there are data, and all of them have rows."""
        found: list[bool] = []

        def look(z, state):
            sites, *_ = self._traced(z, state)
            found.extend(find_rows(site) is not None for site in sites.values() if is_data(site))

        eqx.filter_eval_shape(look, z, state)
        return bool(found) and all(found)

    def penalties(self, z: Any, state: Any) -> dict[str, tuple[Callable[[Any], Rows], Any]]:
        """The squared penalties at z: by site, their rows as a function of a point, and the points."""
        sites, *_ = self._traced(z, state)
        found = {name: (innermost(site["fn"]), site["scale"]) for name, site in sites.items()}
        return {
            name: (partial(_scaled_row, fn, scale), fn.points)
            for name, (fn, scale) in found.items()
            if isinstance(fn, SquaredPenalty)
        }

    def _traced(self, z: Any, state: Any) -> tuple[dict[str, Any], Scalar, Any, PotentialInfo]:
        """The sample sites of the model at z, U, the state of the operators, and what solving took."""
        tape = handlers.trace(replace_operator(self.model, self.operators))
        model, position = tape, z
        if not self.jacobian:
            # Substituted in the space of the model, a value has no Jacobian.
            model = handlers.substitute(tape, substitute_fn=partial(_constrained, z))
            position = {}
        potential = StatefulPotential(model, self.args, self.kwargs, accept_unconverged=True)
        energy, (state, info) = potential(position, state)
        sites = {n: s for n, s in tape.trace.items() if s["type"] == "sample"}
        return sites, energy, state, info


def data_sites(sites: Mapping[str, Any]) -> list[str]:
    """Observed sites that are no factors; where there are none, the factors."""
    observed = [name for name, site in sites.items() if site["is_observed"]]
    return [name for name in observed if is_data(sites[name])] or observed


def _log_density(site: Any) -> Scalar:
    log_prob = site["fn"].log_prob(site["value"])
    return jnp.sum(log_prob if site["scale"] is None else site["scale"] * log_prob)


def find_rows(site: Any) -> Rows | None:
    """Rows r of a site whose negative log density is ``|r|^2 / 2``, but for a term without the PDE.

    Those of normal and log-normal densities, zero where they are masked; None for any other.
    """
    fn, value = innermost(site["fn"]), site["value"]
    if isinstance(fn, LogNormal):
        rows = (jnp.log(value) - fn.loc) / fn.scale
    elif isinstance(fn, Normal):
        rows = (value - fn.loc) / fn.scale
    else:
        return None
    return _scale(site["scale"]) * jnp.ravel(jnp.where(data_mask(site["fn"]), rows, 0))


def _scaled_row(fn: SquaredPenalty, scale: Any, x: Any) -> Rows:
    return _scale(scale) * fn.row(x)


def _scale(of_density: Any) -> Any:
    """The factor of rows that goes with a factor of a log density, as from `numpyro.handlers.scale`."""
    return 1.0 if of_density is None else jnp.sqrt(of_density)

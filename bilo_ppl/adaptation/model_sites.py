"""A model's solution sites, grouped by the operator they share, and its unconstrained space."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.infer.util import constrain_fn, unconstrain_fn

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Theta
from bilo_ppl.estimate.first_guess import find_start
from bilo_ppl.estimate.laplace_approximation import entries_of
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.experiments import each_theta
from bilo_ppl.ppl.handlers import replace_operator, without_solving
from bilo_ppl.ppl.look import ModelLook, look_at

__all__ = ["ModelSites", "find_sites"]


class _WithOperators(eqx.Module):
    """A model with operators by solution site: a pytree, so that other weights compile nothing anew."""

    model: Callable
    operators: dict[str, AbstractSolutionOperator]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with replace_operator(operators=self.operators):
            return self.model(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class ModelSites:
    """A model with its arguments, and the solution sites that are adapted."""

    model: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    groups: tuple[tuple[str, ...], ...]
    """Names of the solution sites, those of one operator together."""
    unravel: Callable
    """From a flat position ``(dim,)`` to unconstrained values by latent site."""
    names: list[str]
    """Names of the entries of a flat position."""
    least_squares: bool
    """Whether there are data with a normal likelihood, so that Gauss-Newton steps make sense."""
    batches: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    """The number of experiments by solution site; None, or nothing, for a single solution."""

    def by_name(
        self, operators: Sequence[AbstractSolutionOperator]
    ) -> dict[str, AbstractSolutionOperator]:
        """An operator for each group as one for each solution site."""
        pairs = zip(self.groups, operators, strict=True)
        return {name: operator for names, operator in pairs for name in names}

    def with_operators(self, operators: Sequence[AbstractSolutionOperator]) -> Callable:
        """The model with an operator for each group."""
        return _WithOperators(self.model, self.by_name(operators))

    def values(self, position: Float[Array, " dim"]) -> dict[str, Any]:
        """Values of the latent sites, in the space of the model; nothing is solved."""
        with without_solving():
            found = constrain_fn(self.model, self.args, dict(self.kwargs), self.unravel(position))
        return {name: found[name] for name in self.unravel(position)}

    def position(self, values: Mapping[str, Any]) -> Float[Array, " dim"]:
        """The flat position of values of the latent sites in the space of the model."""
        with without_solving():
            z = unconstrain_fn(self.model, self.args, dict(self.kwargs), dict(values))
        return ravel_pytree(z)[0]

    def thetas(self, positions: Any, group: int) -> Theta:
        """What the sites of a group are asked at positions ``(n, dim)``: a batch of all of them.

        Nothing is solved.
        """

        def look(position):
            return look_at(self.model, self.args, self.kwargs, values=self.values(position))

        return self.asked(look, jnp.asarray(positions), group)

    def asked(self, look: Callable[[Any], ModelLook], entries: Any, group: int) -> Theta:
        """What the sites of a group are asked in ``look(entry)``: a batch over entries and sites.

        A site of several experiments asks as many thetas.
        """

        def of_one(entry):
            found = look(entry).solutions
            sites = [found[name] for name in self.groups[group]]
            each = [each_theta(site.theta, site.batch) for site in sites]
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *each)

        batch = jit_once(jax.vmap(of_one))(entries)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def find_sites(
    model: Callable, key: Key, args: tuple, kwargs: Mapping[str, Any], site: str | None
) -> tuple[ModelSites, list[AbstractSolutionOperator]]:
    """The solution sites to adapt, all or the one named, and the operator of each group.

    Raises a ``ValueError`` if there are none, or an operator cannot be fitted to thetas.
    """
    operators = look_at(model, args, kwargs, key=key).operators
    if not operators:
        raise ValueError("adapt: the model has no solution(...) site.")
    if site is not None and site not in operators:
        raise ValueError(f"adapt: the model has no solution site {site!r}, only {list(operators)}.")
    chosen = operators if site is None else {site: operators[site]}
    for name, operator in chosen.items():
        if not operator.can_be_fitted:
            raise ValueError(
                f"adapt: the operator of site {name!r} is a {type(operator).__name__}, which has no "
                "weights to adapt, as a FineTuned operator has."
            )
    shared = {id(operator): operator for operator in chosen.values()}
    groups = tuple(
        tuple(name for name, operator in chosen.items() if operator is owner)
        for owner in shared.values()
    )
    start = find_start(model, key, args, kwargs, {})
    _, unravel = ravel_pytree(start.z)
    names = entries_of(start.z)
    sites = ModelSites(
        model, args, kwargs, groups, unravel, names, start.least_squares, start.batches
    )
    return sites, list(shared.values())

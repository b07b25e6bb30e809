"""A model seen without solving: its latent sites, its data, and what each solution is asked.

One run of the model with u = 0 in the place of every solution. No operator is called, so a look costs
nothing next to a solve, and works under jit, vmap and `jax.eval_shape`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpyro
from numpyro import handlers
from numpyro.infer import init_to_uniform

from bilo_ppl._types import Key, Theta
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.effect import TYPE
from bilo_ppl.ppl.handlers import without_solving

__all__ = ["ModelLook", "SolutionSite", "look_at", "site_at"]


class SolutionSite(NamedTuple):
    """What a ``solution(name, operator, theta)``, or ``solutions``, of a model was called with."""

    operator: AbstractSolutionOperator
    theta: Theta
    """Of ``solutions``: with the axis n of experiments in front of every array, functions as they are."""
    batch: int | None = None
    """The number n of experiments; None for a ``solution``."""


@dataclasses.dataclass(frozen=True)
class ModelLook:
    """The sites of a model by name, in the order in which the model runs through them.

    A sample site is NumPyro's message: a dictionary with the distribution ``fn`` (expanded by plates,
    masked), the ``value`` in the space of the model, the ``scale`` of the log density (None: 1) and
    ``infer``. Values and distributions after a solution were computed with u = 0.
    """

    latent: dict[str, Any]
    """Sample sites without data."""
    observed: dict[str, Any]
    """Sample sites with data; factors and penalties are among them."""
    solutions: dict[str, SolutionSite]
    missing: tuple[str, ...]
    """Latent sites that were given no value: it was drawn, or a first guess."""

    @property
    def values(self) -> dict[str, Any]:
        """Values of the latent sites, in the space of the model."""
        return {name: site["value"] for name, site in self.latent.items()}

    @property
    def scalars(self) -> int:
        """How many numbers the latent sites have together."""
        return sum(math.prod(site["fn"].shape()) for site in self.latent.values())

    @property
    def operators(self) -> dict[str, AbstractSolutionOperator]:
        """Operators by solution site."""
        return {name: site.operator for name, site in self.solutions.items()}

    @property
    def batches(self) -> dict[str, int | None]:
        """The number of experiments by solution site, None for a single solution."""
        return {name: site.batch for name, site in self.solutions.items()}

    @property
    def thetas(self) -> dict[str, Theta]:
        """Theta by solution site."""
        return {name: site.theta for name, site in self.solutions.items()}


def look_at(
    model: Callable,
    args: tuple = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    values: Mapping[str, Any] | None = None,
    key: Key | None = None,
    first: Callable[[Any], Any] | None = None,
) -> ModelLook:
    """Run ``model(*args, **kwargs)`` once without solving, and note its sites.

    **Where the value of a latent site comes from**, the first that has one:

    - ``values`` by name, in the space of the model, possibly traced; other names are ignored;
    - ``first``, a function of the site that may return None, such as `numpyro.infer.init_to_median`;
    - a draw from its prior with ``key``, by default ``jax.random.key(0)``; for an improper prior, from
      which nothing can be drawn, a point at random in (-2, 2) of unconstrained space.

    Handlers around the call act on the model as ever. Raises a ``ValueError`` for a name that a
    solution shares with any other site, or that is otherwise used twice.
    """
    given = dict(values or {})

    def choose(site):
        if site["type"] != "sample" or site["is_observed"]:
            return None
        if site["name"] in given:
            return given[site["name"]]
        if site["value"] is not None:
            return None
        chosen = None if first is None else first(site)
        return _draw(site) if chosen is None else chosen

    seeded = handlers.seed(model, jax.random.key(0) if key is None else key)
    tape = _Tape(handlers.substitute(seeded, substitute_fn=choose))
    # u = 0 may be no valid parameter of the likelihood; NumPyro's strategies promote ranks.
    with numpyro.validation_enabled(False), jax.numpy_rank_promotion("allow"):
        tape(*args, **(kwargs or {}))
    samples = {name: site for name, site in tape.sites.items() if site["type"] == "sample"}
    latent = {name: site for name, site in samples.items() if not site["is_observed"]}
    return ModelLook(
        latent=latent,
        observed={name: site for name, site in samples.items() if site["is_observed"]},
        solutions={
            name: SolutionSite(site["args"][0], site["args"][1], site["kwargs"]["batch"])
            for name, site in tape.sites.items()
            if site["type"] == TYPE
        },
        missing=tuple(name for name in latent if name not in given),
    )


def site_at(
    model: Callable, args: tuple, kwargs: Mapping[str, Any], values: Mapping[str, Any], site: str
) -> SolutionSite:
    """A solution site at given values of all latent sites, in the space of the model.

    Raises a ``ValueError`` if the model has no such solution site, or values are missing.
    """
    look = look_at(model, args, kwargs, values=values)
    if site not in look.solutions:
        raise ValueError(
            f"the model has no solution site {site!r}, only {list(look.solutions)}; give one of them."
        )
    if look.missing:
        raise ValueError(
            f"theta of the solution {site!r}: there are no values for the latent sites "
            f"{list(look.missing)}, only for {list(values)}; give one for each."
        )
    return look.solutions[site]


class _Tape(without_solving):
    """Every site of the model by name; solutions are zero."""

    def __init__(self, fn: Callable):
        self.sites: dict[str, Any] = {}
        super().__init__(fn)

    def postprocess_message(self, msg: Any) -> None:
        """Note the site, after all handlers have had their say."""
        name = msg.get("name")
        if name is None:
            return
        if name in self.sites:
            _check_names(name, self.sites[name]["type"], msg["type"])
        self.sites[name] = msg


def _check_names(name: str, earlier: str, later: str) -> None:
    """Raise a ``ValueError`` unless two sites of these types may have the same name."""
    if earlier == later == TYPE:
        raise ValueError(f"solution: the name {name!r} is used twice in the model.")
    if TYPE in (earlier, later):
        other = earlier if later == TYPE else later
        raise ValueError(
            f"solution: the name {name!r} is also that of a {other} site of the model, and one would "
            "hide the other; rename one of them."
        )
    # As in NumPyro, a plate may be entered again.
    if later in ("sample", "deterministic"):
        raise ValueError(
            f"the model uses the name {name!r} for two sites ({earlier}, {later}); rename one of them."
        )


def _draw(site: Any) -> Any:
    """A draw from the prior; from an improper one, a random point of unconstrained space."""
    try:
        return site["fn"](*site["args"], **site["kwargs"])
    except NotImplementedError:
        return init_to_uniform(site)

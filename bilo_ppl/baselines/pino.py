"""PINO on one data set: theta and a trained operator's weights together, on data and equation.

    minimise over W and theta   e(u_W(theta), theta) + w misfit / mean v_0^2

with the squared relative error e of `equation_error`, and v_0 = u_0 - lift(., 0) for the operator's u_0
at the first guess, as e is relative to.
The weights begin where `train_pino` has left them (Li, Zheng, Kovachki and others, *ACM/IMS J. Data Sci.*
1, 2024, section 3.3, where the misfit is of the squared relative kind too).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer.util import potential_energy

from bilo_ppl._descent import LAST, descend
from bilo_ppl._types import Key, Points, Theta
from bilo_ppl.baselines.pinn import mean_square_units
from bilo_ppl.estimate.first_guess import Start, find_start
from bilo_ppl.mcmc._numpyro import constrain_fn
from bilo_ppl.numerics.plane.finite_volumes import FiniteVolumes
from bilo_ppl.ppl.handlers import replace_operator
from bilo_ppl.ppl.look import site_at
from bilo_ppl.surrogates.fno import FNO
from bilo_ppl.surrogates.pino import equation_error, on_grid
from bilo_ppl.surrogates.surrogate import Surrogate

__all__ = ["PINO", "fit_pino"]

RATES = {"z": 1e-2, "weights": 1e-4}
"""First steps of Adam: weights that know the equation at other thetas are moved a little."""


@dataclasses.dataclass(frozen=True)
class PINO:
    """A theta, and the operator that was tuned to it.

    >>> sorted(found.values), sorted(found.theta)  # of the example before
    (['A'], ['A'])
    >>> found.equation_error > 0, found.history.shape
    (True, (10,))
    """

    values: Mapping[str, Any]
    """Latent sites, in the space of the model."""
    theta: Theta
    """Of the solution site, at these values."""
    surrogate: Surrogate
    """The operator at its last weights; right near ``theta``, if anywhere."""
    equation_error: float
    """`bilo_ppl.surrogates.equation_error` of its solution at ``theta``, a squared relative error."""
    misfit: float
    """What stands beside it, without the data weight, in units of u^2 and up to a constant: of Gaussian
    data the mean squared misfit, and what priors and penalties add."""
    history: np.ndarray
    """The objective at every step."""

    def solution(self, points: Points) -> Any:
        """Values of the operator's u at points ``(n, d)``."""
        return np.asarray(jax.vmap(self.surrogate.field(self.theta))(jnp.asarray(points)))


def fit_pino(
    model: Callable,
    key: Key,
    *model_args: Any,
    scheme: FiniteVolumes,
    steps: int,
    data_weight: float | int = 1.0,
    smoothed: bool = True,
    optimizer: optax.GradientTransformation | None = None,
    init: Mapping[str, Any] | None = None,
    progress: bool = True,
    **model_kwargs: Any,
) -> PINO:
    """Find the latent sites of a model whose operator is trained, and go on training it there.

    The model has one solution, and the operator among its arguments is the surrogate of `train_pino`.
    The misfit is U / N, as in `fit_pinn`: for Gaussian data the mean squared one, weighted by
    1 / sigma^2, and with what priors and penalties add.

    **Arguments**

    - ``scheme``: what the operator was trained with, or any on its grid.
    - ``data_weight``: w. With 1 a relative error of u counts as much by the equation as by the data.
    - ``smoothed``: of `equation_error`.
    - ``optimizer``: of a mapping with the entries ``z``, unconstrained values by latent site, and
      ``weights``; by default Adam with first steps of 1e-2 and 1e-4, which fall to a hundredth.
    - ``init``: first values of latent sites; the others start as in `find_map`.

    Raises a ``ValueError`` for a model of several solutions, an operator that is no `Surrogate` with an
    `FNO` on the nodes of ``scheme``, and as `find_map` does.

    >>> from bilo_ppl.baselines import fit_pino
    >>> def seen(operator, x, y=None):
    ...     A = numpyro.sample("A", dist.LogNormal(0.5, 0.5))
    ...     u = bilo.solution("u", operator, {"A": A})
    ...     numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.001), obs=y)
    >>> options = {"scheme": scheme, "steps": 10, "progress": False}
    >>> found = fit_pino(seen, key, flow.surrogate, nodes, flows.values[4, :, 0], **options)
    >>> found.solution(nodes).shape
    (81,)
    """
    if not data_weight > 0 or steps < 1:
        raise ValueError(
            f"fit_pino: data_weight is {data_weight}, steps is {steps}; give a positive weight and at "
            "least one step."
        )
    start = find_start(model, key, model_args, model_kwargs, init or {})
    site, surrogate = _trained(start, scheme)
    weights, static = eqx.partition(surrogate.network, eqx.is_inexact_array)
    units = mean_square_units(model, model_args, model_kwargs)
    first = start.thetas[site]
    grid = jnp.asarray(scheme.problem.domain.grid(*(n + 1 for n in scheme.cells)))
    nothing = jnp.zeros((), grid.dtype)
    at_zero = jax.vmap(lambda x: scheme.problem.lift(x, nothing, first))(grid)
    size = float(jnp.mean((on_grid(surrogate, first).ravel() - at_zero) ** 2))

    def tuned(weights):
        return eqx.tree_at(lambda s: s.network, surrogate, eqx.combine(weights, static))

    def values_and_theta(z):
        values = constrain_fn(model, model_args, model_kwargs, z)
        return values, site_at(model, model_args, model_kwargs, values, site).theta

    def parts(unknowns):
        operator, theta = tuned(unknowns["weights"]), values_and_theta(unknowns["z"])[1]
        behind = replace_operator(model, {site: operator})
        energy = potential_energy(behind, model_args, model_kwargs, unknowns["z"])
        error = equation_error(scheme, theta, on_grid(operator, theta), smoothed=smoothed)
        return error, energy / units

    def objective(unknowns, step):
        error, misfit = parts(unknowns)
        return (error + data_weight * misfit / size).astype(jnp.result_type(float))

    unknowns, history = descend(
        objective,
        {"z": start.z, "weights": weights},
        steps,
        _adam(steps) if optimizer is None else optimizer,
        "PINO",
        progress,
    )
    error, misfit = map(float, jax.jit(parts)(unknowns))
    values, theta = values_and_theta(unknowns["z"])
    return PINO(values, theta, tuned(unknowns["weights"]), error, misfit, history)


def _adam(steps: int) -> optax.GradientTransformation:
    rules: Any = {
        name: optax.adam(optax.cosine_decay_schedule(rate, steps, LAST))
        for name, rate in RATES.items()
    }
    return optax.partition(rules, {name: name for name in rules})


def _trained(start: Start, scheme: FiniteVolumes) -> tuple[str, Surrogate]:
    """The solution site and its operator; a ``ValueError`` where that is no FNO on the scheme's nodes."""
    if len(start.operators) != 1 or start.batches != dict.fromkeys(start.operators):
        raise ValueError(
            f"fit_pino: the model has the solution sites {list(start.operators)}, for "
            f"{list(start.batches.values())} experiments; it can have a single solution only."
        )
    ((site, operator),) = start.operators.items()
    if not (isinstance(operator, Surrogate) and isinstance(operator.network, FNO)):
        raise ValueError(
            f"fit_pino: the operator of {site!r} is a {type(operator).__name__}; give the surrogate "
            "of train_pino, or of train_fno."
        )
    nodes = tuple(n + 1 for n in scheme.cells)
    if operator.network.shape != nodes:
        raise ValueError(
            f"fit_pino: the operator's grid has {operator.network.shape} points and the scheme {nodes} "
            "nodes; they must be the same."
        )
    return site, operator

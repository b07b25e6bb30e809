"""The model run again at given draws, in one vectorised pass: reports of its solves, or u.

The solves are pure: each starts from the operator's stored state, whatever the chain carried along.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from bilo_ppl._compile import jit_for
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.ppl.effect import TYPE
from bilo_ppl.ppl.experiments import values_at
from bilo_ppl.ppl.handlers import warm_start
from bilo_ppl.ppl.look import look_at

__all__ = [
    "Replay",
    "inner_statistics",
    "map_draws",
    "map_spaced",
    "side_by_side",
    "solution_draws",
]

SIDE_BY_SIDE = 16
"""Draws that are solved at once, unless an operator is better off one by one."""


def side_by_side(operators: Iterable[AbstractSolutionOperator]) -> int:
    """How many draws are best solved at once: one, where all would take the steps that one needs."""
    return 1 if any(operator.is_dear for operator in operators) else SIDE_BY_SIDE


def inner_statistics(
    model: Callable,
    samples: Mapping[str, Any],
    /,
    *model_args: Any,
    batch_ndims: int = 2,
    batch_size: int = SIDE_BY_SIDE,
    **model_kwargs: Any,
) -> dict[str, SolveInfo]:
    """What the pure solves report at every draw: steps, loss and converged, by solution site.

    ``samples`` are constrained values by site name with ``batch_ndims`` leading axes, by default
    ``(chains, draws)`` as in ``mcmc.get_samples(group_by_chain=True)``; the arrays of each
    `SolveInfo` have the shape of those axes. ``batch_size`` draws are solved side by side, and each
    batch takes as long as its slowest solve. Raises a ``ValueError`` if the samples lack a site
    that the solution needs or disagree in their leading axes, or if the model has no solution site.

    Examples:
        >>> infos = bilo.inner_statistics(model, {"r": draws["r"][:, :3]}, exact, x, y)
        >>> infos["u"].steps.shape, bool(infos["u"].converged.all())
        ((2, 3), True)
    """

    def infos(sample):
        handler = Replay(samples)
        handler.run(model, sample, model_args, model_kwargs)
        return handler.infos

    return map_draws(infos, samples, batch_ndims, batch_size)


def solution_draws(
    model: Callable,
    samples: Mapping[str, Any],
    points: Any,
    /,
    *model_args: Any,
    site: str | None = None,
    max_draws: int = 200,
    accept_unconverged: bool = False,
    batch_ndims: int = 2,
    batch_size: int | None = None,
    **model_kwargs: Any,
) -> np.ndarray:
    """The solution at ``points (n, d)`` for evenly spaced draws.

    Shape ``(draws, n)``, or ``(draws, n, components)`` for a system; of ``solutions``, with the axis of
    experiments after that of draws.
    ``samples`` as for `inner_statistics`; all leading axes are joined, and at most ``max_draws``
    draws are kept. ``site`` names the solution if the model has several. A draw whose pure solve
    misses its tolerance gives NaN, unless ``accept_unconverged``. ``batch_size`` draws are solved side by
    side: by default 16, or one where an operator is better off so. Raises a ``ValueError`` for
    points that are not ``(n, d)`` or lie outside the domain, and where `inner_statistics` does.

    Examples:
        >>> points = problem.domain.grid(5)
        >>> u_draws = bilo.solution_draws(model, draws, points, exact, x, y, max_draws=50)
        >>> u_draws.shape, bool((u_draws[:, 0] > 0.999).all())  # u(0) = 1
        ((50, 5), True)
    """
    if max_draws < 1:
        raise ValueError(f"solution_draws: max_draws must be at least 1, got {max_draws}.")
    points = np.asarray(points)
    if batch_size is None:
        batch_size = side_by_side(look_at(model, model_args, model_kwargs).operators.values())

    def values(sample):
        handler = Replay(samples, accept_unconverged)
        handler.run(model, sample, model_args, model_kwargs)
        solved = handler.solved[_only(handler.solved, site)]
        _check_points(points, solved.domain)
        return values_at(solved.field, jnp.asarray(points))

    return map_spaced(values, samples, max_draws, batch_ndims, batch_size)


class _Solution:
    """Field of one solution site, and the domain on which it is defined."""

    def __init__(self, field: Any, domain: Any):
        self.field, self.domain = field, domain


class Replay(warm_start):
    """Solve without a given state, keep fields and reports, and refuse draws made up on the way."""

    def __init__(self, samples: Mapping[str, Any], accept_unconverged: bool = False):
        super().__init__(accept_unconverged=accept_unconverged)
        self.names = tuple(samples)
        self.drawn: list[str] = []
        self.solved: dict[str, _Solution] = {}

    def run(self, model: Callable, sample: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Run the model at one draw."""
        # Sites after the solution, such as predicted data, may be drawn: they change no solve.
        seeded = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=sample)
        with self:
            seeded(*args, **kwargs)
        if not self.solved:
            raise ValueError("the model has no solution(...) site: there is no solve to look at.")

    def process_message(self, msg: Any) -> None:
        """Note sites without a value; at a solution there must be none."""
        super().process_message(msg)
        if msg["type"] == "sample" and not msg["is_observed"] and msg["name"] not in self.names:
            self.drawn.append(msg["name"])
        if msg["type"] == TYPE and self.drawn:
            raise ValueError(
                f"the samples have no values for the sites {self.drawn}, on which solution "
                f"{msg['name']!r} may depend; they have {list(self.names)}."
            )

    def postprocess_message(self, msg: Any) -> None:
        """Keep the field."""
        super().postprocess_message(msg)
        if msg["type"] == TYPE:
            domain = msg["args"][0].problem.domain
            self.solved[msg["name"]] = _Solution(msg["value"].field, domain)


def map_draws(
    function: Callable, samples: Mapping[str, Any], batch_ndims: int, batch_size: int
) -> Any:
    """The function of every draw: arrays with the leading axes of the samples."""
    flat, shape = _flatten(samples, batch_ndims)
    found = _map(function, flat, batch_size)
    return jax.tree.map(lambda leaf: leaf.reshape(shape + leaf.shape[1:]), found)


def map_spaced(
    function: Callable,
    samples: Mapping[str, Any],
    max_draws: int,
    batch_ndims: int,
    batch_size: int,
) -> Any:
    """The function of evenly spaced draws, at most ``max_draws``: arrays with a leading draw axis."""
    flat, shape = _flatten(samples, batch_ndims)
    total = int(np.prod(shape))
    kept = np.unique(np.linspace(0, total - 1, min(max_draws, total)).round().astype(int))
    return _map(function, {name: value[kept] for name, value in flat.items()}, batch_size)


def _map(function: Callable, flat: Mapping[str, Any], batch_size: int) -> Any:
    """The function of every draw, compiled once: NumPy arrays with a leading draw axis."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    count = len(next(iter(flat.values())))
    batch = min(batch_size, count)
    # One by one is not a batch of one: under vmap both sides of a condition are computed.
    together = None if batch == 1 else batch
    mapped = jit_for(count, lambda draws: jax.lax.map(function, draws, batch_size=together))
    return jax.tree.map(np.asarray, mapped(dict(flat)))


def _flatten(samples: Mapping[str, Any], batch_ndims: int) -> tuple[dict[str, Any], tuple]:
    """Samples with their leading axes joined, and the shape of these axes."""
    shapes = {name: np.shape(value)[:batch_ndims] for name, value in samples.items()}
    if len(set(shapes.values())) != 1 or batch_ndims < 1:
        raise ValueError(
            f"samples must be non-empty and agree in their first {batch_ndims} axes, got {shapes}."
        )
    shape = next(iter(shapes.values()))
    if len(shape) < batch_ndims or 0 in shape:
        raise ValueError(
            f"samples need {batch_ndims} leading axes of draws, got {shape}; use "
            "get_samples(group_by_chain=True), or batch_ndims=1 for draws without a chain axis."
        )
    joined = {k: jnp.reshape(v, (-1, *np.shape(v)[batch_ndims:])) for k, v in samples.items()}
    return joined, shape


def _only(solved: Mapping[str, Any], site: str | None) -> str:
    if site is None and len(solved) == 1:
        return next(iter(solved))
    if site is None or site not in solved:
        raise ValueError(f"the model's solutions are {list(solved)}; give one of them as site=...")
    return site


def _check_points(points: np.ndarray, domain: Any) -> None:
    if points.ndim != 2 or points.shape[1] != domain.dimension or not len(points):
        raise ValueError(
            f"solution_draws: points have shape {points.shape}; they must be "
            f"(n, {domain.dimension}), one point a row."
        )
    outside = ~domain.contains(points)
    if outside.any():
        raise ValueError(
            f"solution_draws: {outside.sum()} points lie outside the domain {domain}, the first at "
            f"{points[outside][0]}."
        )

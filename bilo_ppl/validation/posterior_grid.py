"""Exact posteriors of one or two parameters on a grid."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from numpyro.infer.util import log_density

from bilo_ppl._compile import jit_for
from bilo_ppl.ppl.look import look_at

__all__ = ["GridPosterior", "check_grid", "grid_posterior"]

_CHUNK = 128
_EDGE = 1e-6


@dataclasses.dataclass(frozen=True)
class GridPosterior:
    """A posterior density on a grid; marginal densities are linear between the grid points.

    ``name`` is that of a parameter, and a ``ValueError`` where it is none. Values are in the space of the
    model.

    Examples:
        >>> values, density = posterior.marginal("r")  # of the example before
        >>> values.shape, density.shape
        ((181,), (181,))
        >>> posterior.cdf("r", [8.0, 9.0, 10.0]).round(2).tolist()
        [0.01, 0.52, 0.98]
        >>> round(posterior.expectation("r", lambda r: 1 / r), 3)
        0.112
        >>> posterior.sample("r", seed=0, n=5).shape
        (5,)
    """

    names: tuple[str, ...]
    grid: Mapping[str, np.ndarray]
    """Values of each parameter, increasing."""
    density: np.ndarray
    """Joint density at the grid points, one axis a parameter; its trapezoidal integral is 1."""

    def marginal(self, name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Values of one parameter and its marginal density there."""
        if name not in self.names:
            raise ValueError(f"GridPosterior has the parameters {self.names}, not {name!r}.")
        density = np.moveaxis(self.density, self.names.index(name), 0)
        for other in self.names:
            if other != name:
                density = density @ _weights(self.grid[other])
        return self.grid[name], density

    def mean(self, name: str) -> float:
        """Posterior mean."""
        return self.expectation(name, lambda x: x)

    def sd(self, name: str) -> float:
        """Posterior standard deviation."""
        mean = self.mean(name)
        return self.expectation(name, lambda x: (x - mean) ** 2) ** 0.5

    def cdf(self, name: str, values: Any) -> np.ndarray:
        """Marginal distribution function at ``values``, of the same shape."""
        x, density, total = self._cumulative(name)
        values = np.clip(np.asarray(values, dtype=float), x[0], x[-1])
        i = np.clip(np.searchsorted(x, values, side="right") - 1, 0, len(x) - 2)
        t = values - x[i]
        slope = (density[i + 1] - density[i]) / (x[i + 1] - x[i])
        return np.asarray(total[i] + t * (density[i] + t * slope / 2))

    def quantile(self, name: str, probabilities: Any) -> np.ndarray:
        """Inverse of the marginal distribution function."""
        x, density, total = self._cumulative(name)
        q = np.asarray(probabilities, dtype=float)
        i = np.clip(np.searchsorted(total, q, side="left") - 1, 0, len(x) - 2)
        slope = (density[i + 1] - density[i]) / (x[i + 1] - x[i])
        rest = q - total[i]
        root = density[i] + np.sqrt(np.maximum(density[i] ** 2 + 2 * slope * rest, 0))
        t = 2 * rest / np.where(root > 0, root, 1)
        return np.asarray(x[i] + np.clip(t, 0, x[i + 1] - x[i]))

    def sample(self, name: str, seed: int, n: int) -> Float[np.ndarray, " n"]:
        """``n`` independent draws from the marginal, by the inverse distribution function."""
        return self.quantile(name, np.random.default_rng(seed).uniform(size=n))

    def expectation(self, name: str, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Posterior mean of a vectorised function of one parameter."""
        x, density = self.marginal(name)
        return float(np.sum(_weights(x) * density * function(x)))

    def _cumulative(self, name):
        x, density = self.marginal(name)
        mass = np.diff(x) * (density[1:] + density[:-1]) / 2
        total = np.concatenate([[0.0], np.cumsum(mass)])
        return x, density / total[-1], total / total[-1]


def grid_posterior(
    model: Callable, grid: Mapping[str, Any], *model_args: Any, **model_kwargs: Any
) -> GridPosterior:
    """The posterior of a NumPyro model with one or two scalar latent sites, on a grid.

    **Arguments**

    - ``grid``: increasing values, in the constrained space, for every latent site.
    - ``model_args``, ``model_kwargs``: arguments of the model, data included.

    The joint density is evaluated in batches. Grid points at which its logarithm is not finite (no
    PDE solution there, or outside the prior) have no mass. Raises a ``ValueError`` if the sites do
    not fit, nothing is finite, or the density at an edge of the grid is above 1e-6 of its maximum,
    unless the support of the prior ends there.

    Examples:
        >>> posterior = bilo.grid_posterior(model, {"r": np.linspace(5.0, 14.0, 181)}, exact, x, y)
        >>> round(posterior.mean("r"), 2), round(posterior.sd("r"), 2)
        (8.99, 0.46)
        >>> posterior.quantile("r", [0.05, 0.95]).round(1).tolist()
        [8.3, 9.8]
    """
    grid = {name: np.asarray(values, dtype=float) for name, values in grid.items()}
    _check_grid(grid)
    priors = _check_sites(model, grid, model_args, model_kwargs)
    axes = np.meshgrid(*grid.values(), indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=-1)

    def log_joint(point):
        parameters = dict(zip(grid, point, strict=True))
        return log_density(model, model_args, model_kwargs, parameters)[0]

    log = _in_batches(log_joint, points).reshape(axes[0].shape)
    log = np.where(np.isfinite(log), log, -np.inf)
    if np.isneginf(log).all():
        raise ValueError(
            "grid_posterior: the log density is not finite at any grid point; is the grid where "
            "the prior and the PDE solution exist?"
        )
    density = np.exp(log - log.max())
    _check_edges(grid, density, priors)
    total = density
    for values in grid.values():
        total = np.tensordot(_weights(values), total, 1)
    return GridPosterior(tuple(grid), grid, density / total)


def _weights(x: np.ndarray) -> np.ndarray:
    """Weights of the trapezoidal rule."""
    steps = np.concatenate([[0.0], np.diff(x), [0.0]])
    return (steps[1:] + steps[:-1]) / 2


def _in_batches(function: Callable, points: np.ndarray) -> np.ndarray:
    """``function`` at every point, with one compilation: the last batch is filled up."""
    size = min(_CHUNK, len(points))
    batched = jit_for(len(points), jax.vmap(function))
    padded = np.concatenate([points, np.repeat(points[-1:], -len(points) % size, axis=0)])
    values = [np.asarray(batched(part)) for part in padded.reshape(-1, size, points.shape[1])]
    return np.concatenate(values).astype(float)[: len(points)]


def check_grid(model: Callable, grid: Mapping[str, Any], args: tuple, kwargs: Any) -> None:
    """Raise a ``ValueError`` for a grid that `grid_posterior` could not use; nothing is solved."""
    values = {name: np.asarray(axis, dtype=float) for name, axis in grid.items()}
    _check_grid(values)
    _check_sites(model, values, args, kwargs)


def _check_grid(grid: Mapping[str, np.ndarray]) -> None:
    if len(grid) not in (1, 2):
        raise ValueError(
            f"grid_posterior is for one or two parameters, the grid has {len(grid)}: {list(grid)}."
        )
    for name, values in grid.items():
        increasing = values.ndim == 1 and len(values) >= 3 and (np.diff(values) > 0).all()
        if not increasing or not np.isfinite(values).all():
            raise ValueError(
                f"grid_posterior: grid[{name!r}] must be a 1-D array of at least 3 increasing "
                f"values; it has shape {values.shape}."
            )


def _check_sites(model, grid, args, kwargs) -> dict[str, Any]:
    """The prior of each parameter, checked to be all the latent sites; nothing is solved."""
    middle = {name: values[len(values) // 2] for name, values in grid.items()}
    latent = look_at(model, args, kwargs, values=middle).latent
    if set(latent) != set(grid):
        raise ValueError(
            f"grid_posterior: the grid has the names {sorted(grid)}, the latent sites of the model "
            f"are {sorted(latent)}; they must be the same."
        )
    for name, site in latent.items():
        if site["fn"].shape() != ():
            raise ValueError(
                f"grid_posterior: the site {name!r} has shape {site['fn'].shape()}, not a scalar."
            )
    return {name: latent[name]["fn"] for name in grid}


def _check_edges(grid, density: np.ndarray, priors: Mapping[str, Any]) -> None:
    for axis, (name, values) in enumerate(grid.items()):
        for end, neighbour, which in ((0, 1, "lower"), (-1, -2, "upper")):
            beyond = 2 * values[end] - values[neighbour]
            at_edge = np.max(np.take(density, end, axis=axis)) / density.max()
            if at_edge > _EDGE and bool(priors[name].support(beyond)):
                raise ValueError(
                    f"grid_posterior: at the {which} edge {name} = {values[end]:.6g} the density "
                    f"is {at_edge:.2g} of its maximum, above {_EDGE:g}; extend the grid there."
                )

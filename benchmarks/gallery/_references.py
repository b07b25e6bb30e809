"""Posterior moments of the gallery's problems, computed without a network.

``reference_moments(name, seed)`` gives mean and sd of every scalar latent site for the data of a seed,
named as in the table of a run: by algebra where the posterior is Gaussian, else by quadrature. The log
densities are written out here and share nothing with the models but the data and the solution, which is
a formula or a Runge-Kutta method with small steps. Nothing is sampled, so that repeated calls agree.
"""

import dataclasses
import functools
import importlib.util
import math
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

jax.config.update("jax_enable_x64", True)

__all__ = ["CASES", "load", "reference_moments"]

Moments = dict[str, tuple[float, float]]

FOLDER = pathlib.Path(__file__).resolve().parent


@functools.cache
def load(name: str) -> ModuleType:
    """The problem file of a name."""
    spec = importlib.util.spec_from_file_location(f"_gallery_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Equinox looks modules up by name
    spec.loader.exec_module(module)
    return module


def reference_moments(name: str, seed: int) -> Moments:
    """Posterior mean and sd of every scalar unknown of a problem, for the data of a seed."""
    return CASES[name](name, load(name).synthetic_data(seed))


# Priors: a parameter theta = value(z), and the log density of z.


@dataclasses.dataclass(frozen=True)
class Normal:
    """theta = z ~ N(centre, scale^2)."""

    centre: float
    scale: float

    def value(self, z):
        """The parameter."""
        return z

    def log_density(self, z):
        """That of z, less a constant."""
        return -(((z - self.centre) / self.scale) ** 2) / 2


@dataclasses.dataclass(frozen=True)
class LogNormal(Normal):
    """log theta = z ~ N(centre, scale^2)."""

    def value(self, z):
        """The parameter."""
        return np.exp(z)


@dataclasses.dataclass(frozen=True)
class HalfNormal:
    """theta = exp(z) = |w| with w ~ N(0, scale^2)."""

    scale: float

    def value(self, z):
        """The parameter."""
        return np.exp(z)

    def log_density(self, z):
        """That of z, less a constant."""
        return z - (np.exp(z) / self.scale) ** 2 / 2


@dataclasses.dataclass(frozen=True)
class Uniform:
    """theta = z, uniform on [0, 1]."""

    def value(self, z):
        """The parameter."""
        return z

    def log_density(self, z):
        """That of z."""
        return np.where((z > 0) & (z < 1), 0.0, -np.inf)


# Solutions and likelihoods, for many thetas at once.


def solutions(module: ModuleType, x: Any, theta: Mapping[str, np.ndarray]) -> np.ndarray:
    """u at the points, for parameters ``(m,)`` each: ``(m, n)`` or ``(m, n, components)``."""
    return _solver(module.__name__, np.shape(x)[0])(jnp.asarray(x), dict(theta))


@functools.cache
def _solver(module_name: str, points: int) -> Callable:
    module = sys.modules[module_name]

    def at(x, theta):
        if hasattr(module, "closed_form"):
            return jax.vmap(lambda p: module.closed_form(p, theta))(x)
        return jax.vmap(module.reference().solve(theta, ())[0])(x)

    batched = jax.jit(lambda x, theta: jax.lax.map(lambda th: at(x, th), theta, batch_size=256))
    return lambda x, theta: np.asarray(batched(x, theta))


def gaussian(u: np.ndarray, data: Mapping[str, Any], theta: Mapping[str, Any]) -> np.ndarray:
    """Log likelihood ``(m,)`` of independent noise of the sd in the data."""
    misfit = (u - data["y"]) / data["sigma"]
    return -(misfit.reshape(len(u), -1) ** 2).sum(axis=1) / 2


def infected(u: np.ndarray, data: Mapping[str, Any], theta: Mapping[str, Any]) -> np.ndarray:
    """The same for the second component only."""
    return gaussian(u[:, :, 1], data, theta)


def of_blood(u: np.ndarray, data: Mapping[str, Any], theta: Mapping[str, Any]) -> np.ndarray:
    """The same for the first component only."""
    return gaussian(u[:, :, 0], data, theta)


def of_unknown_noise(
    u: np.ndarray, data: Mapping[str, Any], theta: Mapping[str, Any]
) -> np.ndarray:
    """The same with the sd among the parameters."""
    squares = ((u - data["y"]) ** 2).sum(axis=1)
    return -u.shape[1] * np.log(theta["noise"]) - squares / (2 * theta["noise"] ** 2)


# Quadrature.

_NEGLIGIBLE = 1e-9
_ACCURACY = 1e-3  # in posterior sd, or relative to it
_BLOCK = 50_000


@dataclasses.dataclass(frozen=True)
class OnAdaptedGrid:
    """One mode and up to four parameters: the trapezoidal rule on a grid along the posterior's axes.

    The axes are those of mean and covariance in z, found by the rule itself from a Laplace
    approximation; then the box is cut or stretched on each side to where the density is 1e-9 of its
    maximum, and the rule refined until it stands still. Near a Gaussian, steps of half an sd are exact
    to many digits.
    """

    priors: Mapping[str, Any]
    likelihood: Callable = gaussian

    def __call__(self, name: str, data: Mapping[str, Any]) -> Moments:
        """The moments for data."""
        module = load(name)
        posterior = functools.partial(self._log_density, module, data)
        box = _Box.about(posterior, np.array([self._z(n, module.truth[n]) for n in self.priors]))
        earlier = None
        while box.count ** len(self.priors) < 4e6:
            z, weights = box.points(), box.weights(posterior)
            moments = {
                n: _moments(prior.value(z[:, i]), weights)
                for i, (n, prior) in enumerate(self.priors.items())
            }
            if earlier is not None and _largest_change(earlier, moments) < _ACCURACY:
                return moments
            earlier, box = moments, dataclasses.replace(box, count=box.count * 3 // 2)
        raise ValueError(f"{name}: {box.count} points along an axis are too few.")

    def _log_density(
        self, module: ModuleType, data: Mapping[str, Any], z: np.ndarray
    ) -> np.ndarray:
        """For z of shape (m, d): (m,)."""
        theta = {n: prior.value(z[:, i]) for i, (n, prior) in enumerate(self.priors.items())}
        u = solutions(module, data["x"], {n: theta[n] for n in module.problem.parameters})
        log = self.likelihood(u, data, theta)
        log = log + sum(prior.log_density(z[:, i]) for i, prior in enumerate(self.priors.values()))
        return np.where(np.isfinite(log), log, -np.inf)

    def _z(self, name: str, value: float) -> float:
        positive = isinstance(self.priors[name], (LogNormal, HalfNormal))
        return math.log(value) if positive else float(value)


@dataclasses.dataclass(frozen=True)
class _Box:
    """A grid of ``count`` points along each axis, between ``low`` and ``high`` in posterior sd."""

    mean: np.ndarray
    covariance: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: int

    @classmethod
    def about(cls, log_density: Callable, guess: np.ndarray) -> "_Box":
        """Where the posterior of ``log_density`` is, found from a guess of its mode."""
        mode = minimize(lambda z: -log_density(z[None])[0], guess, method="Nelder-Mead").x
        reach = np.full(len(mode), 6.0)
        count = {1: 201, 2: 61, 3: 31, 4: 15}[len(mode)]
        box = cls(mode, np.linalg.inv(_hessian(log_density, mode)), -reach, reach, count)
        for _ in range(3):
            z, weights = box.points(), box.weights(log_density)
            mean = weights @ z / weights.sum()
            covariance = (z - mean).T * weights @ (z - mean) / weights.sum()
            box = dataclasses.replace(box, mean=mean, covariance=covariance)
        for _ in range(20):
            inside = box.inner()[box.weights(log_density) > _NEGLIGIBLE]
            first, last = inside.min(axis=0), inside.max(axis=0)
            cell = (box.high - box.low) / (count - 1)
            if (first > box.low + cell / 2).all() and (last < box.high - cell / 2).all():
                return dataclasses.replace(box, low=first - cell, high=last + cell)
            wider = {"low": 1.5 * first - 0.5 * last, "high": 1.5 * last - 0.5 * first}
            box = dataclasses.replace(box, **wider)
        raise ValueError("no box holds the posterior.")

    def inner(self) -> np.ndarray:
        """The points in posterior sd, ``(m, d)``."""
        axes = [np.linspace(a, b, self.count) for a, b in zip(self.low, self.high, strict=True)]
        return np.stack([a.ravel() for a in np.meshgrid(*axes)], axis=-1)

    def points(self) -> np.ndarray:
        """The points in z, ``(m, d)``."""
        return self.mean + self.inner() @ np.linalg.cholesky(self.covariance).T

    def weights(self, log_density: Callable) -> np.ndarray:
        """The density at the points; its largest value is 1."""
        z = self.points()
        log = np.concatenate([log_density(z[i : i + _BLOCK]) for i in range(0, len(z), _BLOCK)])
        return np.exp(log - log.max())


def _hessian(log_density: Callable, z: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Of the negative log density, by central differences."""
    steps = step * np.eye(len(z))
    signs = [(a, b) for a in (1, -1) for b in (1, -1)]

    def entry(s, t):
        points = np.stack([z + a * s + b * t for a, b in signs])
        return -np.array([a * b for a, b in signs]) @ log_density(points) / (4 * step**2)

    return np.array([[entry(s, t) for t in steps] for s in steps])


def _largest_change(first: Moments, second: Moments) -> float:
    changes = [
        max(abs(first[n][0] - mean) / sd, abs(first[n][1] / sd - 1))
        for n, (mean, sd) in second.items()
    ]
    return max(changes)


@dataclasses.dataclass(frozen=True)
class OnFixedGrid:
    """One parameter with several modes: the trapezoidal rule between two ends."""

    name: str
    prior: Any
    ends: tuple[float, float]

    def __call__(self, name: str, data: Mapping[str, Any]) -> Moments:
        """The moments for data."""
        z = np.linspace(*self.ends, 20001)
        theta = {self.name: self.prior.value(z)}
        log = gaussian(solutions(load(name), data["x"], theta), data, theta)
        log = log + self.prior.log_density(z)
        return {self.name: _moments(theta[self.name], np.exp(log - log.max()))}


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    mean = float(weights @ values / weights.sum())
    return mean, float(np.sqrt(weights @ (values - mean) ** 2 / weights.sum()))


# Algebra.


def _linear_gaussian(site: str, columns: Callable[[np.ndarray], np.ndarray], prior_sd: float):
    """Moments for y = columns(x) b + noise with b ~ N(0, prior_sd^2)."""

    def moments(name: str, data: Mapping[str, Any]) -> Moments:
        matrix = columns(np.asarray(data["x"])) / data["sigma"]
        precision = matrix.T @ matrix + np.eye(matrix.shape[1]) / prior_sd**2
        covariance = np.linalg.inv(precision)
        mean = covariance @ matrix.T @ (data["y"] / data["sigma"])
        sd = np.sqrt(np.diag(covariance))
        return {f"{site}[{i}]": (float(mean[i]), float(sd[i])) for i in range(len(mean))}

    return moments


def _of_source(x: np.ndarray) -> np.ndarray:
    j = np.arange(1, 6)
    return np.sin(np.pi * j * x) / (np.pi * j) ** 2


def _of_initial_value(x: np.ndarray) -> np.ndarray:
    k = np.pi * np.arange(1, 21)
    return np.sqrt(2) / k * np.sin(k * x[:, :1]) * np.exp(-0.01 * k**2 * x[:, 1:])


# The hierarchies: given mu and tau the rates are independent.


def _hierarchy(name: str, data: Mapping[str, Any], rates: bool = True) -> Moments:
    """Sums over log k of each patient inside, over mu and log tau outside."""
    patients = data["y"].shape[1]
    log_k = np.linspace(-4.0, 2.5, 6501)
    k, cell = np.exp(log_k), log_k[1] - log_k[0]
    u = solutions(load(name), data["x"], {"k": k})
    columns = [gaussian(u, {**data, "y": data["y"][:, i]}, {}) for i in range(patients)]
    likelihoods = np.stack([np.exp(log - log.max()) for log in columns])
    mu, log_tau = np.linspace(-5.0, 3.0, 161), np.linspace(np.log(0.005), np.log(4.0), 241)
    prior = Normal(-1.0, 1.0).log_density(mu)[:, None] + HalfNormal(0.5).log_density(log_tau)
    # Powers 0, 1, 2 of k: (powers, patients, mu, tau).
    powers = np.stack([k**0, k, k**2])
    integrals = np.empty((3, patients, len(mu), len(log_tau)))
    weighted = powers[:, None] * likelihoods * cell
    for j, tau in enumerate(np.exp(log_tau)):
        density = np.exp(-(((log_k - mu[:, None]) / tau) ** 2) / 2) / tau
        integrals[:, :, :, j] = np.einsum("pik,mk->pim", weighted, density)
    weights = np.exp(prior) * integrals[0].prod(axis=0)
    total = weights.sum()
    moments = {
        "mu": _moments(mu, weights.sum(axis=1)),
        "tau": _moments(np.exp(log_tau), weights.sum(axis=0)),
    }
    for i in range(patients if rates else 0):
        ratios = integrals[1:, i] / np.maximum(integrals[0, i], 1e-300)
        mean, square = ((weights * ratio).sum() / total for ratio in ratios)
        moments[f"k{i + 1}"] = (float(mean), float(np.sqrt(square - mean**2)))
    return moments


CASES: dict[str, Callable[[str, Mapping[str, Any]], Moments]] = {
    "advection_diffusion": OnAdaptedGrid({"c": LogNormal(-0.5, 0.7), "D": LogNormal(-3.0, 0.7)}),
    "beam": OnAdaptedGrid({"S": LogNormal(1.0, 1.0), "P": LogNormal(-2.0, 1.0)}),
    "boundary_layer": OnAdaptedGrid(
        {"eps": LogNormal(math.log(0.02), 0.7), "k": LogNormal(math.log(0.001), 0.7)}
    ),
    "brusselator": OnAdaptedGrid({"B": LogNormal(-1.0, 1.5), "D": LogNormal(-1.0, 1.5)}),
    "compartments": OnAdaptedGrid({name: LogNormal(-1.0, 1.0) for name in "eio"}, of_blood),
    "conductivity": OnAdaptedGrid({"b": LogNormal(0.0, 1.0), "q": LogNormal(1.0, 1.0)}),
    "cooling": OnAdaptedGrid(
        {"k": LogNormal(-2.5, 1.0), "A": Normal(25.0, 10.0), "noise": HalfNormal(5.0)},
        of_unknown_noise,
    ),
    "damped_wave": OnAdaptedGrid({"c": LogNormal(0.0, 0.5), "d": LogNormal(0.0, 1.0)}),
    "cube": OnAdaptedGrid({"k": LogNormal(0.0, 0.5), "c": LogNormal(2.0, 1.0)}),
    "diffusion": OnAdaptedGrid({"D": LogNormal(-1.0, 1.0)}),
    "drift": OnAdaptedGrid(
        {"k": LogNormal(0.0, 0.7), "m": Normal(0.0, 1.0), "D": LogNormal(-1.0, 0.7)}
    ),
    "dupuit": OnAdaptedGrid({"r": LogNormal(-1.0, 1.0), "a": Normal(1.0, 0.5)}),
    "fin": OnAdaptedGrid({"h": LogNormal(4.0, 1.0), "T": Normal(60.0, 20.0)}),
    "heater": OnAdaptedGrid(
        {"q": LogNormal(3.0, 0.5), "a": Normal(0.5, 0.2), "b": Normal(0.5, 0.2)}
    ),
    "heat_coefficients": _linear_gaussian("a", _of_initial_value, 1.0),
    "hierarchy": _hierarchy,
    "infiltration": OnAdaptedGrid({"b": LogNormal(0.5, 1.0), "q": Uniform()}),
    "logistic": OnAdaptedGrid({"r": LogNormal(0.0, 0.5), "K": LogNormal(math.log(100.0), 0.5)}),
    "lotka_volterra": OnAdaptedGrid({name: LogNormal(0.0, 0.7) for name in "abcd"}),
    "michaelis_menten": OnAdaptedGrid({"V": LogNormal(0.0, 0.7), "K": LogNormal(1.0, 0.7)}),
    "patients": functools.partial(_hierarchy, rates=False),
    "reaction_chain": OnAdaptedGrid(
        {"D": LogNormal(-3.0, 1.0), "k": LogNormal(0.0, 1.0), "m": LogNormal(0.0, 1.0)}
    ),
    "robin": OnAdaptedGrid({"q": LogNormal(1.0, 1.0), "h": LogNormal(0.0, 1.0)}),
    "sir": OnAdaptedGrid({"beta": LogNormal(0.0, 1.0), "gamma": LogNormal(-1.0, 1.0)}, infected),
    "source_coefficients": _linear_gaussian("b", _of_source, 5.0),
    "source_position": OnAdaptedGrid({"p": Uniform(), "q": Uniform()}),
    "thiele": OnFixedGrid("k", Normal(0.0, 3.0), (-15.0, 15.0)),
    "two_layers": OnAdaptedGrid({"k1": LogNormal(0.0, 1.0), "k2": LogNormal(0.0, 1.0)}),
    "two_places": OnFixedGrid("z", Uniform(), (0.0, 1.0)),
    "van_der_pol": OnAdaptedGrid({"mu": LogNormal(0.0, 0.5), "k": LogNormal(0.0, 0.5)}),
    "wave_equation": OnAdaptedGrid({"c": LogNormal(0.0, 0.5)}),
}
"""How the moments of each problem are found."""

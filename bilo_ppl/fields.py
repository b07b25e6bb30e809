"""Unknown functions: entries of theta that are callables of a point.

`KarhunenLoeve` is an expansion with independent standard normal coefficients, `NetworkField` a small
network. `fit_field` gives a field the shape of a first guess; `mean_squared_gradient` and
`total_variation` are the roughness penalties of Tikhonov and of Rudin, Osher and Fatemi (1992).
"""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl._types import Field, Key, Point, Points, Scalar
from bilo_ppl.calculus import grad
from bilo_ppl.domain import Box
from bilo_ppl.least_squares import LeastSquares, RowFamily
from bilo_ppl.networks import MLP
from bilo_ppl.solvers import AbstractInnerSolver, LevenbergMarquardt, solve

__all__ = [
    "KarhunenLoeve",
    "NetworkField",
    "field_weights",
    "fit_field",
    "gradients",
    "mean_squared_gradient",
    "total_variation",
    "with_field_weights",
    "zero_output",
]

F = TypeVar("F")


class KarhunenLoeve(eqx.Module):
    """``transform(sum_i a_i sqrt(lambda_i) sqrt(2) cos(i pi x))`` on [0, 1], i = 1 ... K.

    The eigenvalues ``lambda_i = (pi^2 i^2 + tau^2)^-alpha`` are those of the covariance
    ``(-Laplace + tau^2)^-alpha`` with Neumann ends, so that independent a_i ~ N(0, 1) make a Gaussian
    random field. ``transform`` maps it to what the PDE needs, such as ``jnp.exp`` for a positive
    coefficient.
    """

    coefficients: Float[Any, " K"]
    tau: float = eqx.field(static=True, default=3.0)
    alpha: float = eqx.field(static=True, default=1.0)
    transform: Callable = eqx.field(static=True, default=jnp.exp)

    def __call__(self, x: Any) -> Any:
        """The value at a point ``(1,)`` or a scalar: a scalar."""
        a = jnp.asarray(self.coefficients)
        i = jnp.arange(1, a.shape[-1] + 1, dtype=a.dtype)
        sd = (jnp.pi**2 * i**2 + self.tau**2) ** (-self.alpha / 2)
        modes = jnp.sqrt(2.0).astype(a.dtype) * jnp.cos(i * jnp.pi * jnp.reshape(x, ()))
        return self.transform(a @ (sd.astype(a.dtype) * modes))


def _raw(x: Point, raw: Scalar) -> Scalar:
    return raw


class NetworkField(eqx.Module):
    """``lift(x, N(x))``: an unknown function as a small tanh network N.

    ``lift(x, raw)`` builds in what is known, such as ``1 + x (1 - x) raw`` for ends fixed at 1, or
    ``jax.nn.softplus(raw)`` for positivity. The network sees the first ``domain.dimension``
    coordinates of a point, mapped to [-1, 1]: an initial value over x can be evaluated at points
    (x, t). Hidden biases start uniform in [-1, 1]. Fourier frequencies are frozen; all layers are
    trainable.
    """

    network: MLP
    domain: Box = eqx.field(static=True)
    lift: Callable[[Any, Any], Any] = eqx.field(static=True)

    def __init__(
        self,
        domain: Box,
        *,
        key: Key,
        lift: Callable[[Any, Any], Any] = _raw,
        width: int = 64,
        depth: int = 2,
        fourier: int = 0,
        fourier_scale: float = 1.0,
        residual: bool = False,
        dtype: Any = jnp.float32,
    ):
        network_key, bias_key = jax.random.split(key)
        network = MLP(
            domain.dimension,
            1,
            width=width,
            depth=depth,
            fourier=fourier,
            fourier_scale=fourier_scale,
            residual=residual,
            key=network_key,
            dtype=dtype,
        )
        # Without biases (and Fourier features) all features are odd about the middle of the domain,
        # and a descent that needs even ones comes to a saddle first.
        hidden = network.layers[:-1]
        biases = jax.random.uniform(bias_key, (len(hidden), width), dtype, -1, 1)
        self.network = eqx.tree_at(
            lambda n: [layer.bias for layer in n.layers[:-1]], network, list(biases)
        )
        self.domain = domain
        self.lift = lift

    def __call__(self, x: Any) -> Scalar:
        """The value at a point ``(d,)`` (in one dimension also a scalar): a scalar."""
        first = self.network.layers[0]
        x = jnp.atleast_1d(jnp.asarray(x, first.bias.dtype))[: self.domain.dimension]
        raw = self.network(self.domain.normalise(x), jnp.zeros_like(first.bias))
        return jnp.reshape(self.lift(x, raw[0]), ())


def zero_output(field: NetworkField) -> NetworkField:
    """The field whose network puts out zero: ``lift(x, 0)``, with all other weights as they are."""
    last = field.network.layers[-1]
    zero = eqx.tree_at(lambda layer: (layer.weight, layer.bias), last, replace_fn=jnp.zeros_like)
    return eqx.tree_at(lambda f: f.network.layers[-1], field, zero)


def _trainable(field: Any) -> Any:
    """Filter of the weights of a field: inexact arrays, less the frozen frequencies of networks."""

    def mark(node):
        marks = jax.tree.map(eqx.is_inexact_array, node)
        if isinstance(node, MLP) and node.frequencies is not None:
            marks = eqx.tree_at(lambda m: m.frequencies, marks, False)
        return marks

    return jax.tree.map(mark, field, is_leaf=lambda node: isinstance(node, MLP))


def _in_default_precision(field: F) -> F:
    """The field with its numbers in the precision of a sampler."""

    def cast(leaf):
        numeric = isinstance(leaf, (float, np.floating)) or eqx.is_inexact_array(leaf)
        return jnp.asarray(leaf, jnp.result_type(float)) if numeric else leaf

    return jax.tree.map(cast, field)


def field_weights(field: Any) -> Float[Array, " n"]:
    """The trainable numbers of a field, as one vector in default precision.

    For a site of `unknown_function` they are the value that stands for ``field``:
    ``init_to_value(values={"f": field_weights(field)})``.
    """
    field = _in_default_precision(field)
    flat, _ = ravel_pytree(eqx.filter(field, _trainable(field)))
    if not flat.size:
        raise ValueError(
            f"{type(field).__name__} has no trainable arrays: a field to infer is an Equinox module "
            "that holds its numbers as arrays, such as NetworkField or KarhunenLoeve."
        )
    return flat


def with_field_weights(field: F, weights: Any) -> F:
    """The field with other trainable numbers, in the order of `field_weights`."""
    field = _in_default_precision(field)
    free, fixed = eqx.partition(field, _trainable(field))
    flat, unravel = ravel_pytree(free)
    weights = jnp.asarray(weights, flat.dtype)
    if weights.shape != flat.shape:
        raise ValueError(
            f"{type(field).__name__} has {flat.size} trainable numbers; the weights given have "
            f"shape {weights.shape}, not ({flat.size},)."
        )
    return eqx.combine(unravel(weights), fixed)


def fit_field(
    field: F,
    guess: Field,
    points: Points,
    *,
    solver: AbstractInnerSolver | None = None,
) -> F:
    """The field fitted to a first guess: least mean square of ``field - guess`` over the points.

    ``guess`` is a function of a point, ``points`` are ``(n, d)``. The solver is by default
    Levenberg-Marquardt to a mean square of 1e-8. Warns, with the error that is left, where the
    tolerance is not reached; a guess with a kink cannot be met exactly.
    """
    solver = LevenbergMarquardt(tolerance=1e-8, max_steps=200) if solver is None else solver
    free, fixed = eqx.partition(field, _trainable(field))
    dtype = jnp.result_type(*jax.tree.leaves(free))
    xs = jnp.asarray(points, dtype)
    values = jax.vmap(guess)(xs)
    if values.shape != xs.shape[:1] or not bool(jnp.isfinite(values).all()):
        raise ValueError(
            f"fit_field: guess must give a finite scalar at every point; its values have shape "
            f"{values.shape[1:]} at a point, {int(jnp.isfinite(values).sum())} finite."
        )

    def rows(weights, item):
        x, value = item
        return {"fit": jnp.atleast_1d(eqx.combine(weights, fixed)(x) - value)}

    problem = LeastSquares((RowFamily(rows, (xs, values.astype(dtype)), {}),))
    found = jax.jit(lambda w: solve(solver, problem, w))(free)
    if not bool(found.converged):
        warnings.warn(
            f"fit_field: the mean square error is {float(found.loss):.1e} after "
            f"{int(found.steps)} steps, above the tolerance {solver.tolerance:.0e}.",
            stacklevel=2,
        )
    return eqx.combine(found.value, fixed)


def gradients(field: Field, points: Points) -> Float[Array, "n d"]:
    """The gradient of a field at points ``(n, d)``."""
    return jax.vmap(grad(field))(jnp.asarray(points, jnp.result_type(float)))


def mean_squared_gradient(field: Field, points: Points) -> Scalar:
    """Mean of ``|grad f|^2`` over points ``(n, d)``: for a uniform grid, its mean over the domain."""
    return jnp.mean(_squared_gradient(field, points))


def total_variation(field: Field, points: Points, smoothing: float = 1e-6) -> Scalar:
    """Mean of ``sqrt(|grad f|^2 + smoothing^2) - smoothing`` over points ``(n, d)``.

    ``smoothing``, in units of the gradient, makes it differentiable where the gradient vanishes.
    """
    squares = _squared_gradient(field, points)
    return jnp.mean(jnp.sqrt(squares + smoothing**2) - smoothing)


def _squared_gradient(field: Field, points: Points) -> Float[Array, " n"]:
    return jnp.sum(gradients(field, points) ** 2, axis=1)

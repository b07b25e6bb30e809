"""Training of neural operators on numerical solutions, by Adam on random batches."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._descent import descend
from bilo_ppl._types import Key, Points, Scalar
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.problem import Problem
from bilo_ppl.surrogates.deeponet import DeepONet
from bilo_ppl.surrogates.encoding import ThetaEncoding
from bilo_ppl.surrogates.fno import FNO
from bilo_ppl.surrogates.surrogate import Surrogate
from bilo_ppl.surrogates.training_set import TrainingSet

__all__ = ["Trained", "relative_errors", "train", "train_deeponet", "train_fno"]

SENSORS = 51
"""Points along each axis at which a DeepONet or a DINO sees a function, of an interval; of a plane 21."""

BATCH, POINTS = 32, 100
"""Solutions in a step, and points of each."""


Loss: TypeAlias = Callable[[Surrogate, Any, Any, Key], Scalar]
"""Of a surrogate, from one theta, the solution there ``(m, components)``, and the key of the step."""


class Trained(NamedTuple):
    """A surrogate, and its relative L2 errors at the thetas of the test set.

    >>> trained.errors.shape, trained.median_error < 1  # of the example before, after 10 steps
    ((2,), True)
    """

    surrogate: Surrogate
    errors: Float[np.ndarray, " n"]

    @property
    def median_error(self) -> float:
        """In distribution."""
        return float(np.median(self.errors))


def train_deeponet(
    problem: Problem,
    data: TrainingSet,
    *,
    key: Key,
    steps: int,
    test_part: float = 0.1,
    progress: bool = True,
    **sizes: int,
) -> Trained:
    """A `DeepONet` trained on solutions; a random part of them is kept for the test.

    ``sizes`` are arguments of `DeepONet`: width, depth, terms.

    >>> from bilo_ppl.surrogates import train_deeponet
    >>> options = {"steps": 10, "width": 8, "terms": 4, "progress": False}
    >>> trained = train_deeponet(problem, training, key=key, **options)
    >>> trained.errors.shape  # a tenth is kept for the test
    (2,)
    """
    encoding = ThetaEncoding.of(problem.parameters, data.thetas, sensors_of(problem.domain))
    theta = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, data.thetas)
    inputs = problem.inputs(jnp.asarray(data.points[0]), theta).size
    key_network, key_fit = jax.random.split(key)
    network = DeepONet(inputs, encoding.size, problem.components, key=key_network, **sizes)
    return train(problem, network, encoding, data, key_fit, steps, test_part, progress)


def train_fno(
    problem: Problem,
    data: TrainingSet,
    *,
    shape: tuple[int, ...],
    key: Key,
    steps: int,
    test_part: float = 0.1,
    progress: bool = True,
    **sizes: int,
) -> Trained:
    """An `FNO` on a grid of ``shape`` points, trained on solutions, of which a part is kept for the test.

    A single entry of theta that is a function is a channel with its values on the grid; otherwise every
    number is a constant channel. ``sizes`` are arguments of `FNO`: channels, modes, depth.

    >>> from bilo_ppl.surrogates import train_fno
    >>> options = {"steps": 10, "channels": 4, "modes": 4, "depth": 1, "progress": False}
    >>> train_fno(problem, training, shape=(21,), key=key, **options).errors.shape
    (2,)
    """
    key_network, key_fit = jax.random.split(key)
    network, encoding = fno_for(problem, data, shape, key_network, sizes)
    return train(problem, network, encoding, data, key_fit, steps, test_part, progress)


def fno_for(
    problem: Problem,
    data: TrainingSet,
    shape: tuple[int, ...],
    key: Key,
    sizes: Mapping[str, int],
) -> tuple[FNO, ThetaEncoding]:
    """An FNO at random weights on a grid of ``shape`` points, and theta as it sees it."""
    names, domain = problem.parameters, problem.domain
    sampled = len(names) == 1 and callable(data.thetas[names[0]])
    encoding = ThetaEncoding.of(names, data.thetas, domain.grid(*shape))
    corners = domain.lower, domain.upper
    network = FNO(
        *corners, shape, encoding.size, problem.components, sampled=sampled, key=key, **sizes
    )
    return network, encoding


def train(
    problem: Problem,
    network: DeepONet | FNO,
    encoding: ThetaEncoding,
    data: TrainingSet,
    key: Key,
    steps: int,
    test_part: float,
    progress: bool,
    *,
    loss: Loss | None = None,
    batch: int = BATCH,
) -> Trained:
    """Minimise the mean of a loss over solutions, by Adam; by default of |u_net - u|^2 / |u|^2."""
    key_split, key_batches = jax.random.split(key)
    test, data = data.split(test_part, key_split)
    surrogate = Surrogate(problem, network, encoding, jnp.float32(1.0), middle_of(data.thetas))
    surrogate = eqx.tree_at(lambda s: s.size, surrogate, _size(surrogate, data))
    weights, static = eqx.partition(network, eqx.is_inexact_array)
    arrays, fixed = eqx.partition(data.thetas, eqx.is_array)
    arrays = jax.tree.map(jnp.asarray, arrays)
    values = jnp.asarray(data.values, jnp.float32)
    loss = _at_some_points(data.points) if loss is None else loss

    def objective(weights, step):
        chosen = eqx.tree_at(lambda s: s.network, surrogate, eqx.combine(weights, static))
        first, second = jax.random.split(jax.random.fold_in(key_batches, step))
        which = jax.random.choice(first, len(values), (min(batch, len(values)),), replace=False)

        def one(number):
            theta = eqx.combine(jax.tree.map(lambda leaf: leaf[number], arrays), fixed)
            return loss(chosen, theta, values[number], second)

        return jnp.mean(jax.vmap(one)(which)).astype(jnp.result_type(float))

    label = f"training a {type(network).__name__}"
    weights, _ = descend(objective, weights, steps, None, label, progress)
    surrogate = eqx.tree_at(lambda s: s.network, surrogate, eqx.combine(weights, static))
    return Trained(surrogate, relative_errors(surrogate, test))


def _at_some_points(points: Points) -> Loss:
    """|u_net - u|^2 / |u|^2 with the numerator at points that are drawn anew in every step."""
    points = jnp.asarray(points, jnp.float32)

    def loss(surrogate, theta, u, key):
        where = jax.random.choice(key, len(points), (min(POINTS, len(points)),), replace=False)
        found = jax.vmap(surrogate.field(theta))(points[where])
        away = found.reshape(u[where].shape) - u[where]
        return jnp.mean(away**2) / jnp.mean(u**2)

    return loss


def relative_errors(surrogate: Surrogate, data: TrainingSet) -> Float[np.ndarray, " n"]:
    """|u_net - u| / |u| of every solution.

    >>> from bilo_ppl.surrogates import relative_errors
    >>> relative_errors(trained.surrogate, training).shape
    (20,)
    """
    arrays, fixed = eqx.partition(data.thetas, eqx.is_array)
    points = jnp.asarray(data.points)

    @jit_once
    def every(surrogate, arrays, values):
        def one(item):
            arrays, u = item
            found = jax.vmap(surrogate.field(eqx.combine(arrays, fixed)))(points)
            return jnp.linalg.norm(found.reshape(u.shape) - u) / jnp.linalg.norm(u)

        return jax.lax.map(one, (arrays, values))

    return np.asarray(every(surrogate, jax.tree.map(jnp.asarray, arrays), jnp.asarray(data.values)))


def sensors_of(domain: Box) -> Points:
    """Points at which functions in theta are seen."""
    return domain.grid(SENSORS) if domain.dimension == 1 else domain.grid(*[21] * domain.dimension)


def middle_of(thetas: Any) -> dict[str, Array]:
    """Means of the entries of thetas that are no functions."""
    return {
        name: jnp.mean(jnp.asarray(value), axis=0)
        for name, value in thetas.items()
        if not callable(value)
    }


def _size(surrogate: Surrogate, data: TrainingSet) -> Any:
    """How large the network's output must be, by what the lift makes of 0 and of 1."""
    theta = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, data.thetas)
    problem = surrogate.problem

    def lifted(x, value):
        raw = jnp.full(problem.components, value)
        return jnp.atleast_1d(problem.lift(x, raw if problem.components > 1 else raw[0], theta))

    points = jnp.asarray(data.points)
    zero, one = (jax.vmap(lambda x, v=v: lifted(x, v))(points) for v in (0.0, 1.0))
    wanted = jnp.sqrt(jnp.mean((jnp.asarray(data.values[0]) - zero) ** 2))
    reach = jnp.sqrt(jnp.mean((one - zero) ** 2))
    return jnp.asarray(wanted / reach, jnp.float32)

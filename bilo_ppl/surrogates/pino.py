"""Physics-informed neural operator: an FNO that learns from numerical solutions and from the equation.

    minimise over W   mean over theta of   w_d |u_W - u|^2 / |u|^2 + w_e e(u_W, theta)

with the error e that the equation tells, `equation_error` (Li, Zheng, Kovachki, Jin, Chen, Liu,
Azizzadenesheli, Anandkumar, *ACM/IMS J. Data Sci.* 1, 2024). The equation is the scheme of
`FiniteVolumes` on the operator's own grid: where A jumps, u has no second derivatives to take.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._types import Key, Scalar, Theta
from bilo_ppl.numerics.plane.finite_volumes import FiniteVolumes
from bilo_ppl.numerics.plane.sine_transform import poisson_eigenvalues, solve_poisson
from bilo_ppl.surrogates.fno import FNO
from bilo_ppl.surrogates.surrogate import Surrogate
from bilo_ppl.surrogates.training import Trained, fno_for, train
from bilo_ppl.surrogates.training_set import TrainingSet

__all__ = ["equation_error", "on_grid", "train_pino"]

BATCH = 8
"""Solutions in a step, each on the whole grid."""


def train_pino(
    scheme: FiniteVolumes,
    data: TrainingSet,
    *,
    key: Key,
    steps: int,
    data_weight: float | int = 1.0,
    equation_weight: float | int = 1.0,
    smoothed: bool = True,
    test_part: float = 0.1,
    progress: bool = True,
    **sizes: int,
) -> Trained:
    """An `FNO` on the nodes of a scheme, trained on solutions there and on the scheme's equations.

    **Arguments**

    - ``scheme``: the equation; its ``cells`` are one less than the points of the FNO along each axis.
    - ``data``: solutions at ``scheme.nodes``, in the order of ``problem.domain.grid``. A finer scheme
      may have made them.
    - ``data_weight``, ``equation_weight``: of the two squared relative errors. With a data weight of 0
      the equation alone is learnt from, and the solutions only serve the test.
    - ``smoothed``: of `equation_error`.
    - ``sizes``: arguments of `FNO`: channels, modes, depth.

    Raises a ``ValueError`` for solutions at other points, and for weights that are negative or both 0.

    >>> from bilo_ppl.surrogates import solve_all, train_pino
    >>> class Flow(bilo.Problem):  # -div(A grad u) = 1 on the unit square, u = 0 on the boundary
    ...     parameters, components = ("A",), 1
    ...     domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    ...     def residual(self, u, x, theta):
    ...         return theta["A"] * bilo.laplacian(u)(x) + 1
    ...     def lift(self, x, raw, theta):
    ...         return bilo.bubble(self.domain, x) * raw
    >>> equation = {"coefficient": lambda theta: theta["A"], "source": lambda theta: 1.0}
    >>> scheme = bilo.FiniteVolumes(Flow(), (8, 8), theta={"A": 1.0}, **equation)
    >>> nodes = Flow.domain.grid(9, 9)
    >>> flows = solve_all(scheme, {"A": np.linspace(1.0, 3.0, 10)}, nodes)
    >>> options = {"steps": 10, "channels": 4, "modes": 2, "depth": 1, "progress": False}
    >>> flow = train_pino(scheme, flows, key=key, **options)
    >>> flow.errors.shape  # a tenth is kept for the test
    (1,)
    """
    shape = scheme.cells[0] + 1, scheme.cells[1] + 1
    _check_points(scheme, data)
    if min(data_weight, equation_weight) < 0 or not data_weight + equation_weight > 0:
        raise ValueError(
            f"train_pino: data_weight is {data_weight}, equation_weight is {equation_weight}; neither "
            "can be negative, and one must be positive."
        )

    def loss(surrogate, theta, u, key):
        found = on_grid(surrogate, theta)
        away = jnp.mean((found - u.reshape(shape)) ** 2) / jnp.mean(u**2)
        if not equation_weight:
            return data_weight * away
        error = equation_error(scheme, theta, found, smoothed=smoothed)
        return data_weight * away + equation_weight * error

    key_network, key_fit = jax.random.split(key)
    network, encoding = fno_for(scheme.problem, data, shape, key_network, sizes)
    parts = scheme.problem, network, encoding, data, key_fit, steps, test_part, progress
    return train(*parts, loss=loss, batch=BATCH)


def equation_error(
    scheme: FiniteVolumes, theta: Theta, values: Float[Array, "n m"], *, smoothed: bool = True
) -> Scalar:
    """How far values at the nodes are from solving the scheme's equations: a squared relative error.

    With the residual r of the values and r_0 that of u = lift(x, 0), this is |P r|^2 / |P r_0|^2. For P
    the inverse of the five-point Laplacian (``smoothed``) and a constant A it is the squared L2 error of
    u, relative to the scheme's solution less the lift; for other A it is that up to the contrast of A.
    With P = 1 it is the relative residual of the paper, to which an error of u counts by the square of
    its frequency.

    Raises a ``ValueError`` for values that are not one for each node; where u is the lift of zero
    itself, the error is not a number.

    >>> from bilo_ppl.surrogates import equation_error
    >>> u, _, _ = scheme.solve({"A": 2.0}, ())
    >>> bool(equation_error(scheme, {"A": 2.0}, u.values) < 1e-12)
    True
    >>> round(float(equation_error(scheme, {"A": 2.0}, 1.1 * u.values)), 6)
    0.01
    """
    problem, nodes = scheme.problem, scheme.problem.domain.grid(*(n + 1 for n in scheme.cells))
    raw = jnp.zeros((), values.dtype)
    at_zero = jax.vmap(lambda x: problem.lift(x, raw, theta))(jnp.asarray(nodes, values.dtype))
    at_zero = at_zero.reshape(*(n + 1 for n in scheme.cells)).astype(values.dtype)
    left, first = (scheme.residual(theta, u) for u in (values, at_zero))
    if smoothed:
        eigenvalues = poisson_eigenvalues(scheme.cells, scheme.spacing)
        left, first = (solve_poisson(r, eigenvalues) for r in (left, first))
    return jnp.mean(left**2) / jnp.mean(first**2)


def on_grid(surrogate: Surrogate, theta: Theta) -> Float[Array, "n m"]:
    """u of a surrogate with an `FNO` at the points of its grid, where nothing is interpolated.

    Raises a ``ValueError`` for a surrogate of another kind.

    >>> from bilo_ppl.surrogates import on_grid
    >>> on_grid(flow.surrogate, {"A": 2.0}).shape
    (9, 9)
    """
    network, problem = surrogate.network, surrogate.problem
    if not isinstance(network, FNO):
        raise ValueError(f"on_grid: needs an FNO, but got a {type(network).__name__}.")
    raw = surrogate.size * network.at(surrogate.encoding(theta))[0]
    nodes = jnp.asarray(network.grid, raw.dtype)
    u = jax.vmap(lambda x, raw: problem.lift(x, raw, theta))(nodes, raw.ravel())
    return u.reshape(raw.shape).astype(raw.dtype)


def _check_points(scheme: FiniteVolumes, data: TrainingSet) -> None:
    wanted = scheme.problem.domain.grid(*(n + 1 for n in scheme.cells))
    if np.shape(data.points) != wanted.shape or not np.allclose(data.points, wanted, atol=1e-6):
        count = " x ".join(str(n + 1) for n in scheme.cells)
        raise ValueError(
            f"train_pino: the solutions are known at {len(data.points)} points, which are not the "
            f"{count} nodes of the scheme; give solve_all the points problem.domain.grid"
            f"{tuple(n + 1 for n in scheme.cells)}."
        )

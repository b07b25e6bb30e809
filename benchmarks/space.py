"""Three dimensions: what a solve and a gradient cost by random features and by finite differences.

    python benchmarks/space.py [--counts 64 128 256] [--cells 16 24 32] [--out FILE.json]

Diffusion and decay in a cube (`benchmarks/gallery/cube.py`, closed form), 3000 collocation points as
`bilo-ppl run` takes them. Errors of u are relative, in L2 over 1000 random points, the largest at three
thetas. A gradient is that of U in both unknowns for the 125 data: by features, of one compiled function;
by finite differences the cost of the adjoint method, which is a second solve with the same matrix, since
that is symmetric (SciPy's SuperLU, whose factor serves both, or conjugate gradients to 1e-8). CPU ms,
medians of repetitions.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import cg, splu

import bilo_ppl as bilo
from benchmarks.commands import write_records
from bilo_ppl.pde.collocation import completed
from bilo_ppl.run.model_file import load_model

jax.config.update("jax_enable_x64", True)

HERE = pathlib.Path(__file__).resolve().parent
FILE = load_model(str(HERE / "gallery" / "cube.py"), learnt=True)
PROBLEM = completed(FILE.problem, FILE.start)
THETAS = [{"k": k, "c": c} for k, c in ((1.0, 20.0), (0.7, 5.0), (1.5, 40.0))]
SEEN = np.random.default_rng(0).uniform(size=(1000, 3))
DATA = FILE.observations(0)
SENSORS = jnp.asarray(DATA.x)
CG_TOLERANCE, REPETITIONS = 1e-8, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--cells", type=int, nargs="+", default=[16, 24, 32])
    parser.add_argument("--out", default=str(HERE / "results" / "space.json"))
    arguments = parser.parse_args()
    records = []
    print(
        "| way | unknowns of the solve | error of u | choice, CPU s | solve, CPU ms | gradient, CPU ms |"
    )
    print("|---|---|---|---|---|---|")
    for record in chain(by_features(arguments.counts), by_differences(arguments.cells)):
        records.append(record)
        print(
            f"| {record['way']} | {record['unknowns']} | {record['error']:.1e} "
            f"| {record['choice']:.0f} | {record['solve']:.1f} | {record['gradient']:.1f} |",
            flush=True,
        )
        write_records(pathlib.Path(arguments.out), records)


def exact(theta: Any, points: Any) -> np.ndarray:
    return np.asarray(jax.vmap(lambda x: FILE.reference().solve(theta, ())[0](x))(points))


def off(u: np.ndarray, theta: Any) -> float:
    """The relative error of values at the points that are looked at."""
    right = exact(theta, SEEN)
    return float(np.linalg.norm(u - right) / np.linalg.norm(right))


def by_features(counts: list[int]) -> Iterator[dict[str, Any]]:
    """A record for each number of features."""
    for count in counts:
        began = time.process_time()
        local, trials = bilo.choose_random_features(
            PROBLEM, THETAS, count=count, key=jax.random.key(0)
        )
        choice = time.process_time() - began
        ridge = min(trials, key=lambda trial: trial.score).ridge
        operator = bilo.OutputLayer(local, FILE.start, tolerance=np.inf, ridge=ridge)
        thetas = [jax.tree.map(jnp.asarray, theta) for theta in THETAS]
        error = max(off(np.asarray(solved(operator, theta, SEEN)), theta) for theta in thetas)
        yield {
            "way": "features",
            "unknowns": count,
            "error": error,
            "choice": choice,
            "solve": milliseconds(solved, operator, thetas[0], SENSORS),
            "gradient": milliseconds(gradient, thetas[0], operator),
        }


@jax.jit
def solved(operator: bilo.OutputLayer, theta: Any, points: Any) -> Any:
    """u at points."""
    return jax.vmap(operator.solve(theta, operator.init_state())[0])(points)


@jax.jit
@jax.grad
def gradient(theta: Any, operator: bilo.OutputLayer) -> Any:
    """Of half the sum of squares, in units of the noise."""
    return 0.5 * jnp.sum((solved(operator, theta, SENSORS) - DATA.y) ** 2) / DATA.sigma**2


def by_differences(cells: list[int]) -> Iterator[dict[str, Any]]:
    """Records for numbers of cells along each axis."""
    for n in cells:
        laplacian, nodes = stencil(n)
        source = np.asarray(jax.vmap(_source)(nodes))
        for way, solve in (("direct", direct), ("conjugate gradients", iterated)):
            errors = []
            for theta in THETAS:
                u, right = solve(laplacian, theta, source), exact(theta, nodes)
                errors.append(float(np.linalg.norm(u - right) / np.linalg.norm(right)))
            yield {
                "way": f"finite differences, {n}^3, {way}",
                "unknowns": len(source),
                "error": max(errors),
                "choice": 0.0,
                "solve": milliseconds(solve, laplacian, THETAS[0], source),
                "gradient": milliseconds(solve, laplacian, THETAS[0], source, 2),
            }


def direct(laplacian: Any, theta: Any, source: np.ndarray, solves: int = 1) -> np.ndarray:
    """By a sparse factor, which serves several solves."""
    factor = splu(_matrix(laplacian, theta).tocsc())
    for _ in range(solves):
        u = factor.solve(source)
    return u


def iterated(laplacian: Any, theta: Any, source: np.ndarray, solves: int = 1) -> np.ndarray:
    """By conjugate gradients."""
    matrix = _matrix(laplacian, theta).tocsr()
    for _ in range(solves):
        u = cg(matrix, source, rtol=CG_TOLERANCE)[0]
    return u


def _matrix(laplacian: Any, theta: Any) -> Any:
    return theta["k"] * laplacian + theta["c"] * sparse.identity(laplacian.shape[0])


def stencil(n: int) -> tuple[Any, np.ndarray]:
    """Minus the Laplacian of seven points on n cells an axis, and its inner nodes."""
    h = 1 / n
    second: Any = sparse.eye(n - 1, k=-1) - 2 * sparse.eye(n - 1) + sparse.eye(n - 1, k=1)
    line = -second / h**2
    one = sparse.identity(n - 1)
    laplacian = sum(
        sparse.kron(sparse.kron(line if axis == 0 else one, line if axis == 1 else one), last)
        for axis, last in ((0, one), (1, one), (2, line))
    )
    inner = np.linspace(0, 1, n + 1)[1:-1]
    nodes = np.stack(np.meshgrid(inner, inner, inner, indexing="ij"), axis=-1).reshape(-1, 3)
    return laplacian, nodes


def _source(x: Any) -> Any:
    """The right-hand side: minus the residual of u = 0."""
    return PROBLEM.residual(lambda _: jnp.zeros(()), x, THETAS[0])


def milliseconds(call: Callable[..., Any], *arguments: Any) -> float:
    """CPU time of a call, the median after a first one."""
    taken = []
    for _ in range(1 + REPETITIONS):
        began = time.process_time()
        jax.block_until_ready(call(*arguments))
        taken.append(1e3 * (time.process_time() - began))
    return float(np.median(taken[1:]))


if __name__ == "__main__":
    main()

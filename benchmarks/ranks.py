"""Rank against width: inner steps, CPU time and error of a solve, and other starts of increments.

    python benchmarks/ranks.py [--widths 64 128 256] [--again] [--out FILE.json]

The nonlinear Poisson problem: a network that was trained at k = 0.6 is fine-tuned to k = 0.65 ... 0.9,
to a loss of 1e-6 by Levenberg-Marquardt, through increments of rank 1 to 16, all weights, or the output
layer alone, which is linear least squares within a few Gauss-Newton steps. With the width of 128
increments also start in other ways: A scaled by 1/4 and 4 (rsLoRA scales by a root of the rank, LoRA+
moves A and B at different speeds), A along the inputs of the layer that the residual sees most, and B A
the leading singular part of the matrix itself (PiSSA). Three random A each. Prints tables, draws a
figure, and writes JSON.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import bilo_ppl as bilo
from bilo_ppl.network.lora import LowRankLinear
from bilo_ppl.network.trainable import Frozen, count_parameters
from models import nonlinear_poisson as case

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

WIDTHS = (64, 128, 256)
RANKS = (1, 2, 4, 8, 16)
KS = (0.65, 0.7, 0.75, 0.8, 0.9)
TOLERANCE, MAX_STEPS, SEEDS = 1e-6, 60, 3
GRID = case.problem.domain.grid(201)

Start = Callable[[LowRankLinear, Any], LowRankLinear]
"""What becomes of the increments of a layer; the second argument is its Jacobian at home."""


def _with(layer: LowRankLinear, A: Any, B: Any, base: Any) -> LowRankLinear:
    parts = (A, B, Frozen(base))
    return eqx.tree_at(lambda n: (n.A, n.B, n.base), layer, parts)


def scaled(factor: float) -> Start:
    """A times a factor, B = 0."""
    return lambda layer, _: _with(layer, factor * layer.A, layer.B, layer.base.value)


def leading_inputs(layer: LowRankLinear, jacobian: Any) -> LowRankLinear:
    """A along what the rows of the lower level see most of: singular directions of their Jacobian."""
    size_in = layer.A.shape[1]
    _, _, right = jnp.linalg.svd(jacobian.reshape(-1, size_in), full_matrices=False)
    return _with(layer, right[: len(layer.A)].astype(layer.A.dtype), layer.B, layer.base.value)


def leading_part(layer: LowRankLinear, _: Any) -> LowRankLinear:
    """B A is the leading singular part of the matrix, which is frozen without it (PiSSA)."""
    rank, weight = len(layer.A), layer.base.value
    left, values, right = jnp.linalg.svd(weight, full_matrices=False)
    root = jnp.sqrt(values[:rank])
    A, B = root[:, None] * right[:rank], left[:, :rank] * root[None]
    return _with(layer, A, B, weight - B @ A)


STARTS: dict[str, Start] = {
    "A times 1/4": scaled(0.25),
    "A times 4": scaled(4.0),
    "A along leading inputs": leading_inputs,
    "leading part of the matrix": leading_part,
}


def started(
    local: bilo.LocalOperator, start: Start, home: bilo.LocalOperator
) -> bilo.LocalOperator:
    """The operator with other increments; ``home`` is the same without any."""
    layers = local.network.layers  # pyright: ignore[reportAttributeAccessIssue]
    for i, layer in enumerate(layers):
        if isinstance(layer, LowRankLinear):
            new = start(layer, _jacobian(home, i))
            local = eqx.tree_at(lambda o, i=i: o.network.layers[i], local, new)
    return local


def _jacobian(home: bilo.LocalOperator, i: int) -> Any:
    """Of the residual at the collocation points, in the matrix of layer ``i``: (points, out, in)."""

    def rows(weight):
        local = eqx.tree_at(lambda o: o.network.layers[i].weight, home, weight)
        u = local.field(case.start)
        return jax.vmap(lambda x: case.problem.residual(u, x, case.start))(local.points)

    return jax.jacrev(rows)(home.network.layers[i].weight)  # pyright: ignore[reportAttributeAccessIssue]


def exact() -> list[np.ndarray]:
    """The numerical solutions at all k."""
    numerical = bilo.FiniteDifferences(case.problem, nodes=3201, theta=case.truth, guess=case.exact)
    solve = jax.jit(lambda k: jax.vmap(numerical.solve({"k": k}, ())[0])(GRID))
    return [np.asarray(solve(k)) for k in KS]


@eqx.filter_jit
def solved(operator: Any, k: Any) -> tuple[Any, Any]:
    """u on the grid, and the report."""
    field, _, info = operator.solve({"k": k}, operator.init_state())
    return jax.vmap(field)(jnp.asarray(GRID)), info


def record(operators: Sequence[Any], u: Sequence[np.ndarray], **known: Any) -> dict[str, Any]:
    """Solves at all k by each of some operators that differ in their random numbers alone."""
    jax.block_until_ready(solved(operators[0], jnp.asarray(KS[0])))  # compiles
    rows, begun = [], time.process_time()
    for operator in operators:
        for k, reference in zip(KS, u, strict=True):
            found, info = jax.block_until_ready(solved(operator, jnp.asarray(k)))
            off = np.linalg.norm(found - reference) / np.linalg.norm(reference)
            rows.append((int(info.steps), float(info.loss), bool(info.converged), float(off)))
    seconds = (time.process_time() - begun) / len(rows)
    steps, losses, converged, off = (np.array(column) for column in zip(*rows, strict=True))
    return {
        **known,
        "weights": count_parameters(operators[0].operator.network)
        if isinstance(operators[0], bilo.FineTuned)
        else int(operators[0].init_state().size),
        "solves": len(rows),
        "converged": float(converged.mean()),
        "steps": float(steps.mean()),
        "cpu_ms": 1e3 * seconds,
        "loss": float(np.median(losses)),
        "error": float(np.median(off)),
        "largest_error": float(off.max()),
    }


def measured(width: int, u: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
    """A record for each way to fine-tune a network of a width."""
    begun = time.process_time()
    home = bilo.pretrain(
        case.problem,
        case.start,
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=300),
        width=width,
        progress=False,
    )
    seconds = time.process_time() - begun
    print(f"width {width}: {home.report}, {seconds:.0f} CPU s", file=sys.stderr, flush=True)
    solver = bilo.LevenbergMarquardt(TOLERANCE, MAX_STEPS)

    def tuned(rank: int, seed: int, start: Start | None = None) -> bilo.FineTuned:
        local = home.operator.with_lora(rank, key=jax.random.key(10 + seed))
        if start is not None:
            local = started(local, start, home.operator)
        return bilo.FineTuned(local, solver, bilo.ImplicitDifferentiation())

    for rank in RANKS:
        operators = [tuned(rank, seed) for seed in range(SEEDS)]
        yield record(operators, u, width=width, way=f"rank {rank}", start="usual")
    yield record([tuned(0, 0)], u, width=width, way="all weights", start="usual")
    layer = bilo.OutputLayer(home.operator, case.start, tolerance=TOLERANCE)
    yield record([layer], u, width=width, way="output layer", start="usual")
    features, trials = bilo.choose_random_features(
        case.problem, [case.start, {"k": 0.8}], count=width, key=jax.random.key(0)
    )
    ridge = min(trials, key=lambda trial: trial.score).ridge
    layer = bilo.OutputLayer(features, case.start, tolerance=TOLERANCE, ridge=ridge)
    yield record([layer], u, width=width, way="random features", start="usual")
    for name, start in STARTS.items() if width == 128 else ():
        for rank in (2, 4, 8):
            operators = [tuned(rank, seed, start) for seed in range(SEEDS)]
            yield record(operators, u, width=width, way=f"rank {rank}", start=name)


def table(records: Sequence[dict[str, Any]]) -> str:
    """A row for each width, way and start."""
    lines = [
        "| width | fine-tuned | increments start | weights | solved | steps | CPU ms a solve | loss | "
        "error of u: median, largest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        lines.append(
            f"| {r['width']} | {r['way']} | {r['start']} | {r['weights']} | {r['converged']:.0%} | "
            f"{r['steps']:.1f} | {r['cpu_ms']:.1f} | {r['loss']:.0e} | {r['error']:.1e}, "
            f"{r['largest_error']:.1e} |"
        )
    return "\n".join(lines)


def draw(path: pathlib.Path) -> None:
    """Steps and time against rank, by width."""
    records = [r for r in json.loads(path.read_text()) if r["start"] == "usual"]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    names = [*(f"rank {rank}" for rank in RANKS), "all weights", "output layer", "random features"]
    for width, colour in zip(WIDTHS, ("#92c5de", "#2166ac", "#053061"), strict=True):
        mine = {r["way"]: r for r in records if r["width"] == width}
        for axis, key in zip(axes, ("steps", "cpu_ms", "error"), strict=True):
            y = [mine[name][key] if name in mine else np.nan for name in names]
            axis.plot(range(len(names)), y, "o-", color=colour, label=f"width {width}")
    for axis, title in zip(axes, ("inner steps", "CPU ms a solve", "error of u"), strict=True):
        axis.set_xticks(range(len(names)), names, rotation=60, fontsize=8)
        axis.set(yscale="log", title=title)
        axis.grid(True, alpha=0.3)
    axes[2].legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path.with_suffix(".png"), dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--widths", nargs="+", type=int, choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument(
        "--out", default=str(pathlib.Path(__file__).parent / "results" / "ranks.json")
    )
    arguments = parser.parse_args()
    path = pathlib.Path(arguments.out)
    records = json.loads(path.read_text()) if path.exists() else []
    u = exact()
    for width in arguments.widths:
        if not arguments.again and any(r["width"] == width for r in records):
            continue
        records = [r for r in records if r["width"] != width]
        own = []
        for found in measured(width, u):
            own.append(found)
            print(table([found]).splitlines()[-1], flush=True)
        records = sorted([*records, *own], key=lambda r: r["width"])
        path.write_text(json.dumps(records, indent=1) + "\n")
    print("\n" + table(records))
    draw(path)


if __name__ == "__main__":
    main()

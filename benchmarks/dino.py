"""What derivatives are worth in training: a DINO with them and without, on the same numerical solutions.

    python benchmarks/dino.py [--models NAME ...] [--counts N ...] [--steps N] [--out FILE.json]

For each model its numerical operator solves at draws from the prior of theta, and takes the derivatives
there. The same network is then trained on some of the solutions, for the same steps from the same
weights, with the derivatives in its loss and without. Errors are those at 200 other prior draws: of u,
and of u's derivatives along the directions of `solve_with_derivatives`.
"""

import argparse
import pathlib
import time
from typing import Any

import jax
import numpy as np
from commands import write_records

from bilo_ppl.run.model_file import load_model
from bilo_ppl.surrogates import (
    Trained,
    TrainingSet,
    derivative_errors,
    prior_thetas,
    relative_errors,
    solve_with_derivatives,
    train_dino,
)

HERE = pathlib.Path(__file__).resolve().parent
MODELS = (
    "nonlinear_poisson",
    "fisher_kpp",
    "variable_poisson",
    "gene_expression",
    "boundary_toy",
)
GRIDS = {1: (257,), 2: (65, 65)}
TEST = 200
"""Solutions that no training sees."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--counts", nargs="+", type=int, default=[25, 100, 400], metavar="N")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--out", default=str(HERE / "results" / "dino.json"))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    records = []
    print("| model | solutions | modes | u, with | u, without | du, with | du, without |")
    print("|---|---|---|---|---|---|---|")
    for model in arguments.models:
        problem, data, seconds = _solved(model, TEST + max(arguments.counts))
        test = data.at(np.arange(TEST))
        for count in arguments.counts:
            training = data.at(np.arange(TEST, min(TEST + count, data.count)))
            record = {"model": model, "count": training.count, "seconds_of_solving": seconds}
            for way, weight in (("with", 1.0), ("without", 0.0)):
                began = time.process_time()
                found = train_dino(
                    problem,
                    training,
                    key=jax.random.key(1),
                    steps=arguments.steps,
                    jacobian_weight=weight,
                    progress=False,
                )
                record[way] = _errors(found, test) | {"seconds": time.process_time() - began}
            records.append(record)
            write_records(pathlib.Path(arguments.out), records)
            print(line(record), flush=True)


def _solved(model: str, count: int) -> tuple[Any, TrainingSet, float]:
    """The problem, solutions with derivatives at prior draws, and the CPU seconds of that."""
    file = load_model(model).for_sampling()
    data, reference = file.observations(0), file.reference()
    keys = jax.random.split(jax.random.key(0))
    arguments = (reference, *data.model_args)
    thetas = prior_thetas(file.model, keys[0], count, *arguments, **data.model_kwargs)
    began = time.process_time()
    points = file.problem.domain.grid(*GRIDS[file.problem.domain.dimension])
    solved = solve_with_derivatives(reference, thetas, points, key=keys[1])
    return file.problem, solved, time.process_time() - began


def _errors(found: Trained, test: TrainingSet) -> dict[str, Any]:
    """Medians, and what one in ten exceeds."""
    network: Any = found.surrogate.network
    errors = {
        "u": relative_errors(found.surrogate, test),
        "du": derivative_errors(found.surrogate, test),
    }
    quantiles = {name: np.quantile(values, [0.5, 0.9]).tolist() for name, values in errors.items()}
    return {"modes": len(network.modes), **quantiles}


def line(record: dict[str, Any]) -> str:
    """A row of the table: median and ninth decile, in per cent."""
    cells = [
        " / ".join(f"{100 * value:.2g}" for value in record[way][name])
        for name in ("u", "du")
        for way in ("with", "without")
    ]
    modes = record["with"]["modes"]
    return f"| {record['model']} | {record['count']} | {modes} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

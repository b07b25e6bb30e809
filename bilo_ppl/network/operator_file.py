"""Save and load operators: hyper-parameters and weights in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._files import read_header, read_leaves, write_leaves
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.lora import merge_lora
from bilo_ppl.pde.problem import Problem

__all__ = ["load_operator", "save_operator"]

FORMAT = "bilo_ppl operator 1"


def save_operator(
    path: str | Path, operator: LocalOperator, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write an operator to ``path``; LoRA increments are merged into the matrices first.

    ``metadata`` (JSON values, such as the arguments of a run) is kept in the header. The file appears
    whole or not at all.
    """
    network = merge_lora(operator.network)
    header = {"format": FORMAT, **_describe(operator), "metadata": dict(metadata or {})}
    write_leaves(path, header, (network, operator.embedding))


def load_operator(path: str | Path, problem: Problem) -> LocalOperator:
    """Read an operator for ``problem``.

    Raises a ``ValueError`` when the file is not an operator, or was made for another problem: other
    class name, parameters, dimension, number of components or network inputs.
    """
    with Path(path).open("rb") as file:
        header = read_header(file, FORMAT)
        _check_problem(header, problem, path)
        like = _skeleton(header, problem)
        network, embedding = read_leaves(file, (like.network, like.embedding))
    return eqx.tree_at(lambda o: (o.network, o.embedding), like, (network, embedding))


def _describe(operator: LocalOperator) -> dict[str, Any]:
    problem, network = operator.problem, operator.network
    layers = merge_lora(network).layers
    embedding = operator.embedding
    shapes = {name: list(embedding.centre[name].shape) for name in embedding.names}
    return {
        "problem": type(problem).__name__,
        "parameters": list(problem.parameters),
        "dimension": problem.domain.dimension,
        "components": problem.components,
        "domain": [list(problem.domain.lower), list(problem.domain.upper)],
        "embedded": shapes,
        "inputs": layers[0].weight.shape[1] if network.frequencies is None else 0,
        "width": layers[0].weight.shape[0],
        "depth": len(layers) - 1,
        "fourier": 0 if network.frequencies is None else network.frequencies.shape[0],
        "residual": network.residual,
        "dtype": np.dtype(operator.dtype).name,
    }


def _check_problem(header: Mapping[str, Any], problem: Problem, path: str | Path) -> None:
    wanted = {
        "problem": type(problem).__name__,
        "parameters": list(problem.parameters),
        "dimension": problem.domain.dimension,
        "components": problem.components,
        "domain": [list(problem.domain.lower), list(problem.domain.upper)],
    }
    differing = {k: (header.get(k), v) for k, v in wanted.items() if header.get(k) != v}
    if differing:
        listed = "; ".join(f"{k}: file {a!r}, problem {b!r}" for k, (a, b) in differing.items())
        raise ValueError(
            f"{path} holds an operator of another problem ({listed}). Pretrain one for this problem, "
            "or give the file that belongs to it."
        )


def _skeleton(header: Mapping[str, Any], problem: Problem) -> LocalOperator:
    """An operator of the shapes in the header, whose values are to be overwritten."""
    shapes = header["embedded"]
    theta = {name: jnp.ones(shapes.get(name, ())) for name in problem.parameters}
    if header["dtype"] == "float64" and jnp.zeros(1).dtype != jnp.float64:
        raise ValueError(
            "the operator was saved in float64: switch it on with "
            "jax.config.update('jax_enable_x64', True) before loading."
        )
    return LocalOperator(
        problem,
        theta,
        key=jax.random.key(0),
        width=header["width"],
        depth=header["depth"],
        fourier=header["fourier"],
        residual=header["residual"],
        embedded=tuple(shapes),
        dtype=np.dtype(header["dtype"]),
    )

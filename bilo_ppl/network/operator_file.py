"""Save and load operators: hyper-parameters and weights in one file."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._leaves import read_header, read_leaves, write_leaves
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.lora import merge_lora
from bilo_ppl.network.mlp import MLP
from bilo_ppl.network.modulation import close_modulations
from bilo_ppl.network.operator_header import check_header
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.point_checks import SLACK
from bilo_ppl.pde.problem import Problem

__all__ = ["load_operator", "save_operator"]

FORMAT, EARLIER = "bilo_ppl operator 4", ("bilo_ppl operator 3",)
"""The earlier one has no checksum, and is else the same."""


def save_operator(
    path: str | Path, operator: Any, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a `LocalOperator` to ``path``; LoRA increments are merged into the matrices first.

    ``metadata`` (JSON values, such as the arguments of a run) is kept in the header. The file appears
    whole or not at all. Raises a ``TypeError`` for anything but a local operator.

    Examples:
        >>> path = folder / "decay.eqx"
        >>> bilo.save_operator(path, network, metadata={"seed": 0})
        >>> path.exists()
        True
    """
    if not isinstance(operator, LocalOperator):
        raise TypeError(
            f"save_operator: a {type(operator).__name__} is no LocalOperator, whose weights are what is "
            "saved; of a FineTuned give its .operator."
        )
    network = close_modulations(merge_lora(operator.network))
    header = {"format": FORMAT, **_describe(operator), "metadata": dict(metadata or {})}
    write_leaves(path, header, (network, operator.embedding, operator.home))


def load_operator(
    path: str | Path, problem: Problem, *, network: Callable[[Any, Any], Any] | None = None
) -> LocalOperator:
    """Read an operator for ``problem``.

    For a file whose network is no `MLP` give a ``network`` of the same structure; its weights do not
    matter. No code of the file is run. Raises a ``ValueError`` when the file is not an operator, is
    damaged, has weights that are not finite, or was made for another problem (other class name,
    parameters, dimension, number of components or network inputs) or network.

    Examples:
        >>> loaded = bilo.load_operator(folder / "decay.eqx", problem)
        >>> point = jnp.array([0.5])
        >>> bool(loaded.field(start)(point) == network.field(start)(point))
        True
    """
    with Path(path).open("rb") as file:
        header = read_header(file, FORMAT, EARLIER)
        _check_problem(header, problem, path)
        check_header(header, os.fstat(file.fileno()).st_size, path)
        _check_network(header, network, path)
        like = _skeleton(header, problem, network)
        parts = read_leaves(file, (like.network, like.embedding, like.home), header)
    numbers = jax.tree.leaves(eqx.filter(parts, eqx.is_inexact_array))
    if not all(np.isfinite(leaf).all() for leaf in numbers):
        raise ValueError(
            f"{path}: its weights are not all finite, so that no solution can be had from it; pretrain "
            "an operator anew."
        )
    operator = eqx.tree_at(lambda o: (o.network, o.embedding, o.home), like, parts)
    points = _points(header, problem, path)
    return operator if points is None else operator.with_points(points)


def _of_problem(problem: Problem) -> dict[str, Any]:
    """What an operator's file must agree in with the problem that it is read for."""
    return {
        "problem": type(problem).__name__,
        "parameters": list(problem.parameters),
        "dimension": problem.domain.dimension,
        "components": problem.components,
        "domain": [list(problem.domain.lower), list(problem.domain.upper)],
    }


def _describe(operator: LocalOperator) -> dict[str, Any]:
    embedding = operator.embedding
    return {
        **_of_problem(operator.problem),
        "embedded": {name: list(embedding.centre[name].shape) for name in embedding.names},
        "home": {name: list(value.shape) for name, value in operator.home.items()},
        "width": embedding.matrix.shape[0],
        "dtype": np.dtype(operator.dtype).name,
        "points": None if operator.collocation is None else operator.collocation.tolist(),
        "network": _describe_network(merge_lora(operator.network)),
    }


def _describe_network(network: Any) -> dict[str, Any]:
    """The arguments of an MLP; of another module its class and the shapes of its arrays."""
    if not isinstance(network, MLP):
        return {"class": type(network).__qualname__, "shapes": _shapes(network)}
    frequencies = network.frequencies
    return {
        "class": "MLP",
        "depth": len(network.layers) - 1,
        "fourier": 0 if frequencies is None else frequencies.value.shape[0],
        "residual": network.residual,
    }


def _shapes(network: Any) -> list[list[int]]:
    return [list(np.shape(leaf)) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array))]


def _check_problem(header: Mapping[str, Any], problem: Problem, path: str | Path) -> None:
    wanted = _of_problem(problem)
    differing = {k: (header.get(k), v) for k, v in wanted.items() if header.get(k) != v}
    if differing:
        listed = "; ".join(f"{k}: file {a!r}, problem {b!r}" for k, (a, b) in differing.items())
        raise ValueError(
            f"{path} holds an operator of another problem ({listed}). Pretrain one for this problem, "
            "or give the file that belongs to it."
        )


def _check_network(header: Mapping[str, Any], network: Any, path: str | Path) -> None:
    found = header["network"]
    if network is None and found["class"] != "MLP":
        raise ValueError(
            f"{path} holds a network of the class {found['class']}; give load_operator a network of "
            "that structure by network=."
        )
    wanted = found if network is None else _describe_network(merge_lora(network))
    if wanted != found:
        raise ValueError(
            f"{path} holds another network than the one given: file {found}, given {wanted}."
        )


def _points(header: Mapping[str, Any], problem: Problem, path: str | Path) -> np.ndarray | None:
    """The collocation points of a header, checked."""
    if header.get("points") is None:
        return None
    domain = problem.domain
    try:
        points = np.array(header["points"], float)
        good = points.ndim == 2 and points.shape[1] == domain.dimension and len(points)
        good = good and Box.contains(domain, points, SLACK).all()
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f"{path}: its collocation points are no points (n, {domain.dimension}) of the domain "
            f"{domain}; the file is damaged."
        )
    return points


def _skeleton(header: Mapping[str, Any], problem: Problem, network: Any) -> LocalOperator:
    """An operator of the shapes in the header, whose values are to be overwritten."""
    shapes = {**header["embedded"], **header["home"]}
    theta = {name: jnp.ones(shapes.get(name, ())) for name in problem.parameters}
    if header["dtype"] == "float64" and jnp.zeros(1).dtype != jnp.float64:
        raise ValueError(
            "the operator was saved in float64: switch it on with "
            "jax.config.update('jax_enable_x64', True) before loading."
        )
    shape = {k: v for k, v in header["network"].items() if k in ("depth", "fourier", "residual")}
    like = LocalOperator(
        problem,
        theta,
        key=jax.random.key(0),
        network=network,
        width=header["width"],
        embedded=tuple(header["embedded"]),
        dtype=np.dtype(header["dtype"]),
        **(shape if network is None else {}),
    )
    return eqx.tree_at(lambda o: o.home, like, {name: like.home[name] for name in header["home"]})

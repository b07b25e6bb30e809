"""Save and load surrogates: sizes and weights in one file."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._leaves import read_header, read_leaves, write_leaves
from bilo_ppl.pde.problem import Problem
from bilo_ppl.surrogates.deeponet import DeepONet
from bilo_ppl.surrogates.dino import DINO
from bilo_ppl.surrogates.encoding import ThetaEncoding
from bilo_ppl.surrogates.fno import FNO
from bilo_ppl.surrogates.surrogate import Surrogate

__all__ = ["load_surrogate", "save_surrogate"]

FORMAT = "bilo_ppl surrogate 1"


def save_surrogate(path: str | Path, surrogate: Surrogate) -> None:
    """Write a surrogate; the file appears whole or not at all.

    >>> from bilo_ppl.surrogates import save_surrogate
    >>> save_surrogate(folder / "surrogate.eqx", trained.surrogate)
    >>> (folder / "surrogate.eqx").exists()
    True
    """
    encoding, home = surrogate.encoding, surrogate.home_theta
    header = {
        "format": FORMAT,
        "parameters": list(surrogate.problem.parameters),
        "components": surrogate.problem.components,
        "thetas": encoding.size,
        "sensors": list(encoding.sensors.shape),
        "home": {name: list(np.shape(value)) for name, value in home.items()},
        "network": _sizes(surrogate.network),
    }
    write_leaves(path, header, _parts(surrogate))


def load_surrogate(path: str | Path, problem: Problem) -> Surrogate:
    """Read a surrogate for ``problem``. No code of the file is run.

    Raises a ``ValueError`` for a file that is no surrogate, is damaged, or was made for other parameters
    or another number of components.

    >>> from bilo_ppl.surrogates import load_surrogate
    >>> load_surrogate(folder / "surrogate.eqx", problem).problem.parameters
    ('r',)
    """
    with Path(path).open("rb") as file:
        header = read_header(file, FORMAT)
        if header["parameters"] != list(problem.parameters) or (
            header["components"] != problem.components
        ):
            raise ValueError(
                f"{path}: the surrogate is for the parameters {header['parameters']} and "
                f"{header['components']} component(s); the problem has {list(problem.parameters)} and "
                f"{problem.components}."
            )
        like = eqx.filter_eval_shape(_skeleton, header)
        network, encoding, size, home = read_leaves(file, like, header)
    names = tuple(header["parameters"])
    encoding = ThetaEncoding(names, *encoding)
    return Surrogate(problem, network, encoding, size, home)


def _parts(surrogate: Surrogate) -> Any:
    encoding = surrogate.encoding
    numbers = (encoding.sensors, encoding.centre, encoding.scale)
    return surrogate.network, numbers, surrogate.size, surrogate.home_theta


def _sizes(network: DeepONet | FNO | DINO) -> dict[str, Any]:
    if isinstance(network, DeepONet):
        trunk = network.trunk
        kind = {"kind": "DeepONet", "inputs": trunk.in_size, "terms": network.terms}
        return {**kind, "width": trunk.width_size, "depth": trunk.depth}
    if isinstance(network, DINO):
        tuned = network.nonlinear
        kind = {"kind": "DINO", "axes": [axis.size for axis in network.axes]}
        shape = {"inputs": tuned.in_size, "rank": tuned.out_size}
        return {**kind, **shape, "width": tuned.width_size, "depth": tuned.depth}
    return {
        "kind": "FNO",
        "lower": network.lower,
        "upper": network.upper,
        "shape": network.shape,
        "sampled": network.sampled,
        "channels": network.enter.shape[0],
        "modes": network.layers[0].modes,
        "depth": len(network.layers),
    }


def _skeleton(header: Any) -> Any:
    sizes = dict(header["network"])
    kind, key = sizes.pop("kind"), jax.random.key(0)
    thetas, components = header["thetas"], header["components"]
    network: Any
    if kind == "DeepONet":
        network = DeepONet(sizes.pop("inputs"), thetas, components, key=key, **sizes)
    elif kind == "DINO":
        grid, inputs, rank = sizes.pop("axes"), sizes.pop("inputs"), sizes.pop("rank")
        shapes = (inputs, thetas), (components, *grid), (rank, components, *grid)
        network = DINO([*map(jnp.zeros, grid)], *map(jnp.zeros, shapes), key=key, **sizes)
    else:
        corners = sizes.pop("lower"), sizes.pop("upper"), tuple(sizes.pop("shape"))
        network = FNO(*corners, thetas, components, key=key, **sizes)
    numbers = (
        jnp.zeros(header["sensors"], jnp.float32),
        jnp.zeros(thetas, jnp.float32),
        jnp.zeros(thetas, jnp.float32),
    )
    home = {n: jnp.zeros(s, jnp.result_type(float)) for n, s in header["home"].items()}
    return network, numbers, jnp.float32(0), home

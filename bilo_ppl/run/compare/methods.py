"""The methods that are compared, by name."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bilo_ppl.run.compare import by_networks, by_operators, by_run, by_surrogates
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task

__all__ = ["ALIASES", "DEFAULT", "METHODS", "Method"]


class Method(NamedTuple):
    """How a task is done, and what that is, in words."""

    do: Callable[[Task], Outcome]
    help: str


METHODS = {
    "bilo": Method(by_run.bilo, "this package, as `bilo-ppl run` does it"),
    "bilo-papers": Method(
        by_run.papers, "the papers' algorithm: Adam, residual gradient, weights carried along, HMC"
    ),
    "numerical": Method(by_operators.numerical, "NUTS with the model file's numerical operator"),
    "rwm": Method(by_operators.random_walk, "random-walk Metropolis with the numerical operator"),
    "pcn": Method(by_operators.crank_nicolson, "preconditioned Crank-Nicolson with the same"),
    "adjoint": Method(
        by_operators.adjoint, "point estimate by the discrete adjoint of the numerical operator"
    ),
    **{
        f"pinn-{weight}": Method(
            partial(by_networks.pinn, weight), f"PINN with a data weight of {weight}"
        )
        for weight in (1, 10, 100, 1000)
    },
    "b-pinn": Method(by_networks.b_pinn, "Bayesian PINN, NUTS on all weights from the mode"),
    "deeponet": Method(
        by_surrogates.deeponet,
        f"NUTS with a DeepONet, trained on {by_surrogates.COUNT} solutions at prior draws",
    ),
    "fno": Method(by_surrogates.fno, "the same with a Fourier neural operator"),
    "dino": Method(
        by_surrogates.dino, "the same with a DINO, which learns derivatives of the solutions too"
    ),
}

ALIASES = {"pinn": ("pinn-1", "pinn-10", "pinn-100", "pinn-1000")}

DEFAULT = "bilo,bilo-papers,numerical,pinn,b-pinn"

"""The internals of NumPyro's HMC that the kernels stand on, checked when this module is imported.

No other file of the package touches them. What is relied upon, beyond names and signatures:

- `build_tree` never looks inside ``z``; it hands the integrator plain 4-tuples in the order of
  `IntegratorState`, and the edges of its result enclose every leaf that was built, those of a last,
  turning or diverging subtree included (tests/mcmc/test_kernels.py counts them);
- `warmup_adapter` reads nothing of its point but the first entry, the position.
"""

import copy
import importlib
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import numpyro

__all__ = [
    "HMCAdaptState",
    "IntegratorState",
    "MCMCKernel",
    "TreeInfo",
    "arguments_of",
    "build_tree",
    "check_contract",
    "constrain_fn",
    "euclidean_kinetic_energy",
    "fresh_kernel",
    "init_to_uniform",
    "initialize_model",
    "is_forward_mode",
    "is_prng_key",
    "kinetic_gradient",
    "momentum_generator",
    "searches_for_step_size",
    "warmup_adapter",
]

TESTED = ((0, 21), (0, 22))
"""First and last minor version of NumPyro that the tests have run with."""

_FIELDS = {
    ("infer.hmc_util", "IntegratorState"): ("z", "r", "potential_energy", "z_grad"),
}
_SOME_FIELDS = {
    ("infer.hmc_util", "TreeInfo"): (
        "z_left",
        "z_right",
        "z_proposal",
        "z_proposal_pe",
        "z_proposal_grad",
        "z_proposal_energy",
        "diverging",
        "sum_accept_probs",
        "num_proposals",
    ),
    ("infer.hmc", "HMCState"): (
        "i",
        "z",
        "z_grad",
        "potential_energy",
        "num_steps",
        "accept_prob",
        "mean_accept_prob",
        "diverging",
        "adapt_state",
    ),
    ("infer.hmc_util", "HMCAdaptState"): ("step_size", "inverse_mass_matrix", "mass_matrix_sqrt"),
}
_FIRST_ARGUMENTS = {
    ("infer.hmc_util", "build_tree"): (
        "verlet_update",
        "kinetic_fn",
        "verlet_state",
        "inverse_mass_matrix",
        "step_size",
        "rng_key",
    ),
    ("infer.hmc_util", "_kinetic_grad"): ("kinetic_fn", "inverse_mass_matrix", "r"),
    ("infer.hmc_util", "euclidean_kinetic_energy"): ("inverse_mass_matrix", "r"),
    ("infer.hmc", "momentum_generator"): ("prototype_r", "mass_matrix_sqrt", "rng_key"),
    ("infer.hmc_util", "warmup_adapter"): ("num_adapt_steps",),
    ("infer.util", "initialize_model"): ("rng_key", "model"),
    ("infer.util", "constrain_fn"): ("model", "model_args", "model_kwargs", "params"),
    ("infer", "init_to_uniform"): ("site",),
    ("util", "is_prng_key"): ("key",),
    ("infer.mcmc", "MCMCKernel"): (),
}
_KEYWORDS = {
    ("infer.hmc_util", "build_tree"): ("max_delta_energy", "max_tree_depth"),
    ("infer.hmc_util", "warmup_adapter"): (
        "find_reasonable_step_size",
        "adapt_step_size",
        "adapt_mass_matrix",
        "dense_mass",
        "target_accept_prob",
        "regularize_mass_matrix",
    ),
    ("infer.util", "initialize_model"): (
        "init_strategy",
        "dynamic_args",
        "model_args",
        "model_kwargs",
        "validate_grad",
    ),
}


def _find(where: tuple[str, str]) -> Any:
    module, name = where
    return getattr(importlib.import_module(f"numpyro.{module}"), name, None)


def _arguments(where: tuple[str, str]) -> tuple[str, ...]:
    return tuple(inspect.signature(_find(where)).parameters)


def _breaches() -> list[str]:
    """What differs from what the kernels need, in words."""
    needed = _FIELDS.keys() | _SOME_FIELDS.keys() | _FIRST_ARGUMENTS.keys()
    absent = sorted(".".join(where) for where in needed if _find(where) is None)
    if absent:
        return [f"numpyro.{name} does not exist" for name in absent]
    found = []
    for where, fields in _FIELDS.items():
        if _find(where)._fields != fields:
            found.append(f"{where[1]} has the fields {_find(where)._fields}, not {fields}")
    for where, fields in _SOME_FIELDS.items():
        found += [f"{where[1]} has no field {f}" for f in fields if f not in _find(where)._fields]
    for where, names in _FIRST_ARGUMENTS.items():
        if names and _arguments(where)[: len(names)] != names:
            found.append(f"{where[1]} takes {_arguments(where)}, not {names} first")
    for where, names in _KEYWORDS.items():
        found += [f"{where[1]} takes no {n}" for n in names if n not in _arguments(where)]
    return found


def check_contract() -> None:
    """Raise an ``ImportError`` unless the installed NumPyro has the internals that are used here.

    A version newer than those tested, whose names and signatures still fit, is a warning only.
    """
    tested = " to ".join(".".join(map(str, version)) for version in TESTED)
    version = tuple(int(part) for part in numpyro.__version__.split(".")[:2])
    found = _breaches()
    if found or version < TESTED[0]:
        raise ImportError(
            f"bilo_ppl.mcmc works with NumPyro {tested}, not with {numpyro.__version__}: "
            + ("; ".join(found) or "it is too old")
            + ". numpyro.infer.NUTS takes the same model."
        )
    if version > TESTED[1]:
        warnings.warn(
            f"bilo_ppl.mcmc was tested with NumPyro {tested}, not with {numpyro.__version__}: run "
            "tests/mcmc/test_kernels.py before trusting a chain.",
            RuntimeWarning,
            stacklevel=2,
        )


check_contract()

if TYPE_CHECKING:
    from numpyro.infer.hmc_util import HMCAdaptState, IntegratorState, TreeInfo
else:
    HMCAdaptState = _find(("infer.hmc_util", "HMCAdaptState"))
    IntegratorState = _find(("infer.hmc_util", "IntegratorState"))
    TreeInfo = _find(("infer.hmc_util", "TreeInfo"))
build_tree = _find(("infer.hmc_util", "build_tree"))
euclidean_kinetic_energy = _find(("infer.hmc_util", "euclidean_kinetic_energy"))
kinetic_gradient = _find(("infer.hmc_util", "_kinetic_grad"))
warmup_adapter = _find(("infer.hmc_util", "warmup_adapter"))
momentum_generator = _find(("infer.hmc", "momentum_generator"))
constrain_fn = _find(("infer.util", "constrain_fn"))
initialize_model = _find(("infer.util", "initialize_model"))
init_to_uniform = _find(("infer", "init_to_uniform"))
is_prng_key = _find(("util", "is_prng_key"))
MCMCKernel = _find(("infer.mcmc", "MCMCKernel"))


def arguments_of(mcmc: Any) -> tuple[tuple, dict[str, Any]]:
    """The model's arguments of a run of `numpyro.infer.MCMC`, positional and by name."""
    return mcmc._args, mcmc._kwargs


def searches_for_step_size(kernel: Any) -> bool:
    """Whether a `numpyro.infer.HMC` or ``NUTS`` looks for a step size where it starts."""
    return kernel._find_heuristic_step_size


def is_forward_mode(kernel: Any) -> bool:
    """Whether a `numpyro.infer.HMC` differentiates its potential by forward mode."""
    return kernel._forward_mode_differentiation


def fresh_kernel(kernel: Any) -> Any:
    """A copy of a `numpyro.infer.HMC` or ``NUTS`` that has not been initialised.

    NumPyro's own, once it has run vectorised chains, maps over a batch of them ever after.
    """
    copied = copy.copy(kernel)
    copied._init_fn = copied._sample_fn = None
    return copied

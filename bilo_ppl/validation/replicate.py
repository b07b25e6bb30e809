"""A replicate of a calibration: a truth from the prior, its data, the posterior's draws, and ranks."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size

from bilo_ppl.mcmc._numpyro import constrain_fn
from bilo_ppl.mcmc.blocks import fresh, strong
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.handlers import replace_operator, warm_start, without_solving
from bilo_ppl.ppl.look import look_at
from bilo_ppl.validation.uniformity import rank

__all__ = ["LIKELIHOOD", "Replicates", "Setting", "is_double"]

LIKELIHOOD = "log-likelihood"
"""Name of the rank of the log-likelihood, beside those of the unknowns."""

TRIES = 1000
"""Truths that are drawn at most until the reference solves the equation at one."""

_COUNTS = ("num_steps", "inner_steps", "diverging")
"""Statistics of transitions that are added up, as far as a kernel has them; and solves that failed."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all replicates share. It can be pickled where its parts can."""

    kernel: Any
    """A kernel with a model, never run."""
    args: tuple
    kwargs: Mapping[str, Any]
    """The model's arguments without the data."""
    data: tuple[str, ...]
    """Names of sites of the generator, and of the arguments of the model that they become."""
    generator: Callable
    """The model that truths and data come from."""
    reference: Mapping[str, AbstractSolutionOperator]
    """By solution site: operators for data and log-likelihoods; other sites keep their own."""
    warmup: int
    kept: int
    thin: int
    key: tuple[int, ...]
    """Data of the key."""
    double: bool
    """Whether JAX has double precision enabled."""


def is_double() -> bool:
    """Whether JAX has double precision enabled here."""
    return jnp.result_type(float) == jnp.float64


class Replicates:
    """The replicates of a setting, compiled for the shapes of the first one's data."""

    def __init__(self, setting: Setting):
        if setting.double != is_double():
            raise ValueError(
                "calibrate: this process has other precision than the one that began; start workers "
                f"with JAX_ENABLE_X64={int(setting.double)} in their environment."
            )
        self.setting = setting
        self._key = jax.random.wrap_key_data(jnp.asarray(setting.key, jnp.uint32))
        self._draw = eqx.filter_jit(self._drawn)
        self._compiled: Any = None
        self._shapes: Any = None
        self.compile_seconds = 0.0

    def record(self, index: int) -> dict[str, Any]:
        """Do one: its ranks by name, and what its chain did. Plain values, for JSON.

        Raises a ``ValueError`` where the reference solves at no truth, data have another shape than
        those before, or nothing can be drawn.
        """
        key_truth, key_chain = jax.random.split(jax.random.fold_in(self._key, index))
        truth, data, redrawn = self._truth(key_truth)
        run = self._for(data, truth, key_chain)
        begun = time.process_time()
        draws, likelihoods, counts = jax.device_get(run(self.setting.args, data, truth, key_chain))
        seconds = time.process_time() - begun
        truth = jax.device_get(truth)
        scalars = dict(_scalars(truth, draws))
        ranks = {name: rank(value, drawn) for name, (value, drawn) in scalars.items()}
        ranks[LIKELIHOOD] = rank(likelihoods[-1], likelihoods[:-1])
        effective = min(_effective(drawn) for _, drawn in scalars.values())
        return {
            "index": index,
            "ranks": ranks,
            "truths": {name: float(value) for name, (value, _) in scalars.items()},
            "redrawn": redrawn,
            "effective_draws": effective,
            "cpu_seconds": round(seconds, 4),
        } | {name: value.item() for name, value in counts.items()}

    def _truth(self, key: Any) -> tuple[Any, Any, int]:
        """Values of the unknowns at which the reference solves, data by argument, how many were not."""
        for attempt in range(TRIES):
            truth, data, solved = self._draw(self.setting.args, jax.random.fold_in(key, attempt))
            if solved:
                return truth, data, attempt
        raise ValueError(
            f"calibrate: the reference solved the equation at none of {TRIES} truths from the prior."
        )

    def _drawn(self, args: tuple, key: Any) -> tuple[Any, Any, Any]:
        setting = self.setting
        solves = warm_start()
        with solves, replace_operator(operators=dict(setting.reference)):
            tape = handlers.trace(handlers.seed(setting.generator, key)).get_trace(
                *args, **setting.kwargs
            )
        data = {name: _site(tape, name)["value"] for name in setting.data}
        look = look_at(setting.kernel.model, args, {**setting.kwargs, **data})
        truth = {name: _site(tape, name)["value"] for name in look.latent}
        solved = [info.converged for info in solves.infos.values()]
        return truth, data, jnp.all(jnp.asarray(solved)) if solved else jnp.array(True)

    def _for(self, data: Any, *others: Any) -> Callable:
        """The compiled run; once, whatever the number of replicates."""
        shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in data.items()}
        if self._compiled is None:
            begun = time.process_time()
            lowered = eqx.filter_jit(self._run).lower(self.setting.args, data, *others)
            self._compiled, self._shapes = lowered.compile(), shapes
            self.compile_seconds = time.process_time() - begun
        if shapes != self._shapes:
            raise ValueError(
                f"calibrate: data of the shapes {_named(shapes)} after others of {_named(self._shapes)}: "
                "each would be compiled anew; fill them up to one shape, with values that do not count."
            )
        return self._compiled

    def _run(self, args: tuple, data: Any, truth: Any, key: Any) -> tuple[Any, Any, Any]:
        """The kept draws by site; their log-likelihoods, that of the truth last; counts over all."""
        setting = self.setting
        kwargs = {**setting.kwargs, **data}
        kernel = fresh(setting.kernel)

        def transition(carry, _):
            state, counts = carry
            state = kernel.sample(state, args, kwargs)
            return (strong(state), _added(counts, state)), None

        def draw(carry, _):
            carry, _ = jax.lax.scan(transition, carry, None, setting.thin)
            return carry, getattr(carry[0], kernel.sample_field)

        state = strong(kernel.init(key, setting.warmup, model_args=args, model_kwargs=kwargs))
        nothing = _added({}, state)
        (state, _), _ = jax.lax.scan(transition, (state, nothing), None, setting.warmup)
        (state, counts), z = jax.lax.scan(draw, (state, nothing), None, setting.kept)
        with without_solving():
            draws = jax.vmap(lambda z: constrain_fn(kernel.model, args, kwargs, z))(z)
        all_ = jax.tree.map(lambda many, one: jnp.append(many, one[None], axis=0), draws, truth)
        likelihoods = jax.lax.map(lambda values: self._log_likelihood(args, kwargs, values), all_)
        return draws, likelihoods, counts

    def _log_likelihood(self, args: tuple, kwargs: Mapping[str, Any], values: Any) -> Any:
        """Of the model with the reference; -inf where it does not solve."""
        model = handlers.seed(self.setting.kernel.model, jax.random.key(0))
        model = handlers.substitute(model, data=values)
        with replace_operator(operators=dict(self.setting.reference)):
            tape = handlers.trace(model).get_trace(*args, **kwargs)
        total = jnp.zeros(())
        for site in tape.values():
            if site["type"] == "sample" and site["is_observed"]:
                part = jnp.sum(site["fn"].log_prob(site["value"]))
                total += part if site["scale"] is None else site["scale"] * part
        return jnp.where(jnp.isnan(total), -jnp.inf, total)


def _added(counts: Mapping[str, Any], state: Any) -> dict[str, Any]:
    """The counts with those of a transition; of none, zeros."""
    found = {name: getattr(state, name) for name in _COUNTS if name in state._fields}
    if "inner_converged" in state._fields:
        found["unsolved"] = ~state.inner_converged
    zero = jnp.zeros((), jnp.result_type(int))
    if not counts:
        return dict.fromkeys(found, zero)
    return {name: counts[name] + value.astype(zero.dtype) for name, value in found.items()}


def _site(tape: Mapping[str, Any], name: str) -> Any:
    if name not in tape:
        raise ValueError(
            f"calibrate: the generator has no site {name!r}, only {sorted(tape)}; data and unknowns are "
            "drawn under their names in the model."
        )
    return tape[name]


def _scalars(truth: Mapping[str, Any], draws: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every scalar of every unknown with a label: its true value and its draws (kept,)."""
    for name, value in truth.items():
        columns = np.asarray(draws[name]).reshape(len(draws[name]), -1)
        for j, one in enumerate(np.ravel(value)):
            yield name if np.ndim(value) == 0 else f"{name}[{j}]", (one, columns[:, j])


def _effective(draws: np.ndarray) -> float:
    """Effective number of draws (kept,); 1 of a chain that never moved."""
    return float(effective_sample_size(draws[None])) if np.ptp(draws) > 0 else 1.0


def _named(shapes: Any) -> dict[str, Any]:
    return {name: shape for name, (shape, _) in shapes.items()}

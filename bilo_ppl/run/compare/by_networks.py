"""Networks that are trained on data and equation together: PINN and B-PINN."""

import numpy as np
from numpyro.infer import NUTS, init_to_value

from bilo_ppl.baselines import (
    FreeNetwork,
    bpinn,
    fit_pinn,
    mean_field,
    mode,
    solutions_at_draws,
    values_of,
)
from bilo_ppl.baselines.bpinn import NETWORK
from bilo_ppl.mcmc import sample_in_blocks
from bilo_ppl.run.compare.by_operators import means
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.map.scores import compared_points

__all__ = ["b_pinn", "pinn"]

STEPS = 20_000
"""Of Adam, for a PINN and for the mode of a B-PINN; a sixth as many for the mean field."""

WIDTH = 50
"""Of the two hidden layers of a B-PINN, as in its paper."""

RESIDUAL_SD = 0.01
"""Of the residual's pseudo-observations: that of the paper's less noisy data on the right-hand side."""

TREE_DEPTH = 8
"""At most 255 leapfrog steps: with thousands of weights every trajectory takes all of them."""

FEWER = 2
"""Chains, and draws of each for one of another method: a draw costs 255 gradients."""

U_DRAWS = 200
"""Draws over which u is averaged."""


def pinn(weight: int, task: Task) -> Outcome:
    """PINN with a data weight: an estimate."""
    args, kwargs = task.arguments
    network = _network(task)
    with task.spent.stage("training"):
        found = fit_pinn(
            task.file.model,
            task.key(1),
            network,
            *args,
            data_weight=weight,
            steps=STEPS,
            progress=False,
            **kwargs,
        )
    site = next(iter(found.solutions))
    return Outcome(
        found.values,
        found.solution(compared_points(task.file.problem), site),
        evaluations=STEPS,
        notes=f"mean squared residual {found.pde_loss:.1e}",
        settings={"data weight": weight, "steps of Adam": STEPS, **task.stated_sizes},
    )


def b_pinn(task: Task) -> Outcome:
    """Bayesian PINN: Adam to the mode, a mean field for the first mass matrix, NUTS."""
    args, kwargs = task.arguments
    model, network = task.file.model, _network(task, width=WIDTH, depth=2)
    joint = bpinn(model, residual_sd=RESIDUAL_SD)
    with task.spent.stage("start"):
        z = mode(model, joint, task.key(1), network, *args, steps=STEPS, progress=False, **kwargs)
        _, variances = mean_field(joint, task.key(2), z, network, *args, steps=STEPS // 6, **kwargs)
    start = values_of(joint, z, network, *args, **kwargs)
    kernel = NUTS(
        joint,
        step_size=0.01,
        inverse_mass_matrix=variances,
        max_tree_depth=TREE_DEPTH,
        init_strategy=init_to_value(values=start),
    )
    with task.spent.stage("sampling"):
        draws = sample_in_blocks(
            kernel,
            task.key(3),
            network,
            *args,
            num_warmup=-(-task.warmup // FEWER),
            num_samples=-(-task.samples // FEWER),
            num_chains=-(-task.chains // FEWER),
            progress=False,
            **kwargs,
        )
    flat = draws.get_samples()
    every = max(len(next(iter(flat.values()))) // U_DRAWS, 1)
    some = {name: value[::every] for name, value in flat.items()}
    points = compared_points(task.file.problem)
    u = solutions_at_draws(model, some, points, network, *args, **kwargs)
    site = next(iter(u))
    weights = {NETWORK.format(name) for name in u}
    samples = {name: v for name, v in draws.samples.items() if name not in weights}
    return Outcome(
        means(samples),
        np.mean(u[site], axis=0),
        samples,
        diverging=int(draws.statistics["diverging"].sum()),
        evaluations=int(draws.statistics["num_steps"].sum()),
        notes=f"{sum(v.size for v in start.values())} unknowns, residual sd {RESIDUAL_SD:g}",
        settings={
            "warm-up": -(-task.warmup // FEWER),
            "width": WIDTH,
            "depth": 2,
            "residual sd": RESIDUAL_SD,
            "steps of Adam to the mode": STEPS,
            "largest tree depth": TREE_DEPTH,
        },
    )


def _network(task: Task, **shape: int) -> FreeNetwork:
    given = {**task.file.architecture, **shape}
    return FreeNetwork(task.file.problem, task.file.start, key=task.key(0), **given)

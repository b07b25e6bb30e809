"""Data and model must agree on whether there are experiments: seen before anything runs."""

import inspect
import os
from collections.abc import Callable

from bilo_ppl._pages import see
from bilo_ppl.pde.data import Observations

__all__ = ["with_experiments_of"]


def with_experiments_of(
    model: Callable, found: Observations, model_path: str | os.PathLike, source: str
) -> Observations:
    """The observations, if the model has a parameter ``experiment`` where they have experiments.

    Raises a ``ValueError`` that says what to do if it has none, or if it requires experiments and the
    data, which come from ``source``, have none.
    """
    parameter = inspect.signature(model).parameters.get("experiment")
    if found.experiment is not None and parameter is None:
        raise ValueError(
            f"{source} has a column experiment ({', '.join(found.experiment_names)}), but the model of "
            f"{model_path} has no parameter of that name. Give it one, experiment=None, or leave the "
            f"column out. {see('Data', 'data')}"
        )
    required = parameter is not None and parameter.default is inspect.Parameter.empty
    if found.experiment is None and required:
        raise ValueError(
            f"{source} has no column experiment, which the model of {model_path} requires. Add the "
            "column, or give the model's parameter a default, experiment=None."
        )
    return found

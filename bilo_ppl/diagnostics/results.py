"""Results as an ArviZ object, in memory and in a file. All calls to ArviZ are in this module.

ArviZ 0.23 (Python 3.11) gives an `InferenceData`, ArviZ 1 an xarray `DataTree`. Both index groups
and variables alike: ``idata["posterior"]["k"]`` has axes ``(chain, draw, ...)``.
"""

import os
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from bilo_ppl._files import replacing
from bilo_ppl.diagnostics import _groups
from bilo_ppl.diagnostics.results_file import check_results_file
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.operators.base import SolveInfo

__all__ = [
    "ChainDiagnostics",
    "add_certificates",
    "chain_diagnostics",
    "load",
    "save",
    "to_arviz",
]


def _arviz() -> Any:
    """ArviZ, without the notice of 0.23, once a day at import, that it will change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        import arviz
    return arviz


def _is_legacy(arviz: Any) -> bool:
    return int(arviz.__version__.split(".")[0]) < 1


def to_arviz(
    mcmc: Any,
    *,
    model_args: tuple | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    inner: Mapping[str, SolveInfo] | None = None,
    observed: Mapping[str, Any] | None = None,
    log_likelihood: bool = False,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> Any:
    """The draws, sampler statistics and data of a finished run, for ArviZ.

    ``mcmc`` is a `numpyro.infer.MCMC`, or `Draws` (of `sample_in_blocks`, or of `Laplace.sample`).

    Groups: ``posterior``; ``sample_stats`` under ArviZ's names (``n_steps``, ``acceptance_rate``,
    ``lp``, ...); ``observed_data``; and ``log_likelihood`` if asked for. No PDE is solved, except
    that ``log_likelihood=True`` solves at every draw.

    ``inner`` is the result of `inner_statistics`; over solution sites its steps are summed, and its
    losses and flags are the worst. It becomes ``inner_steps``, ``inner_loss`` and
    ``inner_converged``, or, if the kernel recorded these for its transitions, ``pure_inner_steps``
    and so on.

    ``observed`` are data by site name, and ``{}`` leaves them out. If not given they are found by
    running the model with every solution replaced by zero, at the arguments of the run or at
    ``model_args`` and ``model_kwargs``. ``coords`` and ``dims`` are ArviZ's. Raises a
    ``ValueError`` if the draws are not a mapping by site name, or ``inner`` does not have their
    shape.

    Examples:
        >>> idata = bilo.to_arviz(run)
        >>> list(idata.groups())
        ['posterior', 'sample_stats', 'observed_data']
        >>> idata["posterior"]["r"].shape, idata["observed_data"]["y"].shape
        ((2, 200), (10,))
    """
    draws = Draws.of(mcmc)
    samples, model = draws.samples, draws.model
    args = draws.args if model_args is None else model_args
    kwargs = draws.kwargs if model_kwargs is None else model_kwargs
    stats = _groups.sample_stats(draws.statistics)
    solved_in = "transition" if "inner_steps" in stats else "draw"
    if inner:
        shape = np.shape(next(iter(samples.values())))[:2]
        prefix = "pure_inner_" if "inner_steps" in stats else "inner_"
        stats |= _groups.inner_stats(inner, shape, prefix)
    if observed is None:
        observed = _groups.observations(model, args, kwargs) if model is not None else {}
    groups = {"posterior": dict(samples), "sample_stats": stats, "observed_data": dict(observed)}
    if log_likelihood:
        groups["log_likelihood"] = _groups.log_likelihoods(
            cast(Callable, model), samples, args, kwargs
        )
    idata = _from_dicts(groups, coords, dims)
    if stats:
        idata["sample_stats"].attrs["inner_solves_of"] = solved_in
    return idata


def _from_dicts(groups: dict[str, dict], coords: Any, dims: Any) -> Any:
    arviz = _arviz()
    groups = {
        name: {site: np.asarray(value) for site, value in content.items()}
        for name, content in groups.items()
        if content
    }
    if not _is_legacy(arviz):
        return arviz.from_dict(groups, coords=coords, dims=dims, check_conventions=False)
    with warnings.catch_warnings():
        # The axes are known to be (chain, draw), also where there are more chains than draws.
        warnings.filterwarnings("ignore", message="More chains")
        return arviz.from_dict(**groups, coords=coords, dims=dims)


def add_certificates(idata: Any, certificates: Mapping[str, Any]) -> None:
    """Add a group ``certificate`` with a row for each `Certificate` of the run, by name.

    ``idata["certificate"]["kl_divergence"].sel(solution="numerical")`` is then a number; ``mean``
    and ``sd`` of every parameter as sampled, ``corrected_mean`` and ``corrected_sd`` have the axes
    ``(solution, parameter)``, ``quantile`` and ``corrected_quantile`` an axis of probabilities more.
    Where all draws were recomputed, ``weight`` ``(solution, chain, draw)`` are their smoothed weights. A
    group of that name that is there already is replaced.

    Examples:
        >>> from bilo_ppl.diagnostics import add_certificates
        >>> certificate = bilo.certify(model, draws, exact, x, y, reference=exact, subset=20)
        >>> add_certificates(idata, {"formula": certificate})
        >>> float(idata["certificate"]["kl_divergence"].sel(solution="formula"))
        0.0
    """
    import xarray

    if not certificates:
        return
    plain = {name: certificate.as_dict() for name, certificate in certificates.items()}
    variables, coords = _groups.certificates(plain)
    dataset = xarray.Dataset({**variables, **_groups.weights(certificates)}, coords)
    if not _is_legacy(_arviz()):
        idata["certificate"] = xarray.DataTree(dataset)
        return
    if "certificate" in idata:
        del idata["certificate"]
    with warnings.catch_warnings():
        # A group of our own, as ArviZ 0.23 allows but remarks upon.
        warnings.filterwarnings("ignore", message="The group certificate is not defined")
        idata.add_groups(certificate=dataset)


def add_group(idata: Any, name: str, values: Mapping[str, Any]) -> None:
    """Add a group of arrays ``(chain, draw, ...)``, of ``constant_data`` without these axes.

    One of that name that is there already is replaced.

    Further axes are named after the array, as ArviZ does, ``y_dim_0``; where the group ``observed_data``
    has an array of that name and shape, they are the same.

    Examples:
        >>> from bilo_ppl.diagnostics import add_group
        >>> add_group(idata, "constant_data", {"x": x})
        >>> idata["constant_data"]["x"].dims
        ('x_dim_0', 'x_dim_1')
        >>> add_group(idata, "predictions", {"half_life": np.log(2) / draws["r"]})
        >>> idata["predictions"]["half_life"].dims
        ('chain', 'draw')
    """
    import xarray

    axes = () if name == "constant_data" else ("chain", "draw")
    variables = {}
    for label, value in values.items():
        array = np.asarray(value)
        more = [f"{label}_dim_{i}" for i in range(array.ndim - len(axes))]
        variables[label] = (*axes, *more), array
    sizes: dict[str, int] = {}
    for dims, array in variables.values():
        sizes |= zip(dims, array.shape, strict=True)
    dataset = xarray.Dataset(variables, {dim: np.arange(size) for dim, size in sizes.items()})
    if not _is_legacy(_arviz()):
        idata[name] = xarray.DataTree(dataset)
        return
    if name in idata:
        del idata[name]
    idata.add_groups({name: dataset})


class ChainDiagnostics(NamedTuple):
    """Precision and convergence of one scalar quantity; NaN where they are not defined."""

    mcse_mean: float
    """Monte Carlo standard error of the mean."""
    ess_bulk: float
    """Effective sample size in the bulk (rank-normalised)."""
    ess_tail: float
    """The smaller effective sample size of the 5 % and 95 % quantiles."""
    r_hat: float
    """Rank-normalised split R-hat."""


def chain_diagnostics(draws: Any) -> ChainDiagnostics:
    """ArviZ's diagnostics of the draws ``(chains, draws)`` of a scalar.

    A single chain is cut into two for R-hat. All are NaN with fewer than four draws a chain, or
    draws that are not finite or all the same: a chain that never moves has no effective sample
    size. Raises a ``ValueError`` for draws that are not ``(chains, draws)``.

    Examples:
        >>> from bilo_ppl.diagnostics.results import chain_diagnostics
        >>> found = chain_diagnostics(draws["r"])
        >>> 0.99 < found.r_hat < 1.1, 20 < found.ess_bulk <= 1000
        (True, True)
        >>> chain_diagnostics(np.zeros((2, 100))).r_hat  # chains that do not move
        nan
    """
    draws = np.asarray(draws, dtype=float)
    if draws.ndim != 2:
        raise ValueError(f"draws must be (chains, draws), got shape {draws.shape}.")
    chains, length = draws.shape
    if length < 4 or not np.isfinite(draws).all() or np.ptp(draws) == 0:
        return ChainDiagnostics(np.nan, np.nan, np.nan, np.nan)
    arviz = _arviz()
    halves = draws[:, : length - length % 2].reshape(2, -1) if chains == 1 else draws
    with np.errstate(invalid="ignore", divide="ignore"):
        return ChainDiagnostics(
            mcse_mean=float(arviz.mcse(draws, method="mean")),
            ess_bulk=float(arviz.ess(draws, method="bulk")),
            ess_tail=float(arviz.ess(draws, method="tail", prob=(0.05, 0.95))),
            r_hat=float(arviz.rhat(halves)) if halves.shape[1] >= 4 else np.nan,
        )


def save(idata: Any, path: str | os.PathLike) -> pathlib.Path:
    """Write a netCDF file (HDF5), whole or not at all; an existing file is replaced.

    Flags are stored as 8-bit integers, marked so that `load` gives them back as flags.

    Examples:
        >>> from bilo_ppl.diagnostics import save
        >>> save(idata, folder / "posterior.nc").name
        'posterior.nc'
    """
    with replacing(path) as temporary:
        idata.to_netcdf(str(temporary), engine="h5netcdf")
    return pathlib.Path(path)


def load(path: str | os.PathLike, *, lazy: bool = False) -> Any:
    """Read a file written by `save` into memory, with whichever ArviZ wrote it; the file is closed.

    With ``lazy`` an array is read when it is used, and the file stays open: for results that are larger
    than the memory. ``idata["posterior"]["k"].isel(draw=slice(1000))`` then reads a thousand draws.

    Nothing of the file is run, and no other file is read. Raises a ``FileNotFoundError`` if there is
    none, a ``ValueError`` if it is not netCDF, points to other files, or would not fit into memory.

    Examples:
        >>> from bilo_ppl.diagnostics import load
        >>> idata = load(folder / "posterior.nc")
        >>> idata["posterior"]["r"].shape
        (2, 200)
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load: there is no results file {path}.")
    arviz = _arviz()
    try:
        check_results_file(path, whole=not lazy)
        if _is_legacy(arviz):
            with arviz.rc_context({"data.load": "lazy" if lazy else "eager"}):
                return arviz.from_netcdf(str(path), engine="h5netcdf")
        if lazy:
            return arviz.from_netcdf(str(path), engine="h5netcdf")
        with arviz.from_netcdf(str(path), engine="h5netcdf") as tree:
            return tree.load()
    except OSError as error:
        raise ValueError(f"load: {path} is not a netCDF (HDF5) file: {error}") from error

"""What ArviZ makes of the posterior.nc that a run leaves: of two models of the same data."""

import pathlib
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notice of what ArviZ will be
    import arviz as az
from matplotlib import pyplot as plt

import bilo_ppl as bilo
from bilo_ppl.cli import main

FILE = """
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import bilo_ppl as bilo
from bilo_ppl.run.model_file import load_model

problem, start, truth = load_model("poisson").problem, {"D": 1.0}, {"D": 0.7}

def formula(x, theta):
    return jnp.sin(jnp.pi * x[0]) / theta["D"]

def reference():
    return bilo.ClosedForm(problem, formula)

def model(operator, x, y=None, sigma=1.0):
    D = numpyro.sample("D", dist.LogNormal(0.0, 0.5))
    u = bilo.solution("u", operator, {"D": D})
    bias = BIAS
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x) + bias, sigma), obs=y)

def synthetic_data(seed):
    x = np.linspace(0.05, 0.95, 12)[:, None]
    noise = 0.1 * np.random.default_rng(seed).normal(size=12)
    return {"x": x, "y": np.sin(np.pi * x[:, 0]) / 0.7 + noise, "sigma": 0.1}
"""

GROUPS = "log_likelihood,posterior_predictive"
SHORT = [
    "--operator",
    "numerical",
    "--quiet",
    "--chains",
    "2",
    "--warmup",
    "100",
    "--samples",
    "60",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The results of a model that the data are from, and of one that is half too high."""
    folder, found = tmp_path_factory.mktemp("arviz"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, bias in (("right", "0.0"), ("wrong", "0.5")):
            pathlib.Path(f"{name}.py").write_text(FILE.replace("BIAS", bias))
            assert main(["run", f"{name}.py", *SHORT, "--groups", GROUPS, "--out", name]) == 0
            found[name] = bilo.diagnostics.load(folder / name / "posterior.nc")
    return found


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def elpd(found):
    return float(found.elpd_loo if hasattr(found, "elpd_loo") else found.elpd)


def marks():
    """How much there is in the figure that was drawn last."""
    axes = plt.gcf().axes
    return sum(len(ax.lines) + len(ax.collections) + len(ax.patches) for ax in axes)


@pytest.mark.filterwarnings("ignore")  # of ArviZ
def test_of_two_models_that_which_the_data_are_from_is_preferred(files):
    alone = {name: az.loo(data, pointwise=True) for name, data in files.items()}
    assert np.isfinite([elpd(found) for found in alone.values()]).all()
    assert elpd(alone["right"]) > elpd(alone["wrong"]) + 10
    pointwise = np.asarray(
        alone["right"].loo_i if hasattr(alone["right"], "loo_i") else alone["right"].elpd_i
    )
    assert pointwise.shape == (12,)
    assert len(np.unique(pointwise)) == 12
    table = az.compare(files)
    assert list(table.index) == ["right", "wrong"]
    assert table.loc["right", "rank"] == 0
    assert table.loc["right", "weight"] > 0.9


@pytest.mark.filterwarnings("ignore")
def test_the_energies_of_the_chains_are_in_the_file(files):
    found = az.bfmi(files["right"])
    values = np.asarray(found if isinstance(found, np.ndarray) else found["energy"])
    assert values.shape == (2,)
    assert ((values > 0.1) & (values < 5)).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("plot", ["ppc", "khat", "energy"])
def test_figures_of_arviz_are_drawn(files, plot):
    data = files["right"]
    if plot == "ppc":
        (az.plot_ppc if hasattr(az, "plot_ppc") else az.plot_ppc_dist)(data)
    elif plot == "khat":
        az.plot_khat(az.loo(data, pointwise=True))
    else:
        az.plot_energy(data)
    assert marks() > 0

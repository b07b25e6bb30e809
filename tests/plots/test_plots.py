"""Figures: what is drawn is what was given, and files are pictures."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from bilo_ppl import plots

RNG = np.random.default_rng(0)
DRAWS = 0.7 + 0.03 * RNG.normal(size=(4, 500))
GRID = np.linspace(0.5, 0.9, 401)
DENSITY = np.exp(-0.5 * ((GRID - 0.7) / 0.03) ** 2) / (0.03 * np.sqrt(2 * np.pi))


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def line(ax, start):
    (found,) = [one for one in ax.get_lines() if str(one.get_label()).startswith(start)]
    return found


def test_posterior_histogram_is_a_density_and_the_reference_is_drawn():
    ax = plots.plot_posterior(DRAWS, "k", (GRID, 3 * DENSITY), truth=0.71)
    area = sum(bar.get_width() * bar.get_height() for bar in ax.patches)
    assert area == pytest.approx(1)
    reference = line(ax, "reference")
    np.testing.assert_allclose(reference.get_ydata(), DENSITY, rtol=1e-6)
    assert reference.get_label() == "reference, mean 0.7, sd 0.03"
    assert set(line(ax, "truth").get_xdata()) == {0.71}
    assert ax.get_xlabel() == "k"
    assert any(label.startswith("2000 draws, mean") for label in labels(ax))


def test_posterior_axis_holds_all_draws_but_not_an_empty_grid():
    wide = np.linspace(-50, 50, 40001)
    density = np.exp(-0.5 * ((wide - 0.7) / 0.03) ** 2)
    ax = plots.plot_posterior(DRAWS, "k", (wide, density))
    low, high = ax.get_xlim()
    assert low <= DRAWS.min()
    assert high >= DRAWS.max()
    assert high - low < 0.5


@pytest.mark.parametrize(
    ("draws", "reference", "message"),
    [
        (np.ones(5), None, "chains, draws"),
        (np.array([[1.0, np.nan]]), None, "1 draws are not finite"),
        (DRAWS, (GRID, DENSITY[:-1]), r"\(n,\)"),
    ],
)
def test_posterior_refuses(draws, reference, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_posterior(draws, "k", reference)


def test_band_is_the_quantiles_and_counts_what_it_leaves_out():
    x = np.linspace(1, 0, 21)[:, None]
    u = RNG.normal(size=(101, 21))
    u[7, 3] = np.nan
    data = (np.array([[0.2], [0.6]]), np.array([1.0, -1.0]), 0.3)
    ax = plots.plot_solution_band(x, u, data, (x, np.zeros(21)), name="v", coordinate="t")
    kept = np.delete(u, 7, axis=0)[:, ::-1]
    np.testing.assert_allclose(line(ax, "median").get_ydata(), np.median(kept, axis=0))
    np.testing.assert_allclose(line(ax, "median").get_xdata(), x[::-1, 0])
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx(np.quantile(kept, 0.05, axis=0).min())
    assert edges.max() == pytest.approx(np.quantile(kept, 0.95, axis=0).max())
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_ydata(), data[1])
    segments = bars.lines[2][0].get_segments()
    np.testing.assert_allclose([s[1, 1] - s[0, 1] for s in segments], 0.6)
    assert "v: 5 to 95 % (1 of 101 draws left out: not finite)" in labels(ax)
    assert set(labels(ax)[1:]) == {"median", "truth", "data, 1 sd"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "v")


@pytest.mark.parametrize(
    ("x", "u", "message"),
    [
        (np.ones((5, 2)), np.ones((3, 5)), "one coordinate"),
        (np.ones(5), np.ones((3, 4, 2)), r"\(draws, 5, components\) of a system"),
        (np.ones(5), np.ones((3, 4)), r"must be \(draws, 5\)"),
        (np.ones(5), np.full((3, 5), np.nan), "no draw has finite values"),
    ],
)
def test_band_refuses(x, u, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_solution_band(x, u)


@pytest.mark.parametrize("sigma", [0.3, [0.1, 0.2, 0.3], [0.1, 0.2], np.full((3, 2), 0.2)])
def test_the_band_of_a_system_has_a_colour_a_component_and_skips_missing_data(sigma):
    x, t = np.linspace(0, 1, 5), np.array([[0.2], [0.6], [0.8]])
    u = np.stack([RNG.normal(size=(20, 5)), RNG.normal(size=(20, 5)) + 9], axis=-1)
    y = np.array([[1.0, np.nan], [2.0, 8.0], [np.nan, np.nan]])
    ax = plots.plot_solution_band(
        x, u, (t, y, sigma), (x, np.zeros((5, 2))), components=("prey", "predator")
    )
    for i, name in enumerate(("prey", "predator")):
        median = line(ax, f"median of {name}")
        np.testing.assert_allclose(median.get_ydata(), np.median(u[..., i], axis=0))
        bars = ax.containers[i].lines[0]
        there = ~np.isnan(y[:, i])
        np.testing.assert_array_equal(bars.get_xdata(), t[there, 0])
        np.testing.assert_array_equal(bars.get_ydata(), y[there, i])
        assert bars.get_color() == median.get_color() == plots.COLOURS[i]
        segments = ax.containers[i].lines[2][0].get_segments()
        sd = np.broadcast_to(np.array(sigma)[:, None] if np.shape(sigma) == (3,) else sigma, (3, 2))
        np.testing.assert_allclose([s[1, 1] - s[0, 1] for s in segments], 2 * sd[there, i])
    assert labels(ax).count("data, 1 sd") == labels(ax).count("truth") == 1
    with pytest.raises(ValueError, match=r"data\[1\] has shape \(3,\); it must be \(3, 2\)"):
        plots.plot_solution_band(x, u, (t, y[:, 0], 0.1))
    with pytest.raises(ValueError, match="1 names"):
        plots.plot_solution_band(x, u, components=("prey",))


def edges(band):
    """Lower and upper edge of a band: its outline runs along one and back along the other."""
    vertices = band.get_paths()[0].vertices
    return [
        np.array(pick)
        for pick in zip(
            *[
                (found.min(), found.max())
                for found in (vertices[vertices[:, 0] == x, 1] for x in np.unique(vertices[:, 0]))
            ],
            strict=True,
        )
    ]


def test_the_predictive_band_has_the_width_of_solution_and_noise():
    x, levels = np.linspace(0, 1, 11), (np.arange(2000) + 0.5) / 2000
    spread = np.linspace(0.0, 0.4, 11)
    u = np.sin(x) + stats.norm.ppf(levels)[:, None] * spread
    ax = plots.plot_solution_band(x, u, noise=0.3)
    assert labels(ax) == ["y: 5 to 95 %", "u: 5 to 95 %", "median"]
    of_y, of_u = ax.collections
    for band, sd in ((of_y, np.hypot(spread, 0.3)), (of_u, spread)):
        low, high = edges(band)
        np.testing.assert_allclose(low, np.sin(x) - 1.644854 * sd, atol=2e-3)
        np.testing.assert_allclose(high, np.sin(x) + 1.644854 * sd, atol=2e-3)
    assert of_y.get_alpha() < of_u.get_alpha()


def test_noise_may_be_another_one_at_every_draw_and_component():
    x = np.linspace(0, 1, 5)
    ax = plots.plot_solution_band(x, np.zeros((4, 5)), noise=[1e-3, 1e-3, 1e-3, 2.0])
    low, high = edges(ax.collections[0])
    # A quarter of the draws has all of the tails.
    np.testing.assert_allclose([low, high], np.outer([-1, 1], np.full(5, 2 * stats.norm.ppf(0.8))))
    u = np.stack([np.zeros((4, 5)), np.full((4, 5), 9.0)], axis=-1)
    u[0, 1, 0] = np.nan
    noise = np.array([[5.0, np.nan], [0.1, np.nan], [0.1, np.nan], [0.1, np.nan]])
    ax = plots.plot_solution_band(x, u, noise=noise)
    low, high = edges(ax.collections[0])
    np.testing.assert_allclose(high - low, 2 * 0.1644854, rtol=1e-5)
    # One band of y, where there are data, and two of u.
    assert len(ax.collections) == 3
    for wrong in (0.0, np.ones(5), np.ones((4, 1)), -np.ones(4)):
        with pytest.raises(ValueError, match=r"noise has shape .* one, \(4,\) or \(4, 2\)"):
            plots.plot_solution_band(x, u, noise=wrong)


def test_trace_has_a_line_a_chain_and_a_row_a_scalar():
    axes = plots.plot_trace({"k": DRAWS, "a": RNG.normal(size=(4, 500, 2))}, warmup=100)
    assert [ax.get_ylabel() for ax in axes] == ["k", "a[0]", "a[1]"]
    for ax in axes:
        chains = [one for one in ax.get_lines() if len(one.get_ydata()) == 500]
        assert len({one.get_color() for one in chains}) == 4
    np.testing.assert_array_equal(axes[0].get_lines()[2].get_ydata(), DRAWS[2])
    assert labels(axes[0]) == ["chain 0", "chain 1", "chain 2", "chain 3", "warm-up"]


def test_trace_says_what_it_leaves_out():
    axes = plots.plot_trace({"a": RNG.normal(size=(1, 10, 64))})
    assert len(axes) == 12
    assert axes[0].figure.get_suptitle() == "the first 12 of 64 parameters"
    with pytest.raises(ValueError, match="no draws"):
        plots.plot_trace({})
    with pytest.raises(ValueError, match="must be"):
        plots.plot_trace({"k": np.ones(4)})


def test_inner_steps_marks_losses_above_the_tolerance():
    steps = np.tile([0, 0, 3, 1], (2, 5))
    loss = np.full((2, 20), 1e-7)
    loss[0, 3], loss[1, 4], loss[1, 5] = 1e-5, np.nan, 0.0
    top, bottom = plots.plot_inner_steps(steps, loss, 1e-6)
    assert labels(top) == ["chain 0", "chain 1"]
    assert top.get_title(loc="left") == "1 inner step per draw; none for 50% (chains drawn apart)"
    assert bottom.get_yscale() == "log"
    assert set(line(bottom, "tolerance").get_ydata()) == {1e-6}
    assert labels(bottom)[-1] == "above tolerance: 2 of 40"
    marked = bottom.collections[-1].get_offsets()
    np.testing.assert_array_equal(marked[:, 0], [3, 4])
    np.testing.assert_allclose(marked[:, 1], [1e-5, 1e-4])
    shown = np.concatenate([c.get_offsets()[:, 1] for c in bottom.collections])
    assert shown.min() == pytest.approx(1e-8), "a loss of zero stays visible"
    assert plots.plot_inner_steps(steps, 0 * steps, 1e-6)[1].get_yscale() == "log"
    with pytest.raises(ValueError, match="but loss"):
        plots.plot_inner_steps(steps, loss[:, :-1], 1e-6)


@pytest.mark.parametrize("steps", [0, 3])
def test_inner_steps_have_whole_numbers_on_the_axis(steps):
    top, _ = plots.plot_inner_steps(np.full((2, 20), steps), np.full((2, 20), 1e-7), 1e-6)
    top.figure.canvas.draw()
    ticks = top.get_yticks()
    low, high = top.get_ylim()
    shown = ticks[(ticks >= low) & (ticks <= high)]
    assert len(shown) >= 2
    np.testing.assert_array_equal(shown, np.round(shown))
    assert low < steps < high


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_save_figure_writes_a_picture(tmp_path, suffix):
    axes = plots.plot_trace({"k": DRAWS})
    assert isinstance(axes[0].figure, Figure)
    path = plots.save_figure(axes, tmp_path / "sub" / f"trace.{suffix}")
    head = {"png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(head)
    assert path.stat().st_size > 10_000
    assert len(list(path.parent.iterdir())) == 1


def test_pictures_are_not_blank(tmp_path):
    from matplotlib.image import imread

    path = plots.save_figure(plots.plot_posterior(DRAWS, "k", (GRID, DENSITY)), tmp_path / "k.png")
    pixels = imread(path)[..., :3]
    assert pixels.shape[:2] == (540, 960)
    assert 0.05 < (pixels < 0.95).any(axis=-1).mean() < 0.8


def test_no_pyplot():
    code = "import sys, bilo_ppl.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

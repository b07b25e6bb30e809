import sys
import textwrap

import numpy as np
import pytest

from bilo_ppl.run.definitions import EXPECTED
from bilo_ppl.run.model_file import load_model, short_names

GOOD = """
import bilo_ppl as bilo
class Line(bilo.Problem):
    parameters = ("a",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(5)
    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["a"]
problem = Line()
start = {"a": 1.0}
def model(operator, x, y=None, sigma=0.5):
    pass
def synthetic_data(seed):
    return {"x": problem.domain.grid(3), "y": [0.0, 0.0, 0.0], "sigma": 0.1}
"""


def written(tmp_path, text, name="line.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return path


def test_a_good_file(tmp_path):
    found = load_model(str(written(tmp_path, GOOD)))
    assert found.name == "line"
    assert found.default_sigma == 0.5
    assert found.reference is None
    assert found.observations(seed=3).x.shape == (3, 1)


def test_a_file_may_import_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    written(tmp_path, "TRUE_A = 2.5", "lines_of_ours.py")
    later = "\ndef reference():\n    from lines_of_ours import TRUE_A\n    return TRUE_A\n"
    text = "from lines_of_ours import TRUE_A" + GOOD + later + 'truth = {"a": TRUE_A}\n'
    found = load_model(str(written(tmp_path, text)))
    assert found.truth == {"a": 2.5}
    assert found.reference() == 2.5
    # But none of them stands in the way of a library.
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    written(tmp_path, "raise ImportError", "colorsys.py")
    assert load_model(str(written(tmp_path, "import colorsys" + GOOD))).name == "line"


@pytest.mark.parametrize("name", ["poisson", "nonlinear_poisson"])
def test_models_of_the_repository_have_short_names(name):
    found = load_model(name)
    assert found.name == name
    assert len(found.observations(seed=0).y)
    assert set(found.reference_grid) == set(found.problem.parameters)


def test_the_current_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    written(tmp_path / "models", GOOD, "poisson.py")
    written(tmp_path / "models", GOOD, "_private.py")
    monkeypatch.chdir(tmp_path)
    assert load_model("poisson").problem.parameters == ("a",)
    assert "_private" not in short_names()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown model 'poison'.*nonlinear_poisson, poisson"):
        load_model("poison")
    with pytest.raises(ValueError, match=r"no model file nowhere/poisson\.py.*short names"):
        load_model("nowhere/poisson.py")


def test_all_missing_names_are_listed_with_their_meaning(tmp_path):
    with pytest.raises(ValueError, match="is not a model file") as error:
        load_model(str(written(tmp_path, "problem = 3")))
    for name in ("start", "model"):
        assert f"{name} ({EXPECTED[name]})" in str(error.value)
    assert EXPECTED["problem"] not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("problem = Line", "problem is of type Line .a class.; it must be the PDE, an instance"),
        ("start = 1.0", "start is 1.0; it must be the theta"),
        ("start = {'b': 1.0}", r"missing \['a'\], unknown \['b'\]"),
        ("start = {'a': float('nan')}", "not finite"),
        ("def model(x, y): pass", r"model is model\(x, y\); it must be .*operator, x, y, sigma"),
        ("def model(operator, x, y, noise): pass", "it must be .*operator, x, y, sigma"),
        ("synthetic_data = 1", "synthetic_data is 1"),
        ("reference = 1", "reference is 1; it must be a function without arguments"),
        ("architecture = {'widht': 8}", r"architecture has \['widht'\]; .* width"),
        ("architecture = 8", r"architecture has \[8\]; it must be a mapping"),
        ("1 / 0", r"line \d+: ZeroDivisionError"),
        ("def broken(", "SyntaxError"),
    ],
)
def test_wrong_definitions_are_refused(tmp_path, change, message):
    path = written(tmp_path, GOOD + change + "\n")
    with pytest.raises(ValueError, match=message):
        load_model(str(path))


EXPERIMENTS = """
def synthetic_data(seed):
    return {"x": problem.domain.grid(3), "y": [0.0] * 3, "sigma": 0.1, "experiment": ["b", "a", "b"]}
"""
WITH_EXPERIMENT = "def model(operator, x, y=None, sigma=0.5, experiment=None): pass\n"
REQUIRING_IT = "def model(operator, x, y, sigma, experiment): pass\n"


@pytest.mark.parametrize(
    "model", [WITH_EXPERIMENT, REQUIRING_IT, REQUIRING_IT.replace(", exp", ", *, exp")]
)
def test_experiments_reach_a_model_that_knows_of_them(tmp_path, model):
    found = load_model(str(written(tmp_path, GOOD + EXPERIMENTS + model))).observations(seed=0)
    assert found.model_kwargs["experiment"].tolist() == [1, 0, 1]
    assert found.experiment_names == ("a", "b")


def test_model_and_data_must_agree_on_experiments(tmp_path):
    (tmp_path / "data.csv").write_text("x,y,experiment,sigma\n0.5,1,3,0.1\n")
    (tmp_path / "plain.csv").write_text("x,y,sigma\n0.5,1,0.1\n")
    file = load_model(str(written(tmp_path, GOOD + EXPERIMENTS)))
    with pytest.raises(ValueError, match=r"synthetic_data\(0\) has a column experiment \(a, b\)"):
        file.observations(seed=0)
    with pytest.raises(ValueError, match=r"data\.csv has a column .* no parameter .*Give it one"):
        file.read_data(tmp_path / "data.csv")
    file = load_model(str(written(tmp_path, GOOD + REQUIRING_IT)))
    with pytest.raises(ValueError, match=r"plain\.csv has no column experiment, which"):
        file.read_data(tmp_path / "plain.csv")
    file = load_model(str(written(tmp_path, GOOD + WITH_EXPERIMENT)))
    assert file.read_data(tmp_path / "plain.csv").model_kwargs == {}
    assert file.read_data(tmp_path / "data.csv").model_kwargs["experiment"].tolist() == [0]


def test_synthetic_data_are_checked(tmp_path):
    path = written(tmp_path, GOOD + "def synthetic_data(seed): return {'x': 0}\n")
    with pytest.raises(ValueError, match=r"no entry \['y', 'sigma'\]"):
        load_model(str(path)).observations(seed=0)
    outside = "def synthetic_data(seed): return {'x': [[7.0]], 'y': [0.0], 'sigma': 1.0}\n"
    path = written(tmp_path, GOOD + outside)
    with pytest.raises(ValueError, match="observation 0 of synthetic_data: x = 7 lies outside"):
        load_model(str(path)).observations(seed=0)


def test_a_file_for_measured_data_needs_no_synthetic_ones(tmp_path):
    file = load_model(str(written(tmp_path, GOOD + "del synthetic_data\n")))
    (tmp_path / "data.csv").write_text("x,y\n0.5,1\n")
    assert file.read_data(tmp_path / "data.csv").y.tolist() == [1.0]
    with pytest.raises(ValueError, match=r"line\.py defines no synthetic_data.*give --data FILE"):
        file.observations(seed=0)
    with pytest.raises(ValueError, match="no synthetic_data, so --noise cannot be given"):
        file.with_noise(0.1)


MASKS = (
    GOOD
    + """
observed = ("whole", "core")
"""
)


def test_columns_are_called_as_the_file_says(tmp_path):
    found = load_model(str(written(tmp_path, MASKS)))
    data = written(tmp_path, "core,x,whole\n0,0.5,1\n,0.25,0\n", "masks.csv")
    read = found.read_data(data)
    np.testing.assert_array_equal(read.y, [[1.0, 0.0], [0.0, np.nan]])
    np.testing.assert_array_equal(read.x, [[0.5], [0.25]])
    assert read.sigma == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,inner\n0.5,1\n", r"no column y1 or y2 or whole or core"),
        ("x,t,whole,core\n0.5,1,1,0\n", r"2 coordinate columns \['x', 't'\]"),
        ("x,whole,core\n0.5,,\n", r"line 2: there is no value of whole, core"),
        ("x,whole,core\n0.5,yes,0\n", r"line 2: column whole has 'yes'"),
        ("x,whole,core\n1.5,1,0\n", r"line 2: x = 1.5 lies outside the domain"),
    ],
)
def test_a_file_of_other_columns_says_what_is_missing(tmp_path, text, message):
    found = load_model(str(written(tmp_path, MASKS)))
    with pytest.raises(ValueError, match=message):
        found.read_data(written(tmp_path, text, "masks.csv"))


@pytest.mark.parametrize(
    "names", ['"core"', '("x", "core")', '("a", "a")', '("y1", "b")', '("", "b")']
)
def test_names_that_no_column_can_have(tmp_path, names):
    with pytest.raises(ValueError, match=r"observed is .* different names for the columns of y"):
        load_model(str(written(tmp_path, GOOD + f"\nobserved = {names}\n")))


def test_figures_that_are_no_function(tmp_path):
    with pytest.raises(ValueError, match=r"figures is 'all'.*solutions, values and data"):
        load_model(str(written(tmp_path, GOOD + "\nfigures = 'all'\n")))

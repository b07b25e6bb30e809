"""Observations from CSV: columns by name, components, noise, experiments, and where an error is."""

import numpy as np
import pytest

from bilo_ppl.pde.data_file import read_csv
from bilo_ppl.pde.domain import Box, interval, space_time, time_interval

LINE = interval(0.0, 1.0)


def written(tmp_path, text):
    path = tmp_path / "data.csv"
    path.write_text(text)
    return path


def test_columns_in_any_order_with_sigma(tmp_path):
    path = written(tmp_path, "y, sigma ,x\n1.5,0.1,0.25\n\n-2e-1,0.2,1\n")
    found = read_csv(path, LINE)
    np.testing.assert_array_equal(found.x, [[0.25], [1.0]])
    np.testing.assert_array_equal(found.y, [1.5, -0.2])
    np.testing.assert_array_equal(found.sigma, [0.1, 0.2])
    assert str(found) == "2 observations in 1-D, noise sd 0.1 to 0.2"


def test_coordinates_keep_their_order_and_sigma_its_default(tmp_path):
    found = read_csv(written(tmp_path, "b,y,a\n0.1,5,0.2\n"), Box((0, 0), (1, 1)), 0.3)
    np.testing.assert_array_equal(found.x, [[0.1, 0.2]])
    assert found.sigma == 0.3


def test_coordinates_called_as_those_of_the_domain_are_taken_by_name(tmp_path):
    domain = space_time(LINE, 9.0)
    found = read_csv(written(tmp_path, "t,y,x\n7,5,0.2\n"), domain, 0.3)
    np.testing.assert_array_equal(found.x, [[0.2, 7.0]])
    found = read_csv(written(tmp_path, "s,y,z\n0.2,5,7\n"), domain, 0.3)
    np.testing.assert_array_equal(found.x, [[0.2, 7.0]])


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xef\xbb\xbfx,y\r\n0.5,1\r\n")
    assert read_csv(path, LINE, 0.1).y == [1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x,y\n", "no rows below the header"),
        ("0.1,2\n0.2,3\n", "must name the columns"),
        ("x,u\n0,1\n", "no column y"),
        ("x;y\n0;1\n", "no column y.*separated by commas"),
        ("x,x,y\n0,0,1\n", "a name of its own"),
        ("x,,y\n0,0,1\n", "a name of its own"),
        ("y,sigma\n1,0.1\n", "0 coordinate columns.*has 1"),
        ("x,z,y\n0,0,1\n", r"2 coordinate columns \['x', 'z'\].*has 1"),
        ("x,y\n0,1\n\n0.5\n", "line 4: 1 entries, but the header has 2"),
        ("x,y\n0,1,2\n", "line 2: 3 entries"),
        ("x,y\n0,1\n0.5,one\n", "line 3: column y has 'one', not a number"),
        ("x,y\n0,\n", "line 2: column y has '', not a number"),
        ("x,y\n0,1\n0.5,nan\n0.6,nan\n", r"line 3: y is nan.*2 such rows"),
        ("x,y\n0,inf\n", "line 2: y is inf"),
        ("x,y\n0,1\n\n1.5,2\n", r"line 4: x = 1.5 lies outside the domain \[0, 1\]"),
        ("x,y,sigma\n0,1,0.1\n0,1,-0.1\n", "line 3: sigma is -0.1; it must be positive"),
        ("x,y,sigma\n0,1,0\n", "line 2: sigma is 0; it must be positive"),
        ("x,y,sigma\n0,1,nan\n", "line 2: sigma is nan"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_csv(written(tmp_path, text), LINE, 0.1)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        read_csv(path, LINE, 0.1)


def test_sigma_is_needed_from_somewhere(tmp_path):
    with pytest.raises(ValueError, match="no default noise level"):
        read_csv(written(tmp_path, "x,y\n0,1\n"), LINE)


@pytest.mark.parametrize(
    ("header", "domain", "expected"),
    [
        ("time,x,y", space_time(LINE, 9.0), "only x has.* Call them x,t or x1,t, in any order"),
        ("t,z,y", space_time(LINE, 9.0), "only t has"),
        # The observed value is y, so that the second coordinate needs another name.
        ("x,z,y", Box((0, 0), (1, 1)), "only x has.* Call them x1,x2, in any order"),
        ("x,x2,y", Box((0, 0), (1, 1)), "only x, x2 has.* Call them x1,x2, in any order"),
    ],
)
def test_known_names_beside_unknown_ones_are_not_taken_by_position(
    tmp_path, header, domain, expected
):
    with pytest.raises(ValueError, match=r"data\.csv, line 1: .*" + expected):
        read_csv(written(tmp_path, header + "\n0.1,0.2,3\n"), domain, 0.3)


def test_a_square_has_numbered_names(tmp_path):
    found = read_csv(written(tmp_path, "x2,y,x1\n0.2,5,0.1\n"), Box((0, 0), (1, 1)), 0.3)
    np.testing.assert_array_equal(found.x, [[0.1, 0.2]])


# ------------------------------------------------------------------------------------- systems

TIME = time_interval(0.0, 8.0)
NAN = np.nan


def system(tmp_path, text, sigma=None, domain=TIME, **options):
    given = {"components": 2, "component_names": ("prey", "predator")} | options
    return read_csv(written(tmp_path, text), domain, sigma, **given)


@pytest.mark.parametrize("header", ["y2,t,y1", "predator,t,prey", "y2,t,prey"])
def test_components_are_taken_by_name_and_entries_may_be_missing(tmp_path, header):
    found = system(tmp_path, header + "\n2,0.5,1\n,1,3\n4,1.5,nan\n", 0.1)
    np.testing.assert_array_equal(found.x[:, 0], [0.5, 1.0, 1.5])
    np.testing.assert_array_equal(found.y, [[1, 2], [3, NAN], [NAN, 4]])
    assert found.sigma == 0.1
    said = "of 2 values each, 2 of 6 missing in 1-D"
    assert str(found) == f"3 observations {said}, noise sd 0.1"
    assert found.described("binary") == f"3 binary observations {said}"


def test_a_component_without_a_column_is_missing_throughout(tmp_path):
    found = system(tmp_path, "t,y2\n1,5\n2,6\n", 0.1)
    np.testing.assert_array_equal(found.y, [[NAN, 5], [NAN, 6]])


def test_a_single_column_y_of_a_system_has_one_axis(tmp_path):
    assert system(tmp_path, "t,y\n1,5\n2,6\n", 0.1).y.shape == (2,)


@pytest.mark.parametrize("header", ["t,y1,y2,sigma2,sigma1", "t,y1,y2,sigma_predator,sigma_prey"])
def test_each_component_has_its_noise_and_a_missing_value_needs_none(tmp_path, header):
    found = system(tmp_path, header + "\n1,5,50,0.2,0.1\n2,6,,,0.3\n")
    np.testing.assert_array_equal(found.sigma, [[0.1, 0.2], [0.3, 1.0]])
    assert str(found).endswith("noise sd 0.1 to 0.3")


@pytest.mark.parametrize(
    ("text", "default", "sigma"),
    [
        ("t,y1,y2,sigma\n1,5,6,0.2\n2,5,6,0.3\n", None, [[0.2, 0.2], [0.3, 0.3]]),
        ("t,y1,y2\n1,5,6\n2,5,6\n", (0.2, 0.7), [[0.2, 0.7], [0.2, 0.7]]),
        ("t,y2,y1\n1,5,6\n2,5,6\n", (0.2, 0.7), [[0.2, 0.7], [0.2, 0.7]]),
        ("t,y1,y2,sigma2\n1,5,6,0.3\n2,5,6,0.4\n", (0.2, 0.7), [[0.2, 0.3], [0.2, 0.4]]),
        ("t,y1,y2,sigma2\n1,5,6,0.3\n2,5,6,0.4\n", 0.5, [[0.5, 0.3], [0.5, 0.4]]),
        ("t,y2,sigma2\n1,5,0.3\n2,5,0.4\n", None, [[1.0, 0.3], [1.0, 0.4]]),
    ],
)
def test_noise_of_systems(tmp_path, text, default, sigma):
    np.testing.assert_array_equal(system(tmp_path, text, default).sigma, sigma)


def test_a_component_may_be_called_y_where_no_coordinate_is(tmp_path):
    found = system(tmp_path, "y,x,t,sigma_y\n2,1,0.5,0.3\n", 0.1, component_names=("x", "y"))
    np.testing.assert_array_equal(found.y, [[1, 2]])
    np.testing.assert_array_equal(found.sigma, [[0.1, 0.3]])


def test_beside_numbered_values_y_is_a_coordinate_of_space(tmp_path):
    found = system(tmp_path, "y,y2,x,y1\n0.2,6,0.1,5\n", 0.1, Box((0, 0), (1, 1)))
    np.testing.assert_array_equal(found.x, [[0.1, 0.2]])
    np.testing.assert_array_equal(found.y, [[5, 6]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,y1,y2\n1,,nan\n", "line 2: there is no value of y1, y2.* leave the row out"),
        ("t,prey\n0,1\n1,\n2,\n", r"line 3: there is no value of prey.*\(2 such rows in all\)"),
        ("t,y1,y2\n1,5,inf\n", "line 2: y2 is inf, not a finite number"),
        (
            "t,y1,y2\n1,5,none\n",
            "line 2: column y2 has 'none', not a number; leave a missing value",
        ),
        ("t,y1,y2\n,5,6\n", "line 2: column t has '', not a number"),
        ("t,y1,prey\n1,5,6\n", "line 1: the columns y1 and prey are the same component"),
        ("t,u,v\n1,5,6\n", "line 1: there is no column y1 or y2 or prey or predator"),
        ("t,y,y1\n1,5,6\n", r"line 1: 2 coordinate columns \['t', 'y'\].* call them t\."),
        ("t,y1,y3\n1,5,6\n", r"line 1: 2 coordinate columns \['t', 'y3'\]"),
        ("t,y1,sigma2\n1,5,6\n", "line 1: column sigma2 is the noise of none of .* y1; call it"),
        ("t,y1,sigma3\n1,5,6\n", "line 1: column sigma3 .* call it sigma or sigma1"),
        ("t,y,sigma1\n1,5,6\n", "line 1: column sigma1 .* call it sigma, or add"),
        ("t,y1,sigma,sigma1\n1,5,6,7\n", "line 1: there are columns sigma and sigma1"),
        ("t,y1,y2,sigma1,sigma2\n1,5,6,0.1,\n", "line 2: sigma2 is nan, not a finite number; give"),
        ("t,prey,y2,sigma_prey\n1,5,6,-1\n", "line 2: sigma_prey is -1; it must be positive"),
        ("t,y1,y2,sigma\n1,5,6,0\n", "line 2: sigma is 0; it must be positive"),
    ],
)
def test_bad_files_of_systems_are_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"data\.csv, " + message):
        system(tmp_path, text, 0.1)


def test_a_default_noise_is_needed_where_no_column_gives_it(tmp_path):
    text = "t,y1,predator,sigma1\n1,5,6,0.1\n"
    with pytest.raises(ValueError, match="no column sigma or sigma_predator for predator"):
        system(tmp_path, text)
    with pytest.raises(ValueError, match=r"has shape \(3,\), .*one for each of the 2 components"):
        system(tmp_path, text, (0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"has shape \(2,\), .*it must be a number;"):
        system(tmp_path, "t,y\n1,5\n", (0.1, 0.2))


# --------------------------------------------------------------------------------- experiments


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        (["10", "9", "10"], [1, 0, 1], ("9", "10")),
        (["b", "a", "10"], [2, 1, 0], ("10", "a", "b")),
        (["1.5", "1", "1.0"], [1, 0, 0], ("1", "1.5")),
    ],
)
def test_experiments_are_numbered_in_their_order(tmp_path, labels, codes, names):
    rows = "".join(f"0.5,{label},1\n" for label in labels)
    found = read_csv(written(tmp_path, "x,experiment,y\n" + rows), LINE, 0.1)
    np.testing.assert_array_equal(found.experiment, codes)
    assert found.experiment_names == names
    np.testing.assert_array_equal(found.model_kwargs["experiment"], codes)
    assert str(found).endswith(f"{len(names)} experiments ({', '.join(names)})")


@pytest.mark.parametrize("label", ["", "nan"])
def test_every_row_needs_an_experiment(tmp_path, label):
    path = written(tmp_path, f"x,experiment,y\n0.5,1,1\n0.5,{label},1\n")
    with pytest.raises(ValueError, match=r"data\.csv, line 3: experiment is .*; give every row"):
        read_csv(path, LINE, 0.1)


def test_without_such_a_column_there_are_no_experiments(tmp_path):
    found = read_csv(written(tmp_path, "x,y\n0.5,1\n"), LINE, 0.1)
    assert (found.experiment, found.experiment_names, found.model_kwargs) == (None, (), {})

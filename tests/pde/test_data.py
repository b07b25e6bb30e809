import numpy as np
import pytest

from bilo_ppl.pde.data import Observations, check, read_csv
from bilo_ppl.pde.domain import Box, interval, space_time

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
    found = read_csv(written(tmp_path, "t,y,x\n0.1,5,0.2\n"), Box((0, 0), (1, 1)), 0.3)
    np.testing.assert_array_equal(found.x, [[0.1, 0.2]])
    assert found.sigma == 0.3


def test_coordinates_called_as_those_of_the_domain_are_taken_by_name(tmp_path):
    domain = space_time(LINE, 9.0)
    found = read_csv(written(tmp_path, "t,y,x\n7,5,0.2\n"), domain, 0.3)
    np.testing.assert_array_equal(found.x, [[0.2, 7.0]])
    found = read_csv(written(tmp_path, "s,y,x\n0.2,5,7\n"), domain, 0.3)
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
    ("x", "y", "sigma", "message"),
    [
        (np.zeros(3), np.zeros(3), 0.1, r"x must be \(n, 1\)"),
        (np.zeros((3, 1)), np.zeros(2), 0.1, "as many entries"),
        (np.zeros((0, 1)), np.zeros(0), 0.1, "no observations"),
        (np.zeros((2, 1)), np.zeros(2), [0.1, 0.1, 0.1], "one for each of the 2"),
        (np.zeros((2, 1)), np.zeros(2), -0.1, "row 0: sigma is -0.1"),
        ([["a"]], [1.0], 0.1, "x is not an array of numbers"),
        (np.array([[0.2], [-3.0]]), np.zeros(2), 0.1, "row 1: x = -3 lies outside"),
        (np.zeros((2, 1)), np.array([[0.0, 1.0], [np.nan, 1.0]]), 0.1, "row 1: y is"),
    ],
)
def test_arrays_are_checked_alike(x, y, sigma, message):
    with pytest.raises(ValueError, match=message):
        check(Observations(x, y, sigma), LINE)


def test_good_arrays_come_back_in_double_precision():
    given = Observations(np.zeros((2, 1), np.float32), [1, 2], np.float32(0.5))
    found = check(given, LINE)
    assert found.x.dtype == found.y.dtype == np.float64
    assert found.model_args[2] == 0.5

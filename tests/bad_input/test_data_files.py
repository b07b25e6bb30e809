"""Data files that cannot be meant: the message says in which line and column."""

import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bilo_ppl as bilo
from bilo_ppl.pde.data_file import read_csv

CASES = [
    ("", "is empty; the first line must name the columns"),
    ("\n\n", "is empty"),
    ("   \n", "is empty"),
    ("x,y\n", "no rows below the header"),
    ("x,y\n\n\n", "no rows below the header"),
    ("0.1,0.2\n0.3,0.4\n", "the first line must name the columns"),
    ("1\n2\n", "the first line must name the columns"),
    ("x\n0.5\n", "there is no column y"),
    ("y\n0.5\n", "0 coordinate columns"),
    ("x;y\n0.5;1\n", "there is no column y .*separated by commas"),
    ("x\ty\n0.5\t1\n", "there is no column y"),
    ("x y\n0.5 1\n", "there is no column y"),
    ("x,Y\n0.5,1\n", "there is no column y"),
    ("x,x,y\n1,1,1\n", "every column needs a name of its own"),
    ("x,y,y\n1,1,1\n", "every column needs a name of its own"),
    ("x,,y\n1,1,1\n", "every column needs a name of its own"),
    ("x,y,\n1,1,\n", "every column needs a name of its own"),
    ("x,t,y\n1,1,1\n", "2 coordinate columns"),
    ("x,y,noise\n0.5,1,1\n", "2 coordinate columns"),
    ("x,y,sigma2\n0.5,1,1\n", "column sigma2 is the noise of none"),
    ("x,y,sigma_y\n0.5,1,1\n", "column sigma_y is the noise of none"),
    ("x,y,Sigma\n0.5,1,1\n", "2 coordinate columns"),
    ("x,y\n0.5\n", "line 2: 1 entries, but the header has 2"),
    ("x,y\n0.5,1,2\n", "line 2: 3 entries"),
    ("x,y\n0.5,1\n0.6\n", "line 3: 1 entries"),
    ("x,y\n0,5,1,0\n", "line 2: 4 entries"),
    ("x,y\n0.5,one\n", "line 2: column y has 'one', not a number"),
    ("x,y\none,0.5\n", "line 2: column x has 'one'"),
    ("x,y\n0.5,\n", "line 2: column y has '', not a number"),
    ("x,y\n,1\n", "line 2: column x has ''"),
    ("x,y\n0.5,1_0\n", "line 2: column y has '1_0', not a number"),
    ("x,y\n0.5,0x10\n", "column y has '0x10'"),
    ("x,y\n0.5,1e\n", "column y has '1e'"),
    ("x,y\n0.5,1 2\n", "column y has '1 2'"),
    ("x,y\n0.5,$5\n", "column y has '.5'"),
    ("x,y\n0.5,50%\n", "column y has '50%'"),
    ("x,y\n0.5,True\n", "column y has 'True'"),
    ("x,y\n0.5,None\n", "column y has 'None'"),
    ("x,y\n0.5,NA\n", "column y has 'NA'"),
    ("x,y\n0.5,1+2j\n", "column y has '1.2j'"),
    ("x,y\n0.5,=1+1\n", "column y has '=1.1'"),
    ("x,y\n0.5,__import__('os')\n", "column y has"),
    ('x,y\n0.5,"1,5"\n', "column y has '1,5'"),
    ("x,y\n0.5,nan\n", "line 2: y is nan, not a finite number; leave the row out"),
    ("x,y\n0.5,inf\n", "line 2: y is inf"),
    ("x,y\n0.5,-inf\n", "line 2: y is -inf"),
    ("x,y\n0.5,1e999\n", "line 2: y is inf"),
    ("x,y\nnan,1\n", "line 2: x is .nan., not a finite number"),
    ("x,y\ninf,1\n", "line 2: x is .inf."),
    ("x,y\n1.5,1\n", "line 2: x = 1.5 lies outside the domain"),
    ("x,y\n-0.1,1\n", "line 2: x = -0.1 lies outside the domain"),
    ("x,y\n0.5,1\n7,1\n8,1\n", "line 3: x = 7 lies outside .*2 such rows"),
    ("x,y,sigma\n0.5,1,0\n", "line 2: sigma is 0; it must be positive"),
    ("x,y,sigma\n0.5,1,-0.1\n", "line 2: sigma is -0.1; it must be positive"),
    ("x,y,sigma\n0.5,1,nan\n", "line 2: sigma is nan"),
    ("x,y,sigma\n0.5,1,inf\n", "line 2: sigma is inf"),
    ("x,y,sigma\n0.5,1,\n", "line 2: column sigma has ''"),
    ("x,y,sigma\n0.5,1,small\n", "line 2: column sigma has 'small'"),
    ("x,y,sigma\n0.5,1,1e-9\n", "the noise of 'y' is 1e-09 where its data are up to 1"),
    ("x,y,sigma\n0.5,1,1e-300\n", "the noise of 'y' is"),
    ("x,y\n0.5,1e300\n", "the noise of 'y' is 0.5 where"),
    ("x,y,experiment\n0.5,1,a\n", "the model of .* has no parameter of that name"),
    ("x,y,experiment\n0.5,1,\n", "experiment"),
    ("x,y,sigma,sigma1\n0.5,1,1,1\n", "sigma1"),
    ("x1,x2,y\n0.5,1,1\n", "2 coordinate columns"),
    ("<html><body>404</body></html>\n", "there is no column y"),
    ('{"x": [1], "y": [2]}\n', "there is no column y|every column"),
    ("x,y\r0.5,1\r0.6\r", "line 3: 1 entries|1 entries"),
    ('x,y\n"0.5,1\n', "1 entries"),
    ("x,y\n" + "9" * 140_000 + ",1\n", "comma-separated values: field larger"),
]

BYTES = [
    (b"\xff\xfex\x00,\x00y\x00", "is not a text file"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a text file"),
    (b"PK\x03\x04\x14\x00\x08\x00\xff\xfe", "is not a text file"),
    (b"\x1f\x8b\x08\x00\xff\xff", "is not a text file"),
    (b"\x89HDF\r\n\x1a\n\x00\xff", "is not a text file"),
    (b"x,y\n0.5,\xe9\n", "is not a text file"),
    (b"x,y\n0.5,1\x00\n", "is not a text file|column y has"),
    (b"\x80\x04\x95\x10\x00", "is not a text file"),
]


@pytest.mark.parametrize(("content", "message"), CASES)
def test_a_text(refused, known, content, message):
    pathlib.Path("data.csv").write_text(content)
    said = refused("run", "line.py", "--data", "data.csv", saying=message)
    assert "data.csv" in said or "line.py" in said


@pytest.mark.parametrize(("content", "message"), BYTES)
def test_no_text(refused, known, content, message):
    pathlib.Path("data.csv").write_bytes(content)
    assert "data.csv" in refused("run", "line.py", "--data", "data.csv", saying=message)


@pytest.mark.parametrize("command", ["run", "map"])
@pytest.mark.parametrize("name", ["nothing.csv", ".", "..", "a/b.csv", "x" * 300, "/dev/null"])
def test_no_file(refused, known, command, name):
    refused(command, "line.py", "--data", name, saying="there is no data file")


@pytest.mark.parametrize("command", ["run", "map"])
def test_a_file_that_cannot_be_read(refused, known, command, monkeypatch):
    pathlib.Path("data.csv").write_text("x,y\n0.5,1\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "data.csv")

    monkeypatch.setattr("bilo_ppl.pde.data_file.open", refuse, raising=False)
    refused(
        command, "line.py", "--data", "data.csv", saying="cannot read data.csv .Permission denied"
    )


CELL = st.one_of(st.floats().map(repr), st.text(st.characters(codec="utf-8"), max_size=8))
TABLE = st.lists(st.lists(CELL, min_size=1, max_size=3), min_size=1, max_size=4)


@given(rows=TABLE, header=st.sampled_from(["x,y", "y,x", "x,y,sigma", "x", "y1,y2,x"]))
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_table_is_read_or_refused(tmp_path, rows, header):
    """Numbers that are read are finite, inside of the domain, and have a positive sigma."""
    path = tmp_path / "data.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]), encoding="utf-8")
    domain = bilo.interval(0.0, 1.0)
    try:
        found = read_csv(path, domain, 0.5)
    except ValueError as error:
        said = str(error)
    else:
        said = "data"
    assert "data" in said
    if said != "data":
        return
    assert domain.contains(found.x).all()
    assert abs(found.y).max() < float("inf")
    assert (found.sigma > 0) if isinstance(found.sigma, float) else (found.sigma > 0).all()

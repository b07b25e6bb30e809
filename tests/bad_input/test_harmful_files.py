"""Files made to do harm: none runs code, reads another file, or fills the memory."""

import hashlib
import json
import os
import pathlib
import pickle

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl._leaves import read_header, read_leaves, write_leaves
from bilo_ppl.diagnostics import load
from bilo_ppl.estimate.files import FORMAT, load_state
from bilo_ppl.estimate.loop import MapState
from bilo_ppl.run.compilation import _can_write


class Harmful:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("harm-done"),)


@pytest.fixture(autouse=True)
def _no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not pathlib.Path("harm-done").exists()


def other_file(path):
    with h5py.File(path, "w") as file:
        file["secret"] = np.arange(3.0)


def external_link(file):
    other_file("other.h5")
    file.create_group("posterior")["D"] = h5py.ExternalLink("other.h5", "/secret")


def external_link_upwards(file):
    file["posterior"] = h5py.ExternalLink("../../other.h5", "/")


def soft_link(file):
    file["posterior"] = h5py.SoftLink("/somewhere")


def external_storage(file):
    pathlib.Path("secret.txt").write_bytes(b"x" * 80)
    group = file.create_group("posterior")
    group.create_dataset("D", (10,), "f8", external=[("secret.txt", 0, 80)])


def virtual(file):
    other_file("other.h5")
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (3,))
    file.create_group("posterior").create_virtual_dataset("D", layout)


def bomb(file):
    group = file.create_group("posterior")
    shape = {"shape": (10**9, 1000), "chunks": (10**6, 1), "dtype": "f8"}
    group.create_dataset("D", compression="gzip", **shape)


def deep_bomb(file):
    for i in range(40):
        group = file.create_group(f"group{i}/below")
        group.create_dataset("D", (10**8, 1), "f8", chunks=(10**6, 1), compression="gzip")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "'D' lies in another file"),
        (external_link_upwards, "'posterior' lies in another file"),
        (soft_link, "'posterior' lies in another file or place"),
        (external_storage, "'D' lies in another file"),
        (virtual, "'D' lies in another file"),
        (bomb, "GiB of memory"),
        (deep_bomb, "GiB of memory"),
    ],
)
def test_results(make, message):
    with h5py.File("posterior.nc", "w") as file:
        make(file)
    with pytest.raises(ValueError, match=message):
        load("posterior.nc")


def test_results_that_are_pickled():
    pathlib.Path("posterior.nc").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="is not a netCDF"):
        load("posterior.nc")


LIKE = {"a": jnp.zeros(3), "n": np.arange(2), "k": 3}


def changed(change):
    """A file of arrays whose content was changed, checksum and all."""
    write_leaves("arrays.eqx", {"format": FORMAT}, LIKE)
    header, _, arrays = pathlib.Path("arrays.eqx").read_bytes().partition(b"\n")
    arrays = change(arrays)
    sums = {"bytes": len(arrays), "sha256": hashlib.sha256(arrays).hexdigest()}
    line = json.dumps(json.loads(header) | sums).encode()
    pathlib.Path("arrays.eqx").write_bytes(line + b"\n" + arrays)


def read():
    with pathlib.Path("arrays.eqx").open("rb") as file:
        return read_leaves(file, LIKE, read_header(file, FORMAT))


def test_arrays_come_back_as_they_were():
    changed(lambda arrays: arrays)
    found = read()
    assert found["k"] == 3
    assert isinstance(found["n"], np.ndarray)
    np.testing.assert_array_equal(found["n"], [0, 1])
    assert found["a"].dtype == LIKE["a"].dtype


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: pickle.dumps(Harmful()) + arrays,
        lambda arrays: pickle.dumps(Harmful()).ljust(len(arrays), b"\0"),
        lambda arrays: arrays + pickle.dumps(Harmful()),
        lambda arrays: arrays.replace(b"'<f8'", b"'|O' "),
        lambda arrays: arrays.replace(b"(3,)", b"(9999999999,)".ljust(4)),
        lambda arrays: b"PK\x03\x04" + arrays,
        lambda arrays: arrays[:-1],
        lambda arrays: b"",
    ],
)
def test_arrays_that_are_something_else(change):
    changed(change)
    with pytest.raises(ValueError, match="the file is damaged"):
        read()


@pytest.mark.parametrize(
    "header",
    [
        {"format": FORMAT},
        {"format": FORMAT, "state": 3},
        {"format": FORMAT, "state": [], "recorded": 3},
        {"format": FORMAT, "state": [], "recorded": [[".energy", [10**12], "float64"]]},
        {"format": FORMAT, "state": [], "recorded": [[".energy", [1], "object"]]},
        {"format": FORMAT, "state": [], "recorded": [[".energy", "x", "float64"]]},
        {"format": FORMAT, "state": [], "recorded": [[".energy"]]},
        {"format": "bilo_ppl estimate 99"},
        {"format": "bilo_ppl operator 4"},
    ],
)
def test_an_estimate_with_a_header_that_says_something_else(header):
    pathlib.Path("estimate.eqx").write_bytes(json.dumps(header).encode() + b"\n" + b"\0" * 99)
    with pytest.raises(ValueError, match="estimate"):
        load_state("estimate.eqx", MapState._make([()] * len(MapState._fields)))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners of files")
def test_compiled_programs_are_kept_where_nobody_else_can_write(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert _can_write(folder)
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert not _can_write(folder)

"""A file of records: what was written is read, and what was cut off or damaged is left out."""

import errno
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilo_ppl import _log
from bilo_ppl._log import Log, Record, has_log
from bilo_ppl._snapshot import filled, flat


def record(key, *values, **notes):
    return Record(key, notes, [np.asarray(value) for value in values])


def contents(path):
    log = Log(path)
    try:
        found = {key: log.get(key) for key in log.in_order()}
    finally:
        log.close()
    return {key: [array.tolist() for array in kept.arrays] for key, kept in found.items()}


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path / "here" / "log.bin")
    yield made
    made.close()


def test_arrays_of_all_types_come_back_bit_for_bit(log):
    numbers = np.array([1.0, -0.0, np.nan, np.inf, 5e-324])
    given = [
        numbers,
        numbers.astype(np.float32),
        np.array(3),
        np.array([[True], [False]]),
        np.zeros((0, 3), np.int32),
        np.asarray(jnp.array([1.5, 2.5], jnp.bfloat16)),
        np.arange(6.0).reshape(2, 3).T,
    ]
    log.put(Record("a", {"loss": 0.1, "steps": [1, 2], "none": None}, given))
    other = Log(log.path)
    found = other.get("a")
    other.close()
    assert found is not None
    assert found.notes == {"loss": 0.1, "steps": [1, 2], "none": None}
    for one, two in zip(given, found.arrays, strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert one.tobytes() == two.tobytes()


def test_of_several_records_with_one_key_the_last_counts(log):
    log.put(record("a", 1), record("b", 2))
    log.put(record("a", 3))
    assert contents(log.path) == {"b": [2], "a": [3]}
    assert log.get("c") is None
    assert "c" not in log
    assert "a" in log


@pytest.mark.parametrize("left", [1, 20, 28, 60, -1])
def test_a_record_that_was_cut_off_is_ignored_and_written_over(log, left):
    log.put(record("a", 1))
    whole = log.path.stat().st_size
    log.put(record("b", np.arange(50)))
    log.close()
    size = log.path.stat().st_size
    os.truncate(log.path, size + left if left < 0 else whole + left)
    assert contents(log.path) == {"a": [1]}
    again = Log(log.path)
    again.put(record("c", 4))
    again.close()
    assert contents(log.path) == {"a": [1], "c": [4]}


def test_a_damaged_record_is_left_out_and_those_after_it_are_not(log):
    log.put(record("a", 1))
    begin = log.path.stat().st_size
    log.put(record("b", np.arange(50)))
    log.put(record("c", 3))
    log.close()
    with log.path.open("r+b") as file:
        file.seek(begin + 300)
        file.write(b"\xff")
    assert contents(log.path) == {"a": [1], "c": [3]}


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.bin"
    path.write_bytes(b"something else")
    assert not has_log(path)
    assert not has_log(tmp_path / "nothing")
    made = Log(path, anew=True)
    made.close()
    assert has_log(path)


def test_outdated_records_do_not_fill_the_disk(log, monkeypatch):
    monkeypatch.setattr(_log, "SPARE", 10_000)
    for number in range(200):
        log.put(record("a", np.full(100, number)), record(f"b{number % 3}", number))
    assert log.path.stat().st_size < 15_000
    assert contents(log.path) == {"a": [[199] * 100], "b0": [198], "b1": [199], "b2": [197]}


def test_a_full_disk_leaves_the_file_as_it_was(log, monkeypatch):
    log.put(record("a", 1))
    before, put = log.path.read_bytes(), _log._put

    def full(file, where, data):
        if where > len(before) + 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(file, where, data[:50])

    monkeypatch.setattr(_log, "_put", full)
    with pytest.raises(OSError, match="No space left"):
        log.put(record("b", np.arange(1000)))
    assert log.path.read_bytes() == before
    monkeypatch.undo()
    log.put(record("b", 2))
    assert contents(log.path) == {"a": [1], "b": [2]}


def test_a_file_that_was_removed_is_written_again(log):
    log.put(record("a", 1))
    shutil.rmtree(log.path.parent)
    log.put(record("b", 2))
    assert contents(log.path) == {"a": [1], "b": [2]}


def test_a_pytree_comes_back_with_its_keys_and_numbers():
    tree = {
        "key": jax.random.split(jax.random.key(3), 2),
        "array": jnp.arange(3.0),
        "numpy": np.array([1, 2]),
        "number": 0.1,
        "flag": True,
    }
    like = {**tree, "key": jax.random.split(jax.random.key(0), 2), "number": 0.0, "flag": False}
    like["array"] = jnp.zeros(3)
    found = filled(like, flat(tree))
    assert jnp.array_equal(jax.random.key_data(found["key"]), jax.random.key_data(tree["key"]))
    assert found["number"] == 0.1
    assert found["flag"] is True
    assert found["array"].tolist() == [0, 1, 2]
    assert isinstance(found["numpy"], np.ndarray)
    with pytest.raises(ValueError, match="needed is float64"):
        filled({"a": jnp.zeros(2)}, [np.zeros(3)])
    with pytest.raises(ValueError, match="needed is float32"):
        filled({"a": jnp.zeros(2, jnp.float32)}, [np.zeros(2)])
    with pytest.raises(ValueError, match="2 arrays, and 1 are needed"):
        filled({"a": jnp.zeros(2)}, [np.zeros(2), np.zeros(2)])


def test_what_is_no_number_in_a_pytree_is_not_kept_but_stays(log):
    domain = object()
    kept = flat({"array": jnp.arange(3.0), "domain": domain})
    assert [array.tolist() for array in kept] == [[0, 1, 2]]
    found = filled({"array": jnp.zeros(3), "domain": domain}, kept)
    assert found["domain"] is domain
    assert found["array"].tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="one: an array of objects cannot be kept"):
        log.put(record("one", domain))

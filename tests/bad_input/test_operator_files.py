"""Operator files that are damaged, of something else, or made to do harm."""

import hashlib
import io
import json
import pathlib
import pickle

import jax
import numpy as np
import pytest

import bilo_ppl as bilo
from bilo_ppl.network.operator_file import FORMAT

NEW = "bilo_ppl operator 99"


@pytest.fixture(scope="module")
def saved(loaded, tmp_path_factory):
    """The bytes of a good file."""
    operator = bilo.LocalOperator(
        loaded.problem, loaded.start, key=jax.random.key(0), width=16, depth=2
    )
    path = tmp_path_factory.mktemp("operator") / "good.eqx"
    bilo.save_operator(path, operator.with_points(loaded.problem.domain.grid(5)))
    return path.read_bytes()


def parts(content):
    header, _, arrays = content.partition(b"\n")
    return json.loads(header), arrays


def joined(header, arrays, *, sums=True):
    if sums:
        header = header | {"bytes": len(arrays), "sha256": hashlib.sha256(arrays).hexdigest()}
    return json.dumps(header).encode() + b"\n" + arrays


def with_header(**changes):
    """The header with other entries; None takes one out. The arrays stay."""

    def change(content):
        header, arrays = parts(content)
        header = {k: v for k, v in (header | changes).items() if v is not ABSENT}
        return joined(header, arrays, sums=False)

    return change


ABSENT = object()


def in_network(**changes):
    def change(content):
        header, arrays = parts(content)
        network = {k: v for k, v in (header["network"] | changes).items() if v is not ABSENT}
        return joined(header | {"network": network}, arrays, sums=False)

    return change


def with_arrays(change_arrays, *, sums=True):
    def change(content):
        header, arrays = parts(content)
        return joined(header, change_arrays(arrays), sums=sums)

    return change


def first_array(array, **options):
    """Another array in the place of the first one, checksums right."""

    def change(arrays):
        file = io.BytesIO(arrays)
        np.load(file)
        new = io.BytesIO()
        np.save(new, array, **options)
        return new.getvalue() + file.read()

    return with_arrays(change)


def first_header(text):
    """What stands in the header of the first array; its numbers stay."""

    def change(arrays):
        length = int.from_bytes(arrays[8:10], "little")
        return arrays[:10] + text.encode().ljust(length - 1) + b"\n" + arrays[10 + length :]

    return with_arrays(change)


class Harmful:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("harm-done"),)


HARM = pickle.dumps(Harmful())


def not_finite(value):
    def change(arrays):
        file = io.BytesIO(arrays)
        array = np.load(file).copy()
        array.flat[0] = value
        new = io.BytesIO()
        np.save(new, array)
        return new.getvalue() + file.read()

    return with_arrays(change)


CASES = [
    (lambda content: b"", "is not an operator file"),
    (lambda content: b"\n", "is not an operator file"),
    (lambda content: b"[1]\n", "is not an operator file"),
    (lambda content: b"null\n", "is not an operator file"),
    (lambda content: b"{}\n", "is not an operator file"),
    (lambda content: b"x,y\n0.1,2\n", "is not an operator file"),
    (lambda content: b"\xff\xfe\x00\n", "is not an operator file"),
    (lambda content: b"[" * 100_000 + b"\n", "is not an operator file"),
    (lambda content: b"PK\x03\x04" + content, "is not an operator file"),
    (lambda content: b"\x89HDF\r\n\x1a\n" + content, "is not an operator file"),
    (lambda content: b"\x93NUMPY" + content, "is not an operator file"),
    (lambda content: HARM, "is not an operator file"),
    (lambda content: b"a" * 100_000, "is not an operator file"),
    (with_header(format="other"), "is not an operator file"),
    (with_header(format=3), "is not an operator file"),
    (with_header(format=NEW), f"{NEW}.*this version reads {FORMAT!r}"),
    (with_header(format="bilo_ppl operator 1"), "operator 1.*or make it anew"),
    (with_header(format="bilo_ppl estimate 2"), "is not an operator file"),
    (with_header(width=ABSENT), "'width' of its header is None"),
    (with_header(width=10**7), "width 10000000 and depth 2 would have more numbers"),
    (with_header(width=2**62), "would have more numbers"),
    (with_header(width=17), "asks for|would have more|do not fit the header"),
    (with_header(width=15), "do not fit the header"),
    (with_header(width=0), "'width' of its header is 0"),
    (with_header(width=-5), "'width' of its header is -5"),
    (with_header(width="16"), "'width' of its header is '16'"),
    (with_header(width=16.0), "'width' of its header is 16.0"),
    (with_header(width=True), "'width' of its header is True"),
    (with_header(width=[16]), "'width' of its header"),
    (with_header(dtype=ABSENT), "'dtype' of its header is None"),
    (with_header(dtype="object"), "'dtype' of its header is 'object'"),
    (with_header(dtype="float16"), "'dtype' of its header is 'float16'"),
    (with_header(dtype="float64"), "do not fit the header|asks for"),
    (with_header(dtype=3), "'dtype' of its header is 3"),
    (with_header(network=ABSENT), "'network' of its header is None"),
    (with_header(network=3), "'network' of its header is 3"),
    (with_header(network={}), "'network' of its header"),
    (with_header(network={"class": 3}), "'network' of its header"),
    (with_header(network={"class": "MLP"}), "'depth' of its header is None"),
    (with_header(network={"class": "os.system", "shapes": []}), "of the class os.system"),
    (in_network(depth=ABSENT), "'depth' of its header is None"),
    (in_network(depth=10**9), "would have more numbers"),
    (in_network(depth=3), "asks for|would have more|do not fit"),
    (in_network(depth=1), "do not fit the header|more in it"),
    (in_network(depth=-1), "'depth' of its header is -1"),
    (in_network(fourier=10**9), "would have more numbers"),
    (in_network(fourier=2), "do not fit the header|asks for"),
    (in_network(fourier="none"), "'fourier' of its header"),
    (in_network(residual="no"), "'residual' of its header"),
    (with_header(embedded=ABSENT), "'embedded' of its header is None"),
    (with_header(embedded=["a"]), "'embedded' of its header"),
    (with_header(embedded={"a": [10**12]}), "would have more numbers"),
    (with_header(embedded={"a": [-1]}), "'embedded' of its header"),
    (with_header(embedded={"a": "x"}), "'embedded' of its header"),
    (with_header(embedded={"b": []}), "'embedded' of its header"),
    (with_header(embedded={}), "do not fit|more in it"),
    (with_header(home=ABSENT), "'home' of its header is None"),
    (with_header(home={"q": []}), "'home' of its header"),
    (with_header(home={"a": [10**12]}), "would have more numbers"),
    (with_header(points="none"), "collocation points are no points"),
    (with_header(points=[]), "collocation points are no points"),
    (with_header(points=[0.1, 0.2]), "collocation points are no points"),
    (with_header(points=[[0.1, 0.2]]), "collocation points are no points"),
    (with_header(points=[[0.1], [0.2, 0.3]]), "collocation points are no points"),
    (with_header(points=[[7.0]]), "collocation points are no points"),
    (with_header(points=[[float("nan")]]), "collocation points are no points"),
    (with_header(points=[["a"]]), "collocation points are no points"),
    (with_header(problem="Other"), "another problem .problem: file 'Other', problem 'Line'"),
    (with_header(parameters=["b"]), "another problem .parameters"),
    (with_header(parameters=ABSENT), "another problem .parameters: file None"),
    (with_header(dimension=2), "another problem .dimension"),
    (with_header(components=2), "another problem .components"),
    (with_header(domain=[[0.0], [2.0]]), "another problem .domain"),
    (with_header(sha256="0" * 64), "its checksum is another"),
    (with_header(sha256=None), "its checksum is another"),
    (with_header(bytes=3), "bytes of arrays, and 3 were written"),
    (with_header(bytes="all"), "bytes of arrays, and all were written"),
    (lambda content: content[:-40], "bytes of arrays"),
    (lambda content: content[: content.index(b"\n")], "has room for"),
    (lambda content: content[: content.index(b"\n") + 1], "has room for"),
    (lambda content: content + b"more", "bytes of arrays, and"),
    (lambda content: content[:-1] + b"\x55", "its checksum is another"),
    (with_arrays(lambda arrays: arrays + b"more"), "there is more in it than its arrays"),
    (with_arrays(lambda arrays: arrays + HARM), "there is more in it than its arrays"),
    (with_arrays(lambda arrays: arrays[:-40]), "asks for|do not fit"),
    (with_arrays(lambda arrays: b"\0" * len(arrays)), "do not fit the header"),
    (with_arrays(lambda arrays: HARM + arrays), "do not fit the header"),
    (with_arrays(lambda arrays: b"PK\x03\x04" + arrays), "do not fit the header"),
    (with_arrays(lambda arrays: arrays[:6] + b"\x02" + arrays[7:]), "version .2, 0."),
    (with_arrays(lambda arrays: arrays[:8] + b"\xff\xff" + arrays[10:]), "do not fit the header"),
    (first_array(np.array([Harmful()], object), allow_pickle=True), "do not fit the header"),
    (first_array(np.zeros((16, 2), np.float32)), "do not fit the header"),
    (first_array(np.zeros((16, 1), np.float64)), "do not fit the header"),
    (first_array(np.zeros((16, 1), np.int32)), "do not fit the header"),
    (first_array(np.zeros((16, 1), np.complex64)), "do not fit the header"),
    (first_array(np.zeros((16, 1), "S4")), "do not fit the header"),
    (first_header("{'descr': '|O', 'fortran_order': False, 'shape': (16, 1), }"), "do not fit"),
    (first_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**15, 1), }"), "do not fit"),
    (first_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 1)}"), "not fit"),
    (first_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1), }"), "do not fit"),
    (first_header("__import__('pathlib').Path('harm-done').touch()"), "do not fit the header"),
    (first_header("[" * 100), "do not fit the header"),
    (not_finite(np.nan), "its weights are not all finite"),
    (not_finite(np.inf), "its weights are not all finite"),
    (not_finite(-np.inf), "its weights are not all finite"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_file(refused, known, saved, number):
    change, message = CASES[number]
    pathlib.Path("bad.eqx").write_bytes(change(saved))
    said = refused("run", "line.py", "--operator-file", "bad.eqx", saying=message)
    assert "bad.eqx" in said
    assert not pathlib.Path("harm-done").exists()


def test_the_good_file_is_read_and_so_is_one_of_the_format_before(known, saved, loaded):
    pathlib.Path("good.eqx").write_bytes(saved)
    operator = bilo.load_operator("good.eqx", loaded.problem)
    header, arrays = parts(saved)
    assert header["sha256"] == hashlib.sha256(arrays).hexdigest()
    for name in ("sha256", "bytes"):
        del header[name]
    header["format"] = "bilo_ppl operator 3"
    pathlib.Path("old.eqx").write_bytes(joined(header, arrays, sums=False))
    old = bilo.load_operator("old.eqx", loaded.problem)
    for one, other in zip(jax.tree.leaves(operator), jax.tree.leaves(old), strict=True):
        np.testing.assert_array_equal(one, other)
    pathlib.Path("old.eqx").write_bytes(joined(header, arrays + b"more", sums=False))
    with pytest.raises(ValueError, match="there is more in it than its arrays"):
        bilo.load_operator("old.eqx", loaded.problem)


@pytest.mark.parametrize("name", ["nothing.eqx", ".", "x" * 300, "a/b/c"])
def test_no_file(refused, known, name):
    refused("run", "line.py", "--operator-file", name, saying="there is no operator file")

"""Operators on disk: nothing is lost, and a wrong file is named as such."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bilo_ppl as bilo
from models import nonlinear_poisson, poisson

KEY = jax.random.key(2)


def operator_for(module=poisson, **options):
    return bilo.LocalOperator(module.problem, module.start, key=KEY, **{"width": 6, **options})


def same(one, other):
    leaves, structure = jax.tree.flatten(eqx.filter(one, eqx.is_array))
    others, other_structure = jax.tree.flatten(eqx.filter(other, eqx.is_array))
    return structure == other_structure and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(leaves, others, strict=True)
    )


def rewrite(path, **changes):
    """The file with a changed header."""
    header, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(header), **changes}).encode() + b"\n" + rest)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "operator.bilo"


def test_points_of_its_own_are_kept(path):
    operator = operator_for()
    points = np.linspace(0, 1, 7)[:, None]
    bilo.save_operator(path, operator.with_points(points))
    loaded = bilo.load_operator(path, poisson.problem)
    np.testing.assert_array_equal(loaded.collocation, points)
    bilo.save_operator(path, operator)
    assert bilo.load_operator(path, poisson.problem).collocation is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fourier": 3, "fourier_scale": 2.0, "residual": True, "dtype": np.float64},
        {"depth": 1, "embedded": (), "width": 5},
        {"scales": {"D": 0.01}},
    ],
)
def test_round_trip_is_exact(path, options):
    operator = operator_for(**options)
    bilo.save_operator(path, operator)
    loaded = bilo.load_operator(path, poisson.problem)
    assert same((loaded.network, loaded.embedding), (operator.network, operator.embedding))
    assert loaded.network.residual == operator.network.residual
    assert loaded.embedding.names == operator.embedding.names
    x = jnp.array([0.3], operator.dtype)
    assert loaded(x, {"D": 1.7}) == operator(x, {"D": 1.7})


def test_arrays_and_fields_in_theta(path):
    class Several(bilo.Problem):
        parameters = ("v", "f")
        components = 2
        domain = bilo.interval(0.0, 1.0)
        points = domain.grid(4)

    theta = {"v": jnp.array([1.0, 2.0]), "f": lambda x: 3 * x[0]}
    operator = bilo.LocalOperator(Several(), theta, key=KEY, width=4)
    bilo.save_operator(path, operator)
    loaded = bilo.load_operator(path, Several())
    assert same((loaded.network, loaded.embedding), (operator.network, operator.embedding))


def test_increments_are_merged(path):
    operator = operator_for(width=8, dtype=np.float64).with_lora(2, key=KEY)
    moved = jax.tree.map(lambda w: w + 0.1, operator.weights)
    operator = operator.with_weights(moved)
    bilo.save_operator(path, operator)
    loaded = bilo.load_operator(path, poisson.problem)
    assert loaded.rank == 0
    assert same(loaded.network, operator.with_lora(0, key=KEY).network)


def test_header_is_one_line_of_json_with_the_metadata(path):
    bilo.save_operator(path, operator_for(), metadata={"seed": 3})
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    assert header["metadata"] == {"seed": 3}
    assert header["problem"] == "Poisson"
    assert header["width"] == 6
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_metadata_that_is_not_json_leaves_the_old_file(path):
    bilo.save_operator(path, operator_for())
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        bilo.save_operator(path, operator_for(width=7), metadata={"bad": object()})
    assert path.read_bytes() == before


def test_operator_of_another_problem(path):
    bilo.save_operator(path, operator_for(nonlinear_poisson))
    with pytest.raises(ValueError, match=r"another problem.*'NonlinearPoisson', problem 'Poisson'"):
        bilo.load_operator(path, poisson.problem)


def test_problem_that_has_changed_since(path):
    class Poisson(poisson.Poisson):
        parameters = ("D", "f")

    bilo.save_operator(path, operator_for())
    with pytest.raises(ValueError, match=r"parameters: file \['D'\], problem \['D', 'f'\]"):
        bilo.load_operator(path, Poisson())


@pytest.mark.parametrize("damage", ["cut", "resized"])
def test_damaged_file(path, damage):
    bilo.save_operator(path, operator_for())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        rewrite(path, width=9)
    with pytest.raises(ValueError, match="the file is damaged"):
        bilo.load_operator(path, poisson.problem)


@pytest.mark.parametrize(
    "content", [b"", b"x,y\n0.1,2.0\n", b"\x93NUMPY\xff\xfe\n", b'{"format": "other"}\n', b"[1]\n"]
)
def test_not_an_operator_file(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not an operator file"):
        bilo.load_operator(path, poisson.problem)


def test_no_file(path):
    with pytest.raises(FileNotFoundError):
        bilo.load_operator(path, poisson.problem)


def test_only_a_local_operator_is_saved(path):
    fine = bilo.FineTuned(
        operator_for(), bilo.LevenbergMarquardt(1e-6, 5), bilo.PartialDerivative()
    )
    with pytest.raises(TypeError, match=r"a FineTuned is no LocalOperator.*give its \.operator"):
        bilo.save_operator(path, fine)
    assert not path.exists()

"""The cache of compiled programs, in processes of their own: JAX reads its settings once."""

import os
import subprocess
import sys

import jaxlib
import pytest

from bilo_ppl.run.compilation import compile_quickly

SCRIPT = """
import jax
from bilo_ppl.run.compilation import set_up_compilation
set_up_compilation({cache})
jax.jit(lambda x: x + 1)(1.0)
"""


def files_after(tmp_path, cache, **environment):
    """What a process has written below the user's cache folder."""
    given = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "user"), **environment}
    given["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    script = SCRIPT.format(cache=cache)
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=given, check=True)
    return [path for path in (tmp_path / "user").rglob("*-cache") if path.is_file()]


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is that of Linux")
def test_compiled_programs_are_kept_unless_they_are_not_wanted(tmp_path):
    assert not files_after(tmp_path, False)
    found = files_after(tmp_path, True)
    assert found
    assert all("bilo_ppl" in path.parts for path in found)


def test_where_nothing_can_be_written_nothing_is_kept_without_a_word(tmp_path):
    (tmp_path / "user").write_text("a file where the folder would be")
    assert not files_after(tmp_path, True)


def test_a_cache_that_the_environment_names_is_used(tmp_path):
    named = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "named"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    assert not files_after(tmp_path, True, **named)
    assert list((tmp_path / "named").rglob("*-cache"))


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ((0, 10, 2), ["--xla_cpu_use_fusion_emitters=false", "--xla_backend_optimization_level=2"]),
        ((0, 11, 0), ["--xla_backend_optimization_level=2"]),
        ((0, 12, 0), []),
    ],
)
def test_no_flag_is_given_to_a_compiler_that_may_not_know_it(monkeypatch, version, known):
    monkeypatch.setattr(jaxlib.version, "__version_info__", version)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")
    compile_quickly(level=2)
    assert os.environ["XLA_FLAGS"].split() == ["--xla_dump_to=here", *known]
    compile_quickly(level=1)
    assert os.environ["XLA_FLAGS"].split() == ["--xla_dump_to=here", *known]

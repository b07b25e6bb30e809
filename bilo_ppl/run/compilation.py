"""How the commands compile: quickly, and once for each model and data.

What was compiled is kept in the user's cache folder, so that another run of the same loads it. Programs
in which the data or the tolerance are constants are compiled anew for other data.
"""

import os
import pathlib
import platform

import jax
import platformdirs

__all__ = ["cache_folder", "set_up_compilation"]

LARGEST_CACHE = 1 << 30
"""Bytes beyond which what was not used for longest is deleted."""

XLA_FLAGS = {"xla_cpu_use_fusion_emitters": "false", "xla_backend_optimization_level": "1"}
"""They halve the time of compilation on CPUs and cost no speed here."""


def set_up_compilation(cache: bool) -> None:
    """Set JAX up for a command; what the environment or the caller has chosen stays.

    With ``cache``, compiled programs are kept in `cache_folder`, if it can be written.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    for name, value in XLA_FLAGS.items():
        if name not in flags:
            flags = f"{flags} --{name}={value}".strip()
    os.environ["XLA_FLAGS"] = flags
    if not cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif not jax.config.values["jax_compilation_cache_dir"] and _can_write(cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_compilation_cache_max_size", LARGEST_CACHE)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: for each machine its own, since processors differ."""
    return pathlib.Path(platformdirs.user_cache_dir("bilo_ppl")) / "compiled" / platform.node()


def _can_write(folder: pathlib.Path) -> bool:
    """Whether the folder is there, or can be made: JAX would warn for every program if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)

"""How the commands compile: quickly, and once for each model and data.

What was compiled is kept in the user's cache folder, so that another run of the same loads it. Programs
in which the data or the tolerance are constants are compiled anew for other data.
"""

import os
import pathlib
import platform

import jax
import jaxlib
import platformdirs

__all__ = ["cache_folder", "compile_quickly", "set_up_compilation"]

LARGEST_CACHE = 1 << 30
"""Bytes beyond which what was not used for longest is deleted."""

FUSION_EMITTERS_UNTIL, OPTIMIZATION_LEVEL_UNTIL = (0, 11), (0, 12)
"""Versions of jaxlib from which on a flag is unknown to XLA, or untried: one that it does not know ends
the process."""


def set_up_compilation(cache: bool) -> None:
    """Set JAX up for a command; what the environment or the caller has chosen stays.

    With ``cache``, compiled programs are kept in `cache_folder`, if it can be written.
    """
    compile_quickly()
    if not cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif not jax.config.values["jax_compilation_cache_dir"] and _can_write(cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_compilation_cache_max_size", LARGEST_CACHE)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def compile_quickly(level: int = 1) -> None:
    """Ask XLA for little optimisation, before JAX first computes: half the time of compilation on CPUs.

    At ``level`` 1 it costs no speed here. What ``XLA_FLAGS`` in the environment says already stays.
    """
    known = {"xla_cpu_use_fusion_emitters": "false"} if _before(FUSION_EMITTERS_UNTIL) else {}
    if _before(OPTIMIZATION_LEVEL_UNTIL):
        known["xla_backend_optimization_level"] = str(level)
    flags = os.environ.get("XLA_FLAGS", "")
    more = [f"--{name}={value}" for name, value in known.items() if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *more])


def _before(version: tuple[int, ...]) -> bool:
    return jaxlib.version.__version_info__ < version


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: for each machine its own, since processors differ."""
    return pathlib.Path(platformdirs.user_cache_dir("bilo_ppl")) / "compiled" / platform.node()


def _can_write(folder: pathlib.Path) -> bool:
    """Whether the folder is there, or can be made: JAX would warn for every program if not.

    Programs are loaded from it and run. So it must be the user's own, and no other may write there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(os, "getuid"):
            if folder.stat().st_uid != os.getuid():
                return False
            folder.chmod(0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)

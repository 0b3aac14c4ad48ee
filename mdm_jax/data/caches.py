"""Finds a folder for numba's compiled kernels. Without a writable one, kernels cannot be imported."""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

from mdm_jax.errors import InputError


def find_numba_cache(usual: Sequence[pathlib.Path] | None = None) -> None:
    """Gives numba a temporary folder if it can write to none of its default folders.

    Containers with a read-only installation and a user without a home need it. NUMBA_CACHE_DIR chooses another folder.
    The temporary folder is deleted when the process ends.

    Args:
      usual: the folders that numba tries; None for those of this package.

    Raises:
      InputError: no temporary folder can be made either.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if any(map(_is_writable, usual or (pathlib.Path(__file__).parent / "__pycache__", pathlib.Path(cache) / "numba"))):
        return
    try:
        folder = tempfile.mkdtemp(prefix="mdm_jax-numba-")
    except OSError as error:
        raise InputError(
            f"there is no folder to compile in ({error}): name some that can be written to, by NUMBA_CACHE_DIR and "
            "JAX_COMPILATION_CACHE_DIR"
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:  # it has read the variable already
        sys.modules["numba"].config.CACHE_DIR = folder


def _is_writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

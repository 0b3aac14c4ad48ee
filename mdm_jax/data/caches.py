"""The folder of numba's compiled kernels. Importing kernels fails if numba can write to no folder."""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

from mdm_jax.errors import InputError


def find_numba_cache(usual: Sequence[pathlib.Path] | None = None) -> None:
    """Gives numba a temporary folder if it can write to none of its usual ones.

    This happens in a container with a read-only installation whose user has no home. NUMBA_CACHE_DIR chooses another
    folder. A temporary one is deleted at the end of the process.

    Args:
      usual: the folders that numba tries; None for those of this package.

    Raises:
      InputError: the folder of temporary files cannot be written to either.
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
    if "numba" in sys.modules:  # which has read the variable already
        sys.modules["numba"].config.CACHE_DIR = folder


def _is_writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

"""One writer per folder: a lock that the system releases when its holder dies."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterator

from mdm_jax.files import LOCK, take_lock
from mdm_jax.training.distributed import is_lead

_held: dict[str, int] = {}
"""The folders that this process has locked, and the thread of each, which may lock it again."""


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder, which is made if it does not exist; of a run's processes only one locks.

    A folder that cannot be written to is not locked; the first write will raise the error.

    Raises:
      InputError: another process, or another thread of this one, has locked it.
    """
    name, me = os.path.realpath(folder), threading.get_ident()
    if not is_lead() or _held.get(name) == me:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError:
        yield
        return
    with file:
        take_lock(file, folder)
        _held[name] = me
        try:
            yield
        finally:
            del _held[name]

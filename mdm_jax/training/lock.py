"""One writer per folder: a lock that the system releases when its holder dies."""

import contextlib
import datetime
import os
import pathlib
import socket
import threading
from collections.abc import Iterator
from typing import TextIO

from mdm_jax.errors import InputError
from mdm_jax.training.distributed import is_lead

LOCK = "lock"
"""Name of the lock file. It says which process holds the lock, or held it last."""

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
        _take(file, folder)
        _held[name] = me
        try:
            yield
        finally:
            del _held[name]


def _take(file: TextIO, folder: pathlib.Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise InputError(
            f"{folder} is in use by {file.read(300).strip() or 'another process'}; wait for its end, or take another "
            "folder"
        ) from None
    except OSError:  # a file system without such locks
        return
    file.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
    file.flush()

"""One writer per folder: a lock that the system lets go of when its holder dies, so that none is ever stale."""

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
"""The file in the folder; it says who holds the lock, or held it last."""

_held: dict[str, int] = {}
"""Folders that this process holds, and the thread of each: what holds a lock may take it again."""


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if it is not there. Of several processes of one run the first does.

    A folder that cannot be written to is not locked: who writes there finds out.

    Raises:
      InputError: another process holds it, or another thread of this one.
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

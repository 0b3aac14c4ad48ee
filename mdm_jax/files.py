"""Files and folders that a user names: which are accepted, and how much of them is read."""

import contextlib
import datetime
import errno
import json
import math
import os
import pathlib
import re
import socket
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

from mdm_jax.errors import InputError, RunError, shown

MOST_JSON = 1 << 24
"""The most bytes of a JSON file; none of ours is larger."""
DEEPEST = 32
"""The most levels of nested lists and objects; ours have four."""
LOCK = "lock"
"""Name of the lock file of a folder. It says which process holds the lock, or held it last."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path as a `pathlib.Path`; InputError for a URL, such as gs://BUCKET, or another type."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a path is wanted, a str or a pathlib.Path; got {shown(path)}")
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", os.fspath(path)):
        given = f"{found[1]}://{os.fspath(path)[found.end() :]}"  # a Path has one slash there
        raise InputError(
            f"{given} is not a path in the file system: mount the bucket (gcsfuse for gs://, mountpoint-s3 or s3fs for "
            "s3://) or download the file, and give that path"
        )
    return pathlib.Path(path)


def regular_file(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path; InputError unless it is a regular file, since reading a pipe may never end."""
    found = local_path(path)
    try:
        mode = found.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path} cannot be read: No such file or directory") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device')}: give a regular file")
    return found


def check_place(path: str | os.PathLike[str]) -> None:
    """InputError if the path is a URL, or if something else than a file or a folder is there."""
    found = local_path(path)
    try:
        mode = found.stat().st_mode
    except (OSError, ValueError):  # nothing is there yet, or opening it will raise the error
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device')}: give a regular file or a folder")


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes a folder and its parents unless it exists; InputError if it cannot be made."""
    folder = local_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"the folder {path} cannot be made: {_reason(error)}") from error
    return folder


def read_bytes(path: str | os.PathLike[str], *, most: int | None = None) -> bytes:
    """The content of a regular file; InputError if it is unreadable or has over `most` bytes."""
    found = regular_file(path)
    try:
        with found.open("rb") as file:
            data = file.read() if most is None else file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    if most is not None and len(data) > most:
        raise InputError(f"{path} has more than {most:,} bytes, the most that is read here")
    return data


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """The value in a JSON file; InputError "PATH cannot be read as WHAT" if there is none."""
    return parse_json(read_bytes(path, most=MOST_JSON), f"{path} cannot be read as {what}")


def parse_json(text: str | bytes, complaint: str) -> Any:
    """The value of a JSON text; InputError with the message `complaint` if it is not valid.

    NaN, infinities and more than `DEEPEST` levels are not valid.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # also text that is not UTF-8, and integers of thousands of digits
        raise InputError(complaint) from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _members(outer)]
    if level:
        raise InputError(complaint)
    return value


def finite(value: Any) -> Any:
    """The value with None in place of each float that is not finite, which JSON cannot express."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk or the quota is full, or that the file is too large."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write to, there whole or not at all.

    Raises:
      RunError: the disk is full.
      InputError: it cannot be written for another reason.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        line = f"{path} cannot be written: {_reason(error)}"
        raise (RunError(f"{line}; make room") if is_full(error) else InputError(line)) from error


def write_whole(path: pathlib.Path, data: str | bytes) -> None:
    """Writes a file whole or not at all; RunError if the disk is full, InputError if it cannot be written otherwise."""
    with whole_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def open_lock(folder: pathlib.Path) -> TextIO:
    """Makes a folder, and locks it until what is returned is closed.

    Raises:
      InputError: the folder cannot be written to, or another process has locked it.
    """
    try:
        file = (make_folder(folder) / LOCK).open("a+")
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written to: {_reason(error)}") from error
    try:
        take_lock(file, folder)
    except InputError:
        file.close()
        raise
    return file


def take_lock(file: TextIO, folder: pathlib.Path) -> None:
    """Locks the open lock file of a folder until it is closed or its process dies.

    Raises:
      InputError: another process has locked it.
    """
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


def _no_number(name: str) -> None:
    raise ValueError(name)


def _members(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)

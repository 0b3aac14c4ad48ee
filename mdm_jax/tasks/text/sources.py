"""The places that a corpus is read from: files of a folder or a pattern, or a data set of the library `datasets`."""

import glob
import os
import pathlib
from typing import NamedTuple

from mdm_jax.errors import InputError, shown
from mdm_jax.files import local_path, regular_file

HUB = "hf:"
"""What the name of a data set of the library `datasets` begins with."""
COMPRESSED = (".gz", ".zst")
KINDS = (".txt", ".jsonl", ".parquet")
WANTED = "files ending in .txt or .jsonl, also with .gz or .zst behind it, or in .parquet"


class Place(NamedTuple):
    """A file, or a data set of the hub."""

    path: str
    """a path, or what is behind `hf:`"""
    kind: str
    """one of `KINDS`, or `HUB`"""
    compression: str = ""
    """one of `COMPRESSED`, or nothing"""
    name: str = ""
    """the path below the folder that the source names"""

    def identity(self) -> str:
        """Text that changes when the file does."""
        if self.kind == HUB:
            return f"{HUB}{self.path}"
        found = os.stat(self.path)
        return f"{self.name} {found.st_size} {found.st_mtime_ns}"

    def num_bytes(self) -> int | None:
        """The size of the file as it lies there; None of what is no file."""
        return None if self.kind == HUB else os.stat(self.path).st_size


def find_places(source: str) -> list[Place]:
    """The places of a source, files in the order of their names.

    Args:
      source: a file, a folder with files at any depth, a pattern such as "books/*.txt" ("**" for any depth), or
        hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT (train, unless it is named) of the library `datasets`.

    Raises:
      InputError: there is no such file, or none of a kind that is read.
    """
    if source.startswith(HUB):
        if not source.removeprefix(HUB):
            raise InputError(f"{HUB} wants the name of a data set behind it, such as hf:cerebras/SlimPajama-627B")
        return [Place(source.removeprefix(HUB), HUB)]
    path = local_path(source)
    if os.path.isdir(path):
        inside = sorted(os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        return _known(source, path, inside)
    if not os.path.lexists(path) and glob.has_magic(source):
        inside = sorted(name for name in glob.glob(source, recursive=True) if not os.path.isdir(name))
        return _known(source, pathlib.Path(), inside)
    place = _place(os.fspath(regular_file(path)), path.name)
    if place is None:
        raise InputError(f"{source} is of no kind that is read: give {WANTED}")
    return [place]


def _known(source: str, base: pathlib.Path, paths: list[str]) -> list[Place]:
    """The files that are read, without hidden ones."""
    names = [os.path.relpath(path, base) for path in paths]
    found = [
        _place(path, name)
        for path, name in zip(paths, names, strict=True)
        if not any(part.startswith(".") and part.strip(".") for part in pathlib.Path(name).parts)
    ]
    places = [place for place in found if place is not None]
    if not places:
        raise InputError(f"{shown(source)} has no file to read: give {WANTED}")
    for place in places:
        regular_file(place.path)
    return places


def _place(path: str, name: str) -> Place | None:
    """The place of a file by its name; None for another kind."""
    compression = next((end for end in COMPRESSED if path.endswith(end)), "")
    kind = next((end for end in KINDS if path.removesuffix(compression).endswith(end)), None)
    if kind is None or (kind == ".parquet" and compression):
        return None
    return Place(path, kind, compression, name)

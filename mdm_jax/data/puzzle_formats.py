"""Reads the lines of files of puzzles, and recognises their format.

Each kind of puzzle has a table of `Format`. The first line that is neither empty nor a comment decides the format of a
file. Lines are read in blocks, so a file of any length takes little memory.
"""

import dataclasses
import functools
import gzip
import io
import itertools
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError, shown
from mdm_jax.files import regular_file

BLOCK = 1 << 14
"""The number of lines in a block."""

_CHUNK = 1 << 20  # characters read at a time
_LONGEST = 1 << 16  # characters of a line
_BOMB_SIZE, _BOMB_RATIO = 1 << 24, 30  # puzzles compress by a factor of 3 to 10, never by 30
_PACKED = {b"PK\3\4": "a zip archive", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PAR1": "Parquet"}
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that could not be decoded

Reader = TypeVar("Reader")


@dataclasses.dataclass(frozen=True)
class Format(Generic[Reader]):
    """A format of files of puzzles.

    Attributes:
      name: the name, for the line that says how a file was read.
      known_by: the beginning of such files in a few words, for the message that no format fits.
      recognise: lines -> their reader; None if they have another format.
    """

    name: str
    known_by: str
    recognise: Callable[["Lines"], Reader | None]


@dataclasses.dataclass(frozen=True)
class Lines:
    """The lines of a file, plain or compressed by gzip, or of a text.

    Attributes:
      name: the path of the file, or the name of the text in messages.
      text: the text; None for a file.
      most: the largest number of lines in a block.
    """

    name: str
    text: str | None = None
    most: int = BLOCK

    def where(self, number: int) -> str:
        """The name of a line in messages."""
        return f"{self.name}:{number}"

    @functools.cached_property
    def head(self) -> bytes:
        """The first bytes of the file; none if there is no file."""
        if self.text is not None:
            return b""
        regular_file(self.name)
        try:
            with pathlib.Path(self.name).open("rb") as file:
                return file.read(8)
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror}") from error

    @functools.cached_property
    def first(self) -> tuple[int, str] | None:
        """The number and the text of the first line that is neither empty nor a comment; None without such a line."""
        return next(((number, line) for number, line in self.numbered() if counts(line)), None)

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yields every line with its number, from 1."""
        for start, lines in self.blocks():
            yield from enumerate(lines, start)

    def blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Yields blocks of lines, without spaces around them, and the number of the first line of each block.

        Raises:
          InputError: the file cannot be read, is not UTF-8 text, decompresses to far more than puzzles do, or has a
            line that is far too long.
        """
        try:
            with self._open() as file:
                yield from self._blocks(file)
        except gzip.BadGzipFile as error:
            raise InputError(f"{self.name} cannot be read: damaged gzip: {error}") from error
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror or error}") from error
        except (EOFError, zlib.error) as error:
            raise InputError(f"{self.name} cannot be read: damaged gzip: {error}") from error

    def _open(self) -> io.TextIOBase:
        if self.text is not None:
            return io.StringIO(self.text, newline=None)
        for magic, kind in _PACKED.items():
            if self.head.startswith(magic):
                raise InputError(f"{self.name} is {kind}: unpack it, and give what is in it as text, plain or in gzip")
        opener = gzip.open if self.head.startswith(b"\x1f\x8b") else open
        # Invalid UTF-8 becomes lone surrogates, so that a message can name its line.
        return opener(self.name, "rt", encoding="utf-8-sig", errors="surrogateescape")

    def _blocks(self, file: io.TextIOBase) -> Iterator[tuple[int, list[str]]]:
        allowed = _BOMB_SIZE
        if self.text is None:
            allowed = max(_BOMB_SIZE, _BOMB_RATIO * pathlib.Path(self.name).stat().st_size)
        number, num_read, rest = 1, 0, ""
        while True:
            chunk = file.read(_CHUNK)
            num_read += len(chunk)
            if num_read > allowed and self.text is None:
                raise InputError(f"{self.name} unpacks to over {_BOMB_RATIO} times its size: no file of puzzles does")
            *lines, rest = (rest + chunk).split("\n")
            if not chunk:
                lines, rest = ([rest] if rest else []), ""
            self._check(number, [*lines, rest])
            for i in range(0, len(lines), self.most):
                yield number + i, [line.strip(" ") for line in lines[i : i + self.most]]
            number += len(lines)
            if not chunk:
                return

    def _check(self, number: int, lines: list[str]) -> None:
        """Raises InputError for the first line that is too long or not UTF-8."""
        if len(longest := max(lines, key=len)) > _LONGEST:
            where = self.where(number + lines.index(longest))
            raise InputError(f"{where} is over {_LONGEST:,} characters long: no file of puzzles has such a line")
        if all(map(str.isascii, lines)):
            return
        for i, line in enumerate(lines):
            if found := _NOT_UTF8.search(line):
                byte = ord(found.group()) - 0xDC00
                raise InputError(f"{self.where(number + i)}: byte {byte:#04x} is not UTF-8 text: save as UTF-8")


def counts(line: str) -> bool:
    """Whether a line is neither empty nor a comment."""
    return line != "" and line[0] != "#" and not line.isspace()


def kept_lines(lines: Lines) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yields blocks of the lines that are neither empty nor comments, with their numbers."""
    for start, block in lines.blocks():
        is_kept = [counts(line) for line in block]
        if any(is_kept):
            yield start + np.flatnonzero(is_kept), list(itertools.compress(block, is_kept))


def recognise(lines: Lines, formats: Sequence[Format[Reader]], empty: str) -> tuple[Format[Reader], Reader]:
    """Finds the format of lines.

    Args:
      lines: the lines.
      formats: the known formats. The first that recognises the lines is taken.
      empty: the message about a file without puzzles.

    Returns:
      The format, and the reader of the lines.

    Raises:
      InputError: the lines cannot be read, all are empty or comments, or no format fits.
    """
    for form in formats:
        if (reader := form.recognise(lines)) is not None:
            return form, reader
    if lines.first is None:
        raise InputError(f"{lines.name} {empty}")
    number, line = lines.first
    known = "; ".join(f"{form.name} ({form.known_by})" for form in formats)
    raise InputError(f"{lines.where(number)}: {shown(line, 50)} begins no known format; known are: {known}")

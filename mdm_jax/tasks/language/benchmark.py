"""What a benchmark is: problems from a local file, the prompt of each, and the score of an answer.

A further benchmark is a frozen dataclass with these members, of about 40 lines, and a row of `settings.TABLE`.
"""

import dataclasses
import gzip
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from mdm_jax.errors import InputError, one_line
from mdm_jax.files import parse_json, read_bytes

T = TypeVar("T")
MOST = 1 << 28
"""Bytes of a file; the largest here has 4 million."""

Problem: TypeAlias = Mapping[str, Any]
"""A record of the file."""


@dataclasses.dataclass(frozen=True)
class Hole:
    """A gap as long as the tokens of a text, which is not shown."""

    text: str


Prompt: TypeAlias = str | Sequence[str | Hole] | Sequence[Mapping[str, str]]
"""A text to continue, texts around a hole, or a conversation: messages with role and content."""


class Score(NamedTuple):
    """What an answer is worth."""

    value: float
    """from 0 to 1; of most benchmarks one of the two"""
    why: str = ""
    """a word on what was wrong, for the file of answers"""


class Benchmark(Protocol):
    """A benchmark."""

    @property
    def files(self) -> Sequence[str]:
        """Names of its file, or folder, in a folder of data: the first that is there is read."""
        ...

    @property
    def shot_files(self) -> Sequence[str]:
        """Those of the file that examples for prompts are taken from; empty if there is none."""
        ...

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The problems of a file; InputError if it is in another format."""
        ...

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """The prompt, with `num_shots` examples, of `shots` if there are any."""
        ...

    def reference(self, problem: Problem) -> str:
        """An answer that is right."""
        ...

    def choices(self, problem: Problem) -> Sequence[str]:
        """The texts of which the likeliest is the answer; empty if an answer is generated."""
        ...

    def score(self, problem: Problem, answer: str) -> Score:
        """What an answer is worth."""
        ...


@dataclasses.dataclass(frozen=True)
class Generative:
    """Base of benchmarks with answers that are generated, and prompts without examples of a file."""

    @property
    def shot_files(self) -> Sequence[str]:
        """None."""
        return ()

    def choices(self, problem: Problem) -> Sequence[str]:
        """None."""
        del problem
        return ()


def find_file(data: pathlib.Path, names: Sequence[str], what: str) -> pathlib.Path:
    """The file of one of these names in a folder.

    Raises:
      InputError: none is there; `what` says what for.
    """
    found = next((path for name in names if (path := data / name).exists()), None)
    if found is None:
        raise InputError(f"{data} holds no {' or '.join(names)}, which {what} reads: see docs/llada.md for where it is")
    return found


def first(num_shots: int, shots: Sequence[T], where: str) -> Sequence[T]:
    """The first examples; InputError if there are fewer. `where` says of what."""
    if num_shots > len(shots):
        raise InputError(
            f"{num_shots} examples asked for, and there are {len(shots)} {where}: give --shots of at most that"
        )
    return shots[:num_shots]


def read_records(path: pathlib.Path, fields: Mapping[str, type]) -> list[Problem]:
    """The records of JSON lines, compressed if the name ends in .gz.

    Args:
      path: the file.
      fields: those that every record must have, with their types.

    Raises:
      InputError: the file cannot be read, holds nothing, or a record lacks a field.
    """
    data = read_bytes(path, most=MOST)
    if path.suffix == ".gz":
        try:
            data = _unpacked(data)
        except (OSError, EOFError, zlib.error):
            raise InputError(f"{path} is no whole gzip file: download it again") from None
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    records = [parse_json(line, f"line {number} of {path} is no JSON") for number, line in lines]
    for (number, _), record in zip(lines, records, strict=True):
        check_fields(record, fields, f"line {number} of {path}")
    if not records:
        raise InputError(f"{path} holds no records")
    return records


def _unpacked(data: bytes) -> bytes:
    """What a gzip file holds, at most `MOST` bytes of it."""
    unpack = zlib.decompressobj(wbits=31)
    text = unpack.decompress(data, MOST)
    if not unpack.eof:
        raise gzip.BadGzipFile
    return text


def check_fields(record: Any, fields: Mapping[str, type], where: str) -> None:
    """InputError unless a record is an object that has the fields."""
    wrong = [
        name for name, kind in fields.items() if not (isinstance(record, dict) and isinstance(record.get(name), kind))
    ]
    if wrong:
        has = ", ".join(record) if isinstance(record, dict) else one_line(json.dumps(record), 80)
        raise InputError(f"{where} has no {' and no '.join(wrong)} of the right type: it has {has or 'nothing'}")

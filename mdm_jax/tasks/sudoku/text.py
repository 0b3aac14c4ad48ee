"""Parses the text of puzzles, and defines the blocks in which files are read."""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.puzzle_formats import Lines
from mdm_jax.errors import InputError, shown
from mdm_jax.tasks.sudoku import puzzle as sudoku

NOT_STATED = -1
"""The value of the cells of a solution that is not in the file."""

BLANKS = ".0_*xX"
"""The characters for a blank."""

_CODES = np.full(1 << 7, -1, np.int8)
_CODES[ord("1") : ord("9") + 1] = np.arange(1, 10)
_BLANK_CODES = np.array([ord(blank) for blank in BLANKS])
_CODES[_BLANK_CODES] = 0
_COMMENT = re.compile(r"\s#.*")


class Block(NamedTuple):
    """A block of puzzles of a file.

    Attributes:
      puzzles: int8 `[num, cells]`, 0 = blank.
      solutions: int8 `[num, cells]`, the solutions in the file; `NOT_STATED` in all cells of a missing one.
      lines: int64 `[num]`, the line on which each puzzle begins, from 1.
      order: int8 `[num, cells]`, as in `files.PuzzleFile`.
      rule: int8 `[num, cells]`, as in `files.PuzzleFile`.
      blanks: the characters for blanks that occur.
    """

    puzzles: NDArray[np.int8]
    solutions: NDArray[np.int8]
    lines: NDArray[np.int64]
    order: NDArray[np.int8] | None = None
    rule: NDArray[np.int8] | None = None
    blanks: str = ""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The fields that are arrays, by name."""
        return {name: field for name, field in self._asdict().items() if isinstance(field, np.ndarray)}


def parse(text: str, where: str, cells: int | None) -> NDArray[np.int8]:
    """Parses one puzzle. Checks its form only.

    Args:
      text: digits, and any of `BLANKS` for blanks.
      where: the name of the puzzle in messages.
      cells: the required number of cells; None for any supported number.

    Returns:
      int8 `[cells]`.

    Raises:
      InputError: the text has another length, or a character that is no digit of its size.
    """
    known = _known(cells)
    if len(text) not in known:
        raise InputError(f"{where} has {len(text)} cells: {' or '.join(map(str, known))} are wanted here")
    if (found := digits([text], len(text))) is not None:
        return found[0]
    size = sudoku.size_of(len(text))
    allowed = BLANKS + "123456789"[:size]
    wrong = next(i for i, character in enumerate(text) if character not in allowed)
    row, column = divmod(wrong, size)
    raise InputError(f"{where}: row {row + 1}, column {column + 1} is {shown(text[wrong])}: {use(size)}")


def parse_all(
    texts: Sequence[str], lines: Lines, numbers: NDArray[np.int64], cells: int | None, what: str = ""
) -> NDArray[np.int8]:
    """Parses the texts of several lines, as `parse`: int8 `[num, cells]`. `what` follows the line in messages."""
    found = digits(texts, cells or len(texts[0]))
    if found is None:  # one of them is wrong
        each: list[NDArray[np.int8]] = []
        for number, text in zip(numbers, texts, strict=True):
            each.append(parse(text, lines.where(number) + what, len(each[0]) if each else cells))
        found = np.stack(each)
    return found


def without_comment(line: str) -> str:
    """A line without its comment."""
    return line if "#" not in line else _COMMENT.sub("", line)


def digits(texts: Sequence[str], cells: int) -> NDArray[np.int8] | None:
    """Converts texts to int8 `[num, cells]`; None if one has another number of cells or a wrong character."""
    joined = "".join(texts)
    sizes = [size for size in sudoku.BOXES if size * size == cells]
    if not sizes or set(map(len, texts)) != {cells} or not joined.isascii():
        return None
    digits = _CODES[np.frombuffer(joined.encode(), np.uint8)].reshape(-1, cells)
    return digits if digits.min() >= 0 and digits.max() <= sizes[0] else None


def blanks_of(texts: Sequence[str]) -> str:
    """The characters that texts use for blanks."""
    used = np.bincount(np.frombuffer("".join(texts).encode(), np.uint8), minlength=1 << 7)[_BLANK_CODES]
    return "".join(itertools.compress(BLANKS, used))


def _known(cells: int | None) -> list[int]:
    return [size * size for size in sudoku.BOXES] if cells is None else [cells]


def use(size: int) -> str:
    """The advice on the characters of a cell, for messages."""
    return f"use 1 to {size}, and one of . 0 _ * x for a blank"

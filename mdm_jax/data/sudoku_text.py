"""The form of puzzles in text: lines, CSV files, digits.

Files are read in blocks of lines. One in which every line is as it should be is taken as a whole, since files of
millions exist; any other line by line, to find what is wrong and where.
"""

import csv
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import sudoku
from mdm_jax.errors import InputError

NOT_STATED = -1
"""What stands for each cell of a solution that a file does not give."""

_PUZZLE_COLUMNS = ("quizzes", "puzzle")
_SOLUTION_COLUMNS = ("solutions", "solution")
_BLOCK = 1 << 14
_DIGITS = np.full(1 << 7, -1, np.int8)
_DIGITS[ord("0") : ord("9") + 1] = np.arange(10)
_DIGITS[ord(".")] = 0


def blocks(
    path: str | os.PathLike[str], cells: int | None
) -> Iterator[tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int64]]]:
    """Reads a file in parts.

    Args:
        path: The file, in UTF-8.
        cells: The number of cells that is wanted; None takes that of the first puzzle.

    Yields:
        The puzzles and the solutions that the file states, each int8 `[num, cells]`, `NOT_STATED` in all cells where it
        states none; and their line numbers, int64 `[num]`. Only their form is checked.

    Raises:
        InputError: The file cannot be read, or something is malformed.
    """
    columns, is_first = None, True
    for numbers, lines in _lines(path):
        if is_first and (os.fspath(path).lower().endswith(".csv") or "," in lines[0]):
            columns = _columns(path, numbers[0], lines[0])
            numbers, lines = numbers[1:], lines[1:]
        is_first = False
        if lines:
            puzzles, stated = _parse_all(columns, lines, cells) or _parse_each(path, columns, numbers, lines, cells)
            cells = puzzles.shape[1]
            yield puzzles, stated, numbers


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yields blocks of lines with their numbers, without those that are empty or comments."""
    start = 1
    try:
        with pathlib.Path(path).open(encoding="utf-8-sig") as file:
            while block := [line.strip() for line in itertools.islice(file, _BLOCK)]:
                is_kept = [line != "" and line[0] != "#" for line in block]
                if any(is_kept):
                    yield start + np.flatnonzero(is_kept), list(itertools.compress(block, is_kept))
                start += len(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error


def _not_utf8(path: str | os.PathLike[str]) -> InputError:
    """The error for a file that is not UTF-8, which names the first byte that is not."""
    with pathlib.Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return InputError(f"{path}:{number}: byte {byte:#04x} is not UTF-8 text: save as UTF-8")
    return InputError(f"{path} is not UTF-8 text: save as UTF-8")


class _Columns(NamedTuple):
    """Where a CSV file has its fields."""

    num: int
    puzzle: int
    solution: int | None


def _columns(path: str | os.PathLike[str], number: int, line: str) -> _Columns:
    """Reads the header of a CSV file."""
    header = [name.strip().lower() for name in _fields(path, number, line)]
    puzzle = next((header.index(name) for name in _PUZZLE_COLUMNS if name in header), None)
    if puzzle is None:
        raise InputError(f"{path}:{number}: no column is named quizzes or puzzle: a CSV file wants such a header")
    solution = next((header.index(name) for name in _SOLUTION_COLUMNS if name in header), None)
    return _Columns(len(header), puzzle, solution)


def _parse_all(
    columns: _Columns | None, lines: list[str], cells: int | None
) -> tuple[NDArray[np.int8], NDArray[np.int8]] | None:
    """Reads lines all at once; None unless each is just as it should be.

    Args:
        columns: Those of a CSV file; None if a line is a puzzle and no more.
        lines: At least one.
        cells: The number of cells wanted; None for that of the first puzzle.

    Returns:
        The puzzles and the solutions that the file states, each int8 `[num, cells]`.
    """
    if columns is None:
        puzzles = _digits(lines, cells or len(lines[0]))
        return None if puzzles is None else (puzzles, np.full_like(puzzles, NOT_STATED))
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error:
        return None
    if len(rows) != len(lines) or any(len(row) != columns.num for row in rows):
        return None
    puzzles = _digits([row[columns.puzzle] for row in rows], cells or len(rows[0][columns.puzzle]))
    if puzzles is None:
        return None
    if columns.solution is None:
        return puzzles, np.full_like(puzzles, NOT_STATED)
    solutions = _digits([row[columns.solution] for row in rows], puzzles.shape[1])
    return None if solutions is None else (puzzles, solutions)


def _digits(texts: list[str], cells: int) -> NDArray[np.int8] | None:
    """Turns texts into int8 `[num, cells]`, or None unless each is of so many cells and right in form."""
    joined = "".join(texts)
    sizes = [size for size in sudoku.BOXES if size * size == cells]
    if not sizes or set(map(len, texts)) != {cells} or not joined.isascii():
        return None
    digits = _DIGITS[np.frombuffer(joined.encode(), np.uint8)].reshape(-1, cells)
    return digits if digits.min() >= 0 and digits.max() <= sizes[0] else None


def _parse_each(
    path: str | os.PathLike[str],
    columns: _Columns | None,
    numbers: NDArray[np.int64],
    lines: list[str],
    cells: int | None,
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Reads lines one by one, so as to name the first that is wrong; else as `_parse_all`."""
    puzzles, solutions = [], []
    for number, line in zip(numbers, lines, strict=True):
        where = f"{path}:{number}"
        fields = [line] if columns is None else _fields(path, number, line)
        if columns is not None and len(fields) != columns.num:
            raise InputError(f"{where}: fields: {len(fields)}, but the header names {columns.num}")
        puzzle = parse(fields[columns.puzzle if columns else 0].strip(), where, cells)
        cells = len(puzzle)
        stated = fields[columns.solution].strip() if columns and columns.solution is not None else ""
        puzzles.append(puzzle)
        solutions.append(parse(stated, f"{where}: the solution", cells) if stated else np.full_like(puzzle, NOT_STATED))
    return np.stack(puzzles), np.stack(solutions)


def _fields(path: str | os.PathLike[str], number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{number}: not a line of CSV ({error}): quote a field on both sides or not") from error


def parse(text: str, where: str, cells: int | None) -> NDArray[np.int8]:
    """Turns text into cells; only its form is checked.

    Args:
        text: Digits, with `0` or `.` for blanks.
        where: How to call it in a message.
        cells: The number of cells wanted; None for any supported one.

    Returns:
        int8 `[cells]`.

    Raises:
        InputError: It has another length, or holds a character that is no digit of its size.
    """
    known = [size * size for size in sudoku.BOXES] if cells is None else [cells]
    if len(text) not in known:
        raise InputError(f"{where} has {len(text)} cells: {' or '.join(map(str, known))} are wanted here")
    size = sudoku.size_of(len(text))
    codes = np.frombuffer(text.replace(".", "0").encode("utf-32-le"), np.uint32)
    digits = codes.astype(np.int64) - ord("0")
    wrong = np.flatnonzero((digits < 0) | (digits > size))
    if wrong.size:
        row, column = divmod(int(wrong[0]), size)
        raise InputError(
            f"{where}: row {row + 1}, column {column + 1} is {text[wrong[0]]!r}: "
            f"use 1 to {size}, and 0 or . for a blank"
        )
    return digits.astype(np.int8)

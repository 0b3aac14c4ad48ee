"""Sudokus that somebody wrote down: read from files and command lines, checked, and printed.

Everything that can be wrong with a puzzle is found here and named with the file and line, so that what comes out has
exactly one solution.
"""

import csv
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data import sudoku
from mdm_jax.errors import InputError

_PUZZLE_COLUMNS = ("quizzes", "puzzle")
_SOLUTION_COLUMNS = ("solutions", "solution")


class PuzzleFile(NamedTuple):
    """The puzzles of a file, all of one size.

    Attributes:
        puzzles: int8 `[num, cells]`, 0 = blank.
        solutions: int8 `[num, cells]`, the only solution of each.
        lines: int64 `[num]`, the line of the file on which each stands, from 1.
    """

    puzzles: NDArray[np.int8]
    solutions: NDArray[np.int8]
    lines: NDArray[np.int64]


def read_puzzles(path: str | os.PathLike[str], *, size: int | None = None) -> PuzzleFile:
    """Reads puzzles and checks that each has exactly one solution.

    A file is CSV if its name ends in `.csv` or its first line holds a comma: then a column named `quizzes` or `puzzle`
    is wanted, one named `solutions` or `solution` is compared, others are ignored. Any other file holds one puzzle on a
    line. Blanks are `0` or `.`; empty lines and lines that start with `#` are skipped.

    Args:
        path: The file, in UTF-8.
        size: The size that is wanted; None takes that of the first puzzle.

    Returns:
        The puzzles, their solutions and their lines.

    Raises:
        InputError: The file cannot be read or holds no puzzle; a puzzle is malformed, of another size than the others,
            contradictory or ambiguous; a given solution is wrong.
    """
    puzzles: list[NDArray[np.int8]] = []
    stated: dict[int, NDArray[np.int8]] = {}
    lines: list[int] = []
    wanted = None if size is None else sudoku.check_size(size) ** 2
    for line, puzzle_text, solution_text in _records(path, _read_text(path)):
        where = f"{path}:{line}"
        puzzle = _parse(puzzle_text, where, wanted)
        wanted = len(puzzle)
        if solution_text:
            stated[len(puzzles)] = _parse(solution_text, f"{where}: the solution", wanted)
        puzzles.append(puzzle)
        lines.append(line)
    if not puzzles:
        raise InputError(f"{path} holds no puzzle: write one on a line, digits with 0 or . for blanks")
    grids = np.stack(puzzles)
    wheres = [f"{path}:{line}" for line in lines]
    solutions = _solve_all(grids, wheres)
    for i, solution in stated.items():
        wrong = np.flatnonzero(solution != solutions[i])
        if wrong.size:
            row, column = divmod(int(wrong[0]), sudoku.size_of(solution.size))
            raise InputError(
                f"{wheres[i]}: the solution given is not that of the puzzle: row {row + 1}, column {column + 1} "
                f"must be {solutions[i, wrong[0]]}, not {solution[wrong[0]]}"
            )
    return PuzzleFile(grids, solutions, np.array(lines, np.int64))


def parse_puzzle(text: str, where: str = "puzzle") -> NDArray[np.int8]:
    """Reads one puzzle, as from a command line, and checks that it has exactly one solution.

    Args:
        text: 16, 36 or 81 digits, row by row, with `0` or `.` for blanks.
        where: What error messages call it.

    Returns:
        int8 `[cells]`, 0 = blank.

    Raises:
        InputError: The puzzle is malformed, contradictory or ambiguous.
    """
    puzzle = _parse(text.strip(), where, None)
    _solve_all(puzzle[None], [where])
    return puzzle


def format_grid(cells: ArrayLike, size: int) -> str:
    """Draws a grid with lines between its boxes and a dot for each blank.

    Args:
        cells: Integers `[size * size]`, 0 = blank.
        size: 4, 6 or 9.

    Returns:
        Several lines of text, without a line break at the end.

    Raises:
        InputError: The number of cells is not that of the size.
    """
    box_rows, box_columns = sudoku.BOXES[sudoku.check_size(size)]
    grid = np.asarray(cells)
    if grid.shape != (size * size,):
        raise InputError(f"cells have shape {grid.shape}: a {size}x{size} grid wants ({size * size},)")
    rule = "-+-".join(["-" * (2 * box_columns - 1)] * (size // box_columns))
    drawn = []
    for i, row in enumerate(grid.reshape(size, size // box_columns, box_columns)):
        if i and i % box_rows == 0:
            drawn.append(rule)
        drawn.append(" | ".join(" ".join(str(cell) if cell else "." for cell in part) for part in row))
    return "\n".join(drawn)


def _read_text(path: str | os.PathLike[str]) -> str:
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: byte {error.object[error.start]:#04x} is not UTF-8 text: save as UTF-8"
        ) from error


def _records(path: str | os.PathLike[str], text: str) -> Iterator[tuple[int, str, str]]:
    """Yields (line, puzzle, solution) of each record; the solution is empty where the file gives none."""
    lines = [
        (number, line.strip())
        for number, line in enumerate(io.StringIO(text, newline=None), start=1)
        if line.strip() and not line.strip().startswith("#")
    ]
    if lines and (os.fspath(path).lower().endswith(".csv") or "," in lines[0][1]):
        yield from _csv_records(path, lines)
    else:
        for number, line in lines:
            yield number, line, ""


def _csv_records(path: str | os.PathLike[str], lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    """Splits the lines of a CSV file, the first of which is the header."""
    header = [name.strip().lower() for name in _fields(path, *lines[0])]
    puzzle_column = next((header.index(name) for name in _PUZZLE_COLUMNS if name in header), None)
    solution_column = next((header.index(name) for name in _SOLUTION_COLUMNS if name in header), None)
    if puzzle_column is None:
        raise InputError(f"{path}:{lines[0][0]}: no column is named quizzes or puzzle: a CSV file wants such a header")
    for number, line in lines[1:]:
        fields = _fields(path, number, line)
        if len(fields) != len(header):
            raise InputError(f"{path}:{number}: fields: {len(fields)}, but the header names {len(header)}")
        yield number, fields[puzzle_column].strip(), "" if solution_column is None else fields[solution_column].strip()


def _fields(path: str | os.PathLike[str], number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{number}: not a line of CSV ({error}): quote a field on both sides or not") from error


def _parse(text: str, where: str, cells: int | None) -> NDArray[np.int8]:
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


def _solve_all(puzzles: NDArray[np.int8], wheres: Sequence[str]) -> NDArray[np.int8]:
    """Returns the only solution of each puzzle; raises InputError for the first that has none or several."""
    solutions, num_solutions = sudoku.solve(puzzles, limit=2)
    wrong = np.flatnonzero(num_solutions != 1)
    if not wrong.size:
        return solutions
    i = int(wrong[0])
    if num_solutions[i]:
        raise InputError(f"{wheres[i]} has more than one solution: a puzzle wants exactly one, so give more digits")
    size = sudoku.size_of(puzzles.shape[1])
    for unit, members in enumerate(sudoku.cells_of_units(size)):
        counts = np.bincount(puzzles[i, members], minlength=size + 1)
        counts[0] = 0
        if counts.max() > 1:
            name = f"{('row', 'column', 'box')[unit // size]} {unit % size + 1}"
            raise InputError(f"{wheres[i]} is contradictory: {counts.argmax()} stands {counts.max()} times in {name}")
    raise InputError(f"{wheres[i]} has no solution: check its digits")

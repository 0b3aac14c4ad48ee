"""Reads Sudokus from files and command lines, checks them, writes them and prints them.

Every puzzle that is returned has exactly one solution. A faulty puzzle raises InputError with its file and line.
`formats` lists the formats of files.
"""

import collections
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.puzzle_formats import BLOCK, Lines, recognise
from mdm_jax.errors import InputError, one_line
from mdm_jax.ranges import Range, check_number
from mdm_jax.tasks.sudoku import formats as sudoku_formats
from mdm_jax.tasks.sudoku import grids as sudoku_grids
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.text import NOT_STATED

_EMPTY = "holds no puzzle: write one on a line, digits with 0 or . for blanks"


class PuzzleFile(NamedTuple):
    """The puzzles of a file, all of one size.

    Attributes:
      puzzles: int8 `[num, cells]`, 0 = blank.
      solutions: int8 `[num, cells]`, the only solution of each.
      lines: int64 `[num]`, the line of each puzzle in the file, or its row in a `.npy` file, from 1.
      order: int8 `[num, cells]`, 1, 2, ... in the order in which a solver filled in the blanks, 0 for givens; None if
        the file has no order.
      rule: int8 `[num, cells]`, the `rules.Rule` that filled in each cell, 0 for givens; None if the file has no rules.
      how: one line for the user: the format, the number and size of the puzzles, and the characters for blanks.
    """

    puzzles: NDArray[np.int8]
    solutions: NDArray[np.int8]
    lines: NDArray[np.int64]
    order: NDArray[np.int8] | None = None
    rule: NDArray[np.int8] | None = None
    how: str = ""


def read_puzzles(path: str | os.PathLike[str], *, size: int | None = None, limit: int | None = None) -> PuzzleFile:
    """Reads puzzles and checks that each has exactly one solution.

    The beginning of a file decides its format: see `formats.FORMATS`. The file may be compressed by gzip. Empty lines
    and lines that start with `#` are skipped.

    Args:
      path: the file, in UTF-8 if it is text.
      size: the size of the puzzles; None takes the size of the first puzzle.
      limit: the number of puzzles to read, from the first; None reads all.

    Returns:
      The puzzles, their solutions and their lines, and their order and rules if the file has them.

    Raises:
      InputError: the file cannot be read, has no known format or holds no puzzle; a puzzle is malformed, of another
        size than the others, contradictory or ambiguous; a solution in the file is wrong.
    """
    cells = None if size is None else sudoku.check_size(size) ** 2
    if limit is not None:
        check_number("limit", limit, Range(1), whole=True)
    most = BLOCK if limit is None else min(BLOCK, limit)
    lines = Lines(os.fspath(path), most=most)
    form, reader = recognise(lines, sudoku_formats.FORMATS, _EMPTY)
    grown: dict[str, bytearray] = collections.defaultdict(bytearray)  # grows in place, without a copy at the end
    num, blanks = 0, ""
    for block in reader.blocks(lines, cells):
        fields = {name: values[: None if limit is None else limit - num] for name, values in block.arrays().items()}
        fields["solutions"] = _check_block(path, fields["puzzles"], fields["solutions"], fields["lines"])
        for name, values in fields.items():
            grown[name] += values.tobytes()
        cells, num, blanks = block.puzzles.shape[1], num + len(fields["puzzles"]), blanks + block.blanks
        if num == limit:
            break
    if cells is None or not num:
        raise InputError(f"{path} {_EMPTY}")
    of_lines = np.frombuffer(grown.pop("lines"), np.int64)
    arrays = {name: np.frombuffer(data, np.int8).reshape(-1, cells) for name, data in grown.items()}
    how = f"{form.name} ({reader.details})" if reader.details else form.name
    how += f", {'the first ' if num == limit else ''}{num:,} of {'{0}x{0}'.format(sudoku.size_of(cells))}"
    how += f", blanks {' '.join(dict.fromkeys(blanks))}" if blanks else ""
    return PuzzleFile(lines=of_lines, how=one_line(f"{path}: read as {how}"), **arrays)


def write_solver_rows(
    path: str | os.PathLike[str], puzzles: ArrayLike, solutions: ArrayLike, order: ArrayLike, rule: ArrayLike
) -> None:
    """Writes 9x9 puzzles with a solver's order as the `.npy` file of int8 that `read_puzzles` reads.

    Args:
      path: the file; its name ends in `.npy`.
      puzzles: integers `[num, 81]`, 0 = blank.
      solutions: integers `[num, 81]`.
      order: integers `[num, 81]`, 0 for givens and 1, 2, ... for the blanks, as in `rules.Rating`.
      rule: integers `[num, 81]`, a `rules.Rule` for each cell.

    Raises:
      InputError: the name does not end in `.npy`, a shape is wrong, there is no puzzle, a solution is wrong, a puzzle
        was not filled in completely, or the file cannot be written.
    """
    from mdm_jax.tasks.sudoku import solver_rows as sudoku_solver_rows

    if not sudoku_formats.is_array(os.fspath(path)):
        raise InputError(f"{path}: such a file is known by its name: let it end in .npy")
    fields = {"solutions": solutions, "order": order, "rule": rule}
    arrays = {"puzzles": sudoku.checked_grids("puzzles", puzzles)}
    arrays |= {name: np.asarray(field) for name, field in fields.items()}
    num = len(arrays["puzzles"])
    for name, array in arrays.items():
        if array.shape != (num, 81) or num == 0 or array.dtype.kind not in "iu":
            raise InputError(
                f"{name}: {array.dtype} of shape {array.shape}: integers of shape [num, 81] are wanted, the same num "
                f"for all, at least 1"
            )
    rows = np.empty((num, sudoku_solver_rows.WIDTH), np.int8)
    for start in range(0, num, BLOCK):
        part = {name: array[start : start + BLOCK] for name, array in arrays.items()}
        rows[start : start + BLOCK] = sudoku_solver_rows.encode(**part, first=start)
    try:
        np.save(path, rows)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def parse_puzzle(text: str, where: str = "puzzle") -> NDArray[np.int8]:
    """Reads one puzzle and checks that it has exactly one solution.

    Args:
      text: 16, 36 or 81 cells, row by row: digits, and any of . 0 _ * x for blanks. Cells may be separated by spaces
        and bars. Rows may stand on lines, with or without frames.
      where: the name of the puzzle in error messages.

    Returns:
      int8 `[cells]`, 0 = blank.

    Raises:
      InputError: the puzzle is malformed, contradictory or ambiguous.
    """
    puzzle = sudoku_grids.parse_one(text, where)
    _solve_all(puzzle[None], lambda _: where)
    return puzzle


def format_grid(cells: ArrayLike, size: int) -> str:
    """Draws a grid with lines between its boxes and a dot for each blank.

    Args:
      cells: integers `[size * size]`, 0 = blank.
      size: 4, 6 or 9.

    Returns:
      Lines of text, without a line break at the end.

    Raises:
      InputError: the number of cells does not fit the size.
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


def _check_block(
    path: str | os.PathLike[str], puzzles: NDArray[np.int8], stated: NDArray[np.int8], lines: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Returns the solution of each puzzle. Raises InputError unless it is the only one and the one in the file."""

    def where(i: int) -> str:
        return f"{path}:{lines[i]}"

    solutions = _solve_all(puzzles, where)
    wrong = np.argwhere((stated != solutions) & (stated != NOT_STATED))
    if wrong.size:
        i, cell = (int(index) for index in wrong[0])
        row, column = divmod(cell, sudoku.size_of(solutions.shape[1]))
        raise InputError(
            f"{where(i)}: the solution given is not that of the puzzle: row {row + 1}, column {column + 1} "
            f"must be {solutions[i, cell]}, not {stated[i, cell]}"
        )
    return solutions


def _solve_all(puzzles: NDArray[np.int8], where: Callable[[int], str]) -> NDArray[np.int8]:
    """Returns the solution of each puzzle. Raises InputError for the first that has none or several."""
    solutions, num_solutions = sudoku.solve(puzzles, limit=2)
    wrong = np.flatnonzero(num_solutions != 1)
    if not wrong.size:
        return solutions
    i = int(wrong[0])
    if num_solutions[i]:
        raise InputError(f"{where(i)} has more than one solution: a puzzle wants exactly one, so give more digits")
    size = sudoku.size_of(puzzles.shape[1])
    for unit, members in enumerate(sudoku.cells_of_units(size)):
        counts = np.bincount(puzzles[i, members], minlength=size + 1)
        counts[0] = 0
        if counts.max() > 1:
            name = f"{('row', 'column', 'box')[unit // size]} {unit % size + 1}"
            raise InputError(f"{where(i)} is contradictory: {counts.argmax()} stands {counts.max()} times in {name}")
    raise InputError(f"{where(i)} has no solution: check its digits")

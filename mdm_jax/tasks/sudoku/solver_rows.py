"""Rows of 325 integers, in which Shah et al. (2024, arXiv:2409.10502) publish 9x9 puzzles with a solver's order.

A row holds the number of givens, and then four numbers for each of the 81 cells: its row and column, from 0, its digit,
and the `Rule` that filled it in. Givens come first, with rule 0. Blanks follow in the order in which the solver filled
them in.
"""

import dataclasses
import os
import tokenize
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.puzzle_formats import Lines
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.rules import Rule
from mdm_jax.tasks.sudoku.text import Block

WIDTH = 325
_CELLS = 81

Grids = NDArray[np.int8]


@dataclasses.dataclass(frozen=True)
class SolverRows:
    """Reads a `.npy` file of such rows. The solutions are those in the file."""

    details = ""

    def blocks(self, lines: Lines, cells: int | None) -> Iterator[Block]:
        """Yields the puzzles, as `formats.Reader`."""
        path = lines.name
        try:
            rows = np.lib.format.open_memmap(path, mode="r")  # never unpickles
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except (  # a damaged header raises any of them
            ValueError,
            SyntaxError,
            OverflowError,
            RecursionError,
            MemoryError,
            tokenize.TokenError,
        ) as error:
            raise InputError(f"{path} cannot be read: it is not a whole .npy file of numbers") from error
        if rows.ndim != 2 or rows.shape[1] != WIDTH or not len(rows) or rows.dtype.kind not in "iu":
            raise InputError(
                f"{path} holds {rows.dtype} of shape {rows.shape}: a .npy file of puzzles wants integers of shape "
                f"[num, {WIDTH}], num at least 1"
            )
        if cells not in (None, _CELLS):
            raise InputError(
                f"{path} holds puzzles of 81 cells, as any .npy file of this form: {cells} are wanted here"
            )
        for start in range(0, len(rows), lines.most):
            part = rows[start : start + lines.most]
            numbers = np.arange(start + 1, start + 1 + len(part), dtype=np.int64)
            puzzles, solutions, order, rule = decode(part, path, start + 1)
            yield Block(puzzles, solutions, numbers, order, rule)


def decode(rows: NDArray[np.integer], path: str | os.PathLike[str], first: int) -> tuple[Grids, Grids, Grids, Grids]:
    """Decodes rows. Checks their form, but not whether the digits solve the puzzle.

    Args:
      rows: integers `[num, 325]`.
      path: the file of the rows, for messages.
      first: the number of the first row in the file, for messages.

    Returns:
      Puzzles, solutions, order and rule, each int8 `[num, 81]`. Puzzles have 0 for blanks. The order is 1, 2, ... for
      blanks and 0 for givens. The rule is the `Rule` of each cell.

    Raises:
      InputError: a number of givens, a cell, a digit or a rule is out of range, a cell occurs twice, or givens and
        blanks are mixed.
    """

    def refuse(is_bad: NDArray[np.bool_], problem: Callable[[int, int], str]) -> None:
        _refuse(is_bad, lambda i, k: f"{path}:{first + i}: cell {k + 1} of 81 has {problem(i, k)}")

    num_givens, position = rows[:, :1], np.arange(_CELLS)
    row, column, digit, rule = np.moveaxis(rows[:, 1:].reshape(-1, _CELLS, 4), 2, 0)
    _refuse(
        (num_givens < 0) | (num_givens > _CELLS),
        lambda i, _: f"{path}:{first + i}: the number of givens, in front, is {num_givens[i, 0]}: 0 to 81 are possible",
    )
    refuse(
        (row < 0) | (row > 8) | (column < 0) | (column > 8),
        lambda i, k: f"row {row[i, k]}, column {column[i, k]}: both count from 0 to 8",
    )
    cell = (row * 9 + column).astype(np.int64)
    refuse(
        _is_repeated(cell),
        lambda i, k: f"row {row[i, k]}, column {column[i, k]} like one before it: each cell comes once",
    )
    refuse(
        (digit < 1) | (digit > 9),
        lambda i, k: f"the digit {digit[i, k]}: 1 to 9 are possible, for blanks too",
    )
    refuse(
        ~np.isin(rule, list(Rule)),
        lambda i, k: f"the strategy id {rule[i, k]}: 0 (given) and 2 to 8 are known",
    )
    refuse(
        (rule == Rule.GIVEN) != (position < num_givens),
        lambda i, k: f"the strategy id {rule[i, k]}: the first {num_givens[i, 0]} cells are givens, with 0, no others",
    )
    solutions, order, rules = (np.empty(cell.shape, np.int8) for _ in range(3))
    np.put_along_axis(solutions, cell, digit.astype(np.int8), axis=1)
    np.put_along_axis(order, cell, np.maximum(position - num_givens + 1, 0).astype(np.int8), axis=1)
    np.put_along_axis(rules, cell, rule.astype(np.int8), axis=1)
    return np.where(order == 0, solutions, np.int8(0)), solutions, order, rules


def encode(
    puzzles: NDArray[np.integer],
    solutions: NDArray[np.integer],
    order: NDArray[np.integer],
    rule: NDArray[np.integer],
    first: int,
) -> NDArray[np.int8]:
    """The inverse of `decode`. Givens are written row by row.

    Args:
      puzzles: integers `[num, 81]`, 0 = blank.
      solutions: integers `[num, 81]`, full grids.
      order: integers `[num, 81]`, 0 for givens and 1, 2, ... for the blanks.
      rule: integers `[num, 81]`, the `Rule` of each cell.
      first: the index of the first puzzle, for messages.

    Returns:
      int8 `[num, 325]`.

    Raises:
      InputError: a solution does not solve its puzzle, an order is incomplete, or a rule is wrong.
    """
    is_given = puzzles > 0
    num_givens = is_given.sum(axis=1, keepdims=True)
    complete = np.maximum(np.arange(_CELLS) - num_givens + 1, 0)
    _refuse(
        ~sudoku.is_solved(solutions, puzzles)[:, None],
        lambda i, _: f"solutions[{first + i}] is not a full and right answer to its puzzle",
    )
    _refuse(
        ((order == 0) != is_given) | (np.sort(order, axis=1) != complete),
        lambda i, _: (
            f"order[{first + i}] is not 0 for givens and 1, 2, ... for the blanks, each number once: only "
            f"puzzles that were filled in to the end can be written"
        ),
    )
    _refuse(
        ~np.isin(rule, list(Rule)) | ((rule == Rule.GIVEN) != is_given),
        lambda i, k: f"rule[{first + i}, {k}] is {rule[i, k]}: 0 for givens and 2 to 8 for blanks are possible",
    )
    cell = np.argsort(order, axis=1, kind="stable")
    rows = np.empty((len(cell), WIDTH), np.int8)
    rows[:, 0] = num_givens[:, 0]
    rows[:, 1::4], rows[:, 2::4] = np.divmod(cell, 9)
    rows[:, 3::4] = np.take_along_axis(solutions, cell, axis=1)
    rows[:, 4::4] = np.take_along_axis(rule, cell, axis=1)
    return rows


def _is_repeated(cell: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an entry occurs earlier in its row; bool, same shape."""
    order = np.argsort(cell, axis=1, kind="stable")
    in_order = np.take_along_axis(cell, order, axis=1)
    repeated = np.zeros(cell.shape, np.bool_)
    np.put_along_axis(repeated, order[:, 1:], in_order[:, 1:] == in_order[:, :-1], axis=1)
    return repeated


def _refuse(is_bad: NDArray[np.bool_], message: Callable[[int, int], str]) -> None:
    """Raises InputError for the first bad entry, if any. `message` takes its two indices."""
    if is_bad.any():
        i, k = np.argwhere(is_bad)[0]
        raise InputError(message(int(i), int(k)))

"""How an answer is laid out on the page of the viewer. NumPy only, so that tasks can say it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pieces: TypeAlias = Sequence[str] | Callable[[NDArray[Any]], Sequence[str]]
"""The text of every token id, or a function: tokens int [L] -> the text of each."""


@dataclasses.dataclass(frozen=True, eq=False)
class Board:
    """Where the positions of a sequence, or the parts of an answer, stand: in a table, or in a line that wraps.

    Positions that a table leaves out are not shown, and not counted.

    Attributes:
      cells: int [rows, columns], the position in each cell of a table, -1 for none; None for a line of all positions.
      box: of a table, the rows and columns between two thick lines.
      rows: the heads of a table's rows, if they have names.
      columns: the heads of its columns.
      sections: of a line, (name, first position) of each part that begins on a new line, such as prompt and answer.
    """

    cells: NDArray[Any] | None = None
    box: tuple[int, int] | None = None
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    sections: Sequence[tuple[str, int]] = ()

    @classmethod
    def grid(cls, rows: int, columns: int, /, **options: Any) -> "Board":
        """A table of all positions, row by row; options are the other attributes."""
        return cls(np.arange(rows * columns).reshape(rows, columns), **options)

    def shows(self, length: int) -> NDArray[np.bool_]:
        """Which of L positions are on the board, bool [L]."""
        return np.full(length, True) if self.cells is None else np.isin(np.arange(length), self.cells)

    def coordinates(self, length: int) -> NDArray[np.int64] | None:
        """The row and the column of each position, int [L, 2]; None in a line. Positions of no cell have 0."""
        if self.cells is None:
            return None
        found = np.zeros((length, 2), np.int64)
        cells = np.asarray(self.cells)
        rows, columns = np.nonzero(cells >= 0)
        found[cells[rows, columns]] = np.stack([rows, columns], axis=1)
        return found


class View(NamedTuple):
    """What a page shows of an answer [P] to one record."""

    board: Board
    pieces: Pieces
    """the text of each value that a part may have"""
    empty: int
    """the value of a part that is not filled in"""
    solution: Callable[[NDArray[Any]], NDArray[Any]]
    """what each part of an answer should be, int [P]; negative where nothing is known to be right"""
    order: NDArray[Any] | None = None
    """int [P], the order in which rules fill in the parts; negative where they do not. None if there are no rules"""
    related: NDArray[np.bool_] | None = None
    """bool [P, P], which parts depend on each other directly; None if the task does not say"""

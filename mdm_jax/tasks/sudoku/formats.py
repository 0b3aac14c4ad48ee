"""The file formats of Sudokus. Each is recognised by how a file begins."""

from collections.abc import Iterator
from typing import Protocol

from mdm_jax.data.puzzle_formats import Format, Lines
from mdm_jax.tasks.sudoku.grids import Grids, OnePerLine
from mdm_jax.tasks.sudoku.tables import Table
from mdm_jax.tasks.sudoku.text import Block


class Reader(Protocol):
    """Reads the puzzles of files in one format."""

    @property
    def details(self) -> str:
        """Where the puzzles and the solutions are, if that differs between files of the format."""
        ...

    def blocks(self, lines: Lines, cells: int | None) -> Iterator[Block]:
        """Yields the puzzles. `cells` is the required number of cells; None takes that of the first puzzle."""
        ...


def is_array(path: str) -> bool:
    """Whether the name of a file is that of solver rows."""
    return path.lower().endswith(".npy")


def _solver_rows(lines: Lines) -> Reader | None:
    if not (lines.head.startswith(b"\x93NUMPY") or (lines.text is None and is_array(lines.name))):
        return None
    from mdm_jax.tasks.sudoku.solver_rows import SolverRows  # imports numba

    return SolverRows()


FORMATS: tuple[Format[Reader], ...] = (
    Format("rows of a solver", "an array [num, 325] of Shah et al. in a .npy file", _solver_rows),
    Format("a table with a header", "names such as puzzle,solution or quizzes or question,answer", Table.with_header),
    Format("a table without header", "a puzzle among fields between , or ; or tabs or spaces", Table.without_header),
    Format("one puzzle per line", "16, 36 or 81 cells", OnePerLine.of),
    Format("grids", "a row of 4, 6 or 9 cells, a frame of | and -, [Puzzle] or Grid 1", Grids.of),
)
"""All formats. The first that recognises a file reads it."""

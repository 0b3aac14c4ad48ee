"""Reads tables of Sudokus: a puzzle in one field of each line, and perhaps its solution in another.

Files may hold millions of puzzles, so a block of lines without a fault is parsed at once. A block with a fault is
parsed line by line to find it.
"""

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.puzzle_formats import Lines, kept_lines
from mdm_jax.errors import InputError, shown
from mdm_jax.tasks.sudoku.text import BLANKS, NOT_STATED, Block, blanks_of, digits, parse_all, without_comment

PUZZLE_NAMES = ("quizzes", "quiz", "puzzles", "puzzle", "questions", "question")
SOLUTION_NAMES = ("solutions", "solution", "answers", "answer")
"""The names of the two columns in headers."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}
"""The separators of fields."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Reads a table.

    Attributes:
      separator: one of `SEPARATORS`.
      num: the number of fields of a line.
      puzzle: the index of the field with the puzzle.
      solution: the index of the field with the solution; None if there is none.
      header: the names of the fields; empty if the file has none.
    """

    separator: str
    num: int
    puzzle: int
    solution: int | None
    header: tuple[str, ...] = ()

    @classmethod
    def with_header(cls, lines: Lines) -> "Table | None":
        """A table with the first line as its header; None if the line names no puzzles."""
        if lines.first is None:
            return None
        number, line = lines.first
        for separator in SEPARATORS:
            names = tuple(name.lower() for name in _fields(line, separator) or ())
            puzzles = [i for i, name in enumerate(names) if name in PUZZLE_NAMES]
            solutions = [i for i, name in enumerate(names) if name in SOLUTION_NAMES]
            if len(puzzles) > 1 or (puzzles and len(solutions) > 1):
                raise InputError(f"{lines.where(number)}: the header names two columns of one kind: rename one of them")
            if puzzles:
                return cls(separator, len(names), puzzles[0], solutions[0] if solutions else None, names)
        return None

    @classmethod
    def without_header(cls, lines: Lines) -> "Table | None":
        """A table without a header; None unless the first line has a field with a puzzle.

        Raises:
          InputError: the line holds several puzzles.
        """
        if lines.first is None:
            return None
        number, line = lines.first
        for separator in SEPARATORS:
            fields = _fields(line if separator != " " else without_comment(line), separator) or []
            grids = [i for i, field in enumerate(fields) if digits([field], len(field)) is not None]
            puzzles = [i for i in grids if any(blank in fields[i] for blank in BLANKS)]
            if len(fields) < 2 or not puzzles:
                continue
            solutions = [i for i in grids if i not in puzzles]
            if len(puzzles) > 1 or len(solutions) > 1:
                raise InputError(
                    f"{lines.where(number)}: {len(puzzles)} puzzles and {len(solutions)} full grids in one line: name "
                    f"the columns in a first line, such as puzzle,solution"
                )
            return cls(separator, len(fields), puzzles[0], solutions[0] if solutions else None)
        return None

    @property
    def details(self) -> str:
        """The fields of puzzles and solutions."""

        def name(column: int) -> str:
            return shown(self.header[column], 30) if self.header else f"column {column + 1}"

        used = [i for i in (self.puzzle, self.solution) if i is not None]
        others = [name(i) for i in range(self.num) if i not in used]
        others[5:] = ["..."] if len(others) > 5 else []
        parts = [f"{SEPARATORS[self.separator]} between fields", f"puzzles in {name(self.puzzle)}"]
        parts += ["no solutions" if self.solution is None else f"solutions in {name(self.solution)}"]
        return "; ".join([*parts, *([f"not used: {', '.join(others)}"] if others else [])])

    def blocks(self, lines: Lines, cells: int | None) -> Iterator[Block]:
        """Yields the puzzles, as `formats.Reader`."""
        is_header = bool(self.header)
        for numbers, kept in kept_lines(lines):
            if is_header:
                numbers, kept, is_header = numbers[1:], kept[1:], False
            if kept:
                block = self._block(lines, numbers, kept, cells)
                cells = block.puzzles.shape[1]
                yield block

    def _block(self, lines: Lines, numbers: NDArray[np.int64], kept: list[str], cells: int | None) -> Block:
        rows = self._rows(lines, numbers, kept)
        texts = [_bare(row[self.puzzle]) for row in rows]
        puzzles = parse_all(texts, lines, numbers, cells)
        solutions = np.full_like(puzzles, NOT_STATED)
        if self.solution is not None:
            fields = [_bare(row[self.solution]) for row in rows]
            if stated := [i for i, field in enumerate(fields) if field]:
                given = [fields[i] for i in stated]
                solutions[stated] = parse_all(given, lines, numbers[stated], puzzles.shape[1], ": the solution")
        return Block(puzzles, solutions, numbers, blanks=blanks_of(texts))

    def _rows(self, lines: Lines, numbers: NDArray[np.int64], kept: list[str]) -> list[list[str]]:
        """The fields of lines. Lines are split at once, or one by one if there is a fault to report."""
        with contextlib.suppress(csv.Error):
            rows = list(_split(kept, self.separator))
            if len(rows) == len(kept) and all(map(self._is_complete, rows)):
                return rows
        rows = []
        for number, line in zip(numbers, kept, strict=True):
            row = _fields(line, self.separator)
            if row is None:
                raise InputError(f"{lines.where(number)}: not a line of CSV: quote a field on both sides or not")
            if not self._is_complete(row):
                wanted = "the header names" if self.header else "the first line has"
                raise InputError(f"{lines.where(number)}: fields: {len(row)}, but {wanted} {self.num}")
            rows.append(row)
        return rows

    def _is_complete(self, row: Sequence[str]) -> bool:
        if self.separator == " " and not self.header:  # a remark may follow
            return len(row) > max(self.puzzle, self.solution or 0)
        return len(row) == self.num


def _split(lines: list[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        return map(str.split, lines)
    if not any('"' in line for line in lines):
        return (line.split(separator) for line in lines)  # five times as fast
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _fields(line: str, separator: str) -> list[str] | None:
    """The fields of a line, without spaces and quotes around them; None if its quotes do not match."""
    if '"' in line:  # drops the spaces between a quote and the separator
        line = re.sub(rf'"\s+(?={separator})', '"', line)
    try:
        return [_bare(field) for field in next(_split([line], separator))]
    except csv.Error:
        return None


def _bare(field: str) -> str:
    return field.strip(" \t\"'")

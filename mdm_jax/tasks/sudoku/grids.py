"""Reads Sudokus in plain text: one on each line, or as grids with a line for each row."""

import dataclasses
import itertools
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.puzzle_formats import Lines, kept_lines
from mdm_jax.errors import InputError, shown
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.text import (
    BLANKS,
    NOT_STATED,
    Block,
    blanks_of,
    digits,
    parse,
    parse_all,
    use,
    without_comment,
)

_SPACES = re.compile(r"[\s|│║┃]+")
_RULES = ("--", "==", "──", "━━", "══")
_FRAME = frozenset("-+|=*:.' \t─━═│║┃┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬╟╢╤╧╪╫")
_LABEL = re.compile(r"(?i)grid \d+")
_SECTION = re.compile(r"\[(.*)\]")
_BETWEEN = {ord(character): None for character in " \t|│║┃,;"}
_ROWS = {size: re.compile(rf"[1-{size}{re.escape(BLANKS)}]{{{size}}}") for size in sudoku.BOXES}


def parse_one(text: str, where: str) -> NDArray[np.int8]:
    """Reads one puzzle, on one line or as a grid.

    Args:
      text: the puzzle. Cells may be separated by spaces, bars and frames.
      where: the name of the puzzle in messages.

    Returns:
      int8 `[cells]`.

    Raises:
      InputError: the text is malformed, or holds more than one puzzle.
    """
    if "\n" not in text.strip():
        return parse(_alone(text), where, None)
    found = [puzzle for block in Grids().blocks(Lines(where, text), None) for puzzle in block.puzzles]
    if len(found) != 1:
        raise InputError(f"{where} is {len(found)} grids: give one at a time, or a file")
    return found[0]


@dataclasses.dataclass(frozen=True)
class OnePerLine:
    """Reads one puzzle on each line. Its cells may be separated by spaces and bars, and a comment may follow."""

    details = ""

    @classmethod
    def of(cls, lines: Lines) -> "OnePerLine | None":
        """A reader, if the first line is a puzzle or resembles one."""
        if lines.first is None:
            return None
        text = _alone(lines.first[1])
        looks = len(text) >= 10 and 2 * sum(character in BLANKS + "123456789" for character in text) > len(text)
        return cls() if looks and text.isprintable() and not any(s in text for s in ",;\t") else None

    def blocks(self, lines: Lines, cells: int | None) -> Iterator[Block]:
        """Yields the puzzles, as `formats.Reader`."""
        for numbers, kept in kept_lines(lines):
            if (puzzles := digits(kept, cells or len(kept[0]))) is None:
                kept = [_alone(line) for line in kept]
                puzzles = parse_all(kept, lines, numbers, cells)
            cells = puzzles.shape[1]
            yield Block(puzzles, np.full_like(puzzles, NOT_STATED), numbers, blanks=blanks_of(kept))


@dataclasses.dataclass(frozen=True)
class Grids:
    """Reads grids with a line for each row, with or without frames. A file may hold several grids."""

    details = ""

    @classmethod
    def of(cls, lines: Lines) -> "Grids | None":
        """A reader, if the first line is a row, a frame, or a heading such as [Puzzle] or Grid 01."""
        if lines.first is None:
            return None
        line = lines.first[1]
        row = _row(line)
        is_row = any(pattern.fullmatch(row) for pattern in _ROWS.values())
        return cls() if is_row or _is_frame(line) or _heading(line) is not None else None

    def blocks(self, lines: Lines, cells: int | None) -> Iterator[Block]:
        """Yields the puzzles, as `formats.Reader`."""
        grids = _grids(lines, cells)
        while some := list(itertools.islice(grids, lines.most)):
            numbers, texts = zip(*some, strict=True)
            puzzles = digits(texts, len(texts[0]))
            assert puzzles is not None, "every row was checked"
            yield Block(puzzles, np.full_like(puzzles, NOT_STATED), np.array(numbers), blanks=blanks_of(texts))


def _grids(lines: Lines, cells: int | None) -> Iterator[tuple[int, str]]:
    """Yields the number of each grid's first line, and its cells. Every row is checked."""
    size = None if cells is None else sudoku.size_of(cells)
    rows: list[str] = []
    gaps: list[int] = []  # the numbers of rows above each empty line
    start, first_gaps = 0, None
    for number, row in _rows(lines, size):
        if not row:
            if rows and (row is None or size is None or len(rows) % sudoku.BOXES[size][0]):
                break  # an empty line may stand below each row of boxes, a heading may not
            gaps += [len(rows)] if rows and len(rows) not in gaps else []
            continue
        size = size or len(row)
        start = start if rows else number
        rows.append(row)
        if len(rows) == size:
            first_gaps = gaps if first_gaps is None else first_gaps
            if gaps != first_gaps:
                raise InputError(f"{lines.where(start)}: empty lines part this grid, but not where they do the first")
            yield start, "".join(rows)
            rows, gaps = [], []
    if rows:
        raise InputError(f"{lines.where(start)}: the grid that begins here has {len(rows)} rows, not {size}")


def _rows(lines: Lines, size: int | None) -> Iterator[tuple[int, str | None]]:
    """Yields the rows of puzzles with the numbers of their lines: "" for an empty line, None for a heading."""
    is_puzzle = True
    for number, line in lines.numbered():
        if not (is_puzzle and size and _ROWS[size].fullmatch(line)):
            line = line.strip()
            if line.startswith("#") or _is_frame(line):
                continue
            heading = _heading(line)
            is_puzzle = is_puzzle if heading is None else heading
            if line == "" or heading is not None:
                yield number, line if heading is None else None
                continue
            if not is_puzzle:
                continue
            line = _row(line)
            size = size or next((size for size in _ROWS if len(line) == size), max(_ROWS))
            if not _ROWS[size].fullmatch(line):
                raise InputError(f"{lines.where(number)}: {shown(line, 50)} is no row of {size} cells: {use(size)}")
        yield number, line


def _is_frame(line: str) -> bool:
    """Whether a line is part of the frame around or between boxes."""
    return any(rule in line for rule in _RULES) and _FRAME.issuperset(line)


def _heading(line: str) -> bool | None:
    """Whether a heading announces a puzzle; None if the line is no heading."""
    if section := _SECTION.fullmatch(line):
        return section.group(1).strip().lower() == "puzzle"
    return True if _LABEL.fullmatch(line) else None


def _row(line: str) -> str:
    return without_comment(line).translate(_BETWEEN)


def _alone(line: str) -> str:
    """The cells of a puzzle on one line, without separators and comment."""
    parts = [part for part in _SPACES.split(without_comment(line)) if part]
    return ("" if len(set(map(len, parts))) == 1 else " ").join(parts)

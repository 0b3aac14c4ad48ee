"""The file formats of Zebra puzzles, and their reader. A format is recognised by how a file begins."""

import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from mdm_jax.data.puzzle_formats import BLOCK, Format, Lines, counts, recognise
from mdm_jax.errors import one_line
from mdm_jax.ranges import Range, check_number
from mdm_jax.tasks.zebra.clues import TYPES, Clues, sizes_of
from mdm_jax.tasks.zebra.english import NAMES, Attribute
from mdm_jax.tasks.zebra.riddle_text import begins_riddle, parse_riddle
from mdm_jax.tasks.zebra.text import EMPTY, checked_puzzle, parse_clue, parse_whole, tokens


class Written(NamedTuple):
    """A puzzle from a file.

    Attributes:
      name: the file, with the line if the file holds several puzzles.
      clues: int8 `[clues, 4]`.
      names: the names of its attributes and values.
      question: the question, or "".
    """

    name: str
    clues: Clues
    names: tuple[Attribute, ...] = NAMES
    question: str = ""


class ZebraFile(NamedTuple):
    """The puzzles of a file.

    Attributes:
      puzzles: at least one.
      how: one line for the user: the format, the number and the sizes of the puzzles.
    """

    puzzles: list[Written]
    how: str


class Reader(Protocol):
    """Reads the puzzles of files in one format."""

    def puzzles(self, lines: Lines) -> Iterator[Written]:
        """Yields the puzzles."""
        ...


class CluePerLine:
    """Reads a file with one puzzle in token form, a clue on each line."""

    @classmethod
    def of(cls, lines: Lines) -> "CluePerLine | None":
        """A reader, if the first line is one clue or begins like one."""
        words = tokens(lines.first[1]) if lines.first else []
        is_clue = words[:1] in [[kind] for kind in TYPES] or words[1:2] == ["LHS"]
        return cls() if is_clue and words.count("CLUE_END") < 2 else None

    def puzzles(self, lines: Lines) -> Iterator[Written]:
        """Yields the one puzzle."""
        clues = [parse_clue(line, lines.where(number)) for number, line in lines.numbered() if counts(line)]
        yield Written(lines.name, checked_puzzle(clues, lines.name))


class PuzzlePerLine:
    """Reads a file with a puzzle in token form on each line."""

    @classmethod
    def of(cls, lines: Lines) -> "PuzzlePerLine | None":
        """A reader, if the first line holds several clues."""
        words = tokens(lines.first[1]) if lines.first else []
        return cls() if words.count("CLUE_END") > 1 else None

    def puzzles(self, lines: Lines) -> Iterator[Written]:
        """Yields the puzzles, named by their lines."""
        for number, line in lines.numbered():
            if counts(line):
                yield Written(lines.where(number), parse_whole(line, lines.where(number)))


class RiddleFile:
    """Reads a file with one riddle in words; see `riddle_text`."""

    @classmethod
    def of(cls, lines: Lines) -> "RiddleFile | None":
        """A reader, if the first line names an attribute and its values."""
        return cls() if lines.first and begins_riddle(lines.first[1]) else None

    def puzzles(self, lines: Lines) -> Iterator[Written]:
        """Yields the one puzzle."""
        riddle = parse_riddle(((number, line) for number, line in lines.numbered() if counts(line)), lines.name)
        yield Written(lines.name, checked_puzzle(riddle.clues, lines.name), riddle.names, riddle.question)


FORMATS: tuple[Format[Reader], ...] = (
    Format("a clue per line", "such as = LHS c 0 1 RHS n 0 2 CLUE_END, and one puzzle in a file", CluePerLine.of),
    Format("a puzzle per line", "all its clues, each with its CLUE_END", PuzzlePerLine.of),
    Format("a riddle", "attributes with their values, such as colour: red, green, white; then clues", RiddleFile.of),
)
"""All formats. The first that recognises a file reads it."""


def read_puzzles(path: str | os.PathLike[str], *, limit: int | None = None) -> ZebraFile:
    """Reads a file of puzzles. Does not check that they have one solution.

    Args:
      path: the file, in UTF-8, plain or compressed by gzip. Lines that are empty or start with # are skipped.
      limit: the number of puzzles to read, from the first; None reads all.

    Returns:
      The puzzles.

    Raises:
      InputError: the file cannot be read, has no known format, or holds something other than puzzles.
    """
    if limit is not None:
        check_number("limit", limit, Range(1), whole=True)
    lines = Lines(os.fspath(path), most=BLOCK)
    form, reader = recognise(lines, FORMATS, EMPTY)
    found: list[Written] = []
    for puzzle in reader.puzzles(lines):
        found.append(puzzle)
        if len(found) == limit:
            break
    num = f"{'the first ' if len(found) == limit else ''}{len(found):,} of"
    sizes = sorted({(int(size[0][0]), int(size[1][0])) for size in (sizes_of(each.clues[None]) for each in found)})
    span = " to ".join(f"{houses}x{attributes}" for houses, attributes in dict.fromkeys((sizes[0], sizes[-1])))
    clues = sum(len(puzzle.clues) for puzzle in found)
    return ZebraFile(
        found, one_line(f"{path}: read as {form.name}, {num} {span} (houses x attributes), {clues:,} clues")
    )

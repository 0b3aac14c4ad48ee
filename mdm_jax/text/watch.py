"""Shows a sequence on a terminal while it fills in: what was revealed early is blue, what came last is red."""

import itertools
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

import numpy as np

from mdm_jax.text.prompts import BLANK

HEAT = (27, 33, 39, 45, 51, 49, 46, 118, 190, 226, 220, 214, 208, 202, 196)
"""Colours of the 256 of a terminal, from the earliest to the latest."""
Cell = tuple[str, int | None]
"""A character, and its colour."""


def plain(text: str) -> str:
    r"""Text as a terminal may show it: lines and tabs stay, other control characters are escaped.

    >>> plain("a" + chr(27) + "[2J" + chr(10))
    'a\\x1b[2J\n'
    """
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def colour(step: int, last: int) -> int | None:
    """That of a position revealed in a step; None where given."""
    return None if step < 0 else HEAT[step * (len(HEAT) - 1) // max(last, 1)]


def cells(piece: Callable[[Sequence[int], int], str], tokens: np.ndarray, reveal_step: np.ndarray) -> list[Cell]:
    """The characters of a sequence, int32 [L] with BLANK, and their colours.

    Args:
      piece: (ids before, id) -> the text that the id adds.
      tokens: the ids.
      reveal_step: int32 [L]; -1 where given.
    """
    found: list[Cell] = []
    last = int(reveal_step.max())
    for i, (token, step) in enumerate(zip(tokens.tolist(), reveal_step.tolist(), strict=True)):
        before = [tokens[i - 1]] if i and tokens[i - 1] != BLANK else []
        text = "·" if token == BLANK else plain(piece(before, token))
        found += [(character, colour(step, last)) for character in text]
    return found


def rows(cells: Sequence[Cell], width: int) -> list[str]:
    """The cells as lines of at most `width` columns, with the codes of their colours."""
    lines: list[list[Cell]] = [[]]
    used = 0
    for character, tint in cells:
        wide = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if character == "\n" or used + wide > width:
            lines.append([])
            used = 0
        if character != "\n":
            lines[-1].append((" " if character == "\t" else character, tint))
            used += wide
    return ["".join(_tinted(tint, group) for tint, group in itertools.groupby(line, lambda c: c[1])) for line in lines]


def _tinted(tint: int | None, group: Iterable[Cell]) -> str:
    text = "".join(character for character, _ in group)
    return text if tint is None else f"\x1b[38;5;{tint}m{text}\x1b[0m"


class Screen:
    """Draws each step over the one before. It is a `watch` of `generate`."""

    def __init__(self, piece: Callable[[Sequence[int], int], str], stream: TextIO = sys.stdout) -> None:
        self._piece, self._stream, self._drawn = piece, stream, 0

    def __call__(self, tokens: np.ndarray, reveal_step: np.ndarray) -> None:
        """Draws the sequence; of one that is too long for the terminal, the end."""
        size = shutil.get_terminal_size()
        lines = rows(cells(self._piece, tokens, reveal_step), max(size.columns - 1, 1))[-max(size.lines - 1, 1) :]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(f"{up}\r\x1b[J" + "\n".join(lines) + "\n")
        self._stream.flush()
        self._drawn = len(lines)

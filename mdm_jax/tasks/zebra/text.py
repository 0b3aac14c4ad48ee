"""The token form of Zebra puzzles: a clue on each line, such as `= LHS c 0 1 RHS n 0 2 CLUE_END`; see `clues`.

`formats` reads files of this form and of others.
"""

import itertools
import re
from collections.abc import Iterable

import numpy as np

from mdm_jax.data.puzzle_formats import counts
from mdm_jax.errors import InputError, shown
from mdm_jax.tasks.zebra.clues import ARITY, CELLS, NONE, STRIDE, TYPES, Clues, Size, sizes_of

EMPTY = "holds no clue: write one on each line, such as = LHS c 0 1 RHS n 0 2 CLUE_END"
"""The message about a file or a text without clues."""

_TOKEN = re.compile(r"!=|=|-?\d+|[^\s=!\d]+|\S")
_FEWEST, _SIDES = 3, ("LHS", "RHS")
_FORMS = {
    1: "[type] LHS [c|n] [attr] [val] CLUE_END",
    2: "[type] LHS [c|n] [attr] [val] RHS [c|n] [attr] [val] CLUE_END",
    3: "[type] LHS [c|n] [attr] [val] RHS [c|n] [attr] [val] [c|n] [attr] [val] CLUE_END",
}


def write_clue(clue: Iterable[int]) -> str:
    """The token form of one clue.

    Args:
      clue: a type and three terms, -1 for missing ones.

    Returns:
      The tokens, separated by spaces.
    """
    kind, *terms = (int(number) for number in clue)
    words = [TYPES[kind]]
    for role, term in enumerate(terms[: ARITY[kind]]):
        words += _SIDES[role : role + 1]
        words += ["c", str(term // STRIDE)] if term < CELLS else ["n", "0"]
        words.append(str(term % STRIDE))
    return " ".join([*words, "CLUE_END"])


def write_puzzle(clues: Clues) -> str:
    """The token form of one puzzle, int8 `[clues, 4]`: a line for each clue."""
    return "".join(f"{write_clue(clue)}\n" for clue in clues if clue[0] != NONE)


def parse_clue(text: str, where: str, size: Size | None = None) -> list[int]:
    """Parses one clue.

    Args:
      text: the token form.
      where: the name of the clue in messages.
      size: the numbers of houses and attributes; None for up to 6.

    Returns:
      The type and three terms, -1 for missing ones.

    Raises:
      InputError: the text is no clue, or names a house, an attribute or a value that does not exist.
    """
    words = tokens(text)
    if not words or words[0] not in TYPES:
        raise InputError(f"{where}: {' '.join(words[:1])!r} is no type of clue: choose one of {', '.join(TYPES)}")
    kind = TYPES.index(words[0])
    arity = int(ARITY[kind])
    form = _FORMS[arity].replace("[type]", TYPES[kind])
    wanted = _FORMS[arity].split()
    for place, (word, slot) in enumerate(zip(words[1:], wanted[1:], strict=False), start=2):
        if slot.startswith("["):
            if slot == "[c|n]" and word not in ("c", "n"):
                raise InputError(f"{where}: token {place} is {word!r}: c (a value) or n (a house) is wanted in {form}")
            continue
        if word != slot:
            raise InputError(f"{where}: token {place} is {word!r}: {slot} is wanted in {form}")
    if len(words) != len(wanted):
        raise InputError(f"{where}: {len(words)} tokens, but {len(wanted)} are wanted: {form}")
    heads = [place for place, slot in enumerate(wanted) if slot == "[c|n]"]
    terms = [_parse_term(words[place : place + 3], place + 1, where, size) for place in heads]
    if len(set(terms)) < arity:
        raise InputError(f"{where}: names the same twice: the terms of a clue must differ")
    if min(terms) >= CELLS:
        raise InputError(f"{where}: names no value, just houses: one term at least must be a c")
    return [kind, *terms, *[NONE] * (3 - arity)]


def _parse_term(words: list[str], place: int, where: str, size: Size | None) -> int:
    """Parses the three tokens of a term. The first one is token `place` of the clue."""
    houses, attributes = size or (STRIDE, STRIDE)
    is_value = words[0] == "c"
    limits = {"attr": attributes if is_value else 1, "val": houses}
    for offset, (name, limit) in enumerate(limits.items(), start=1):
        if words[offset] not in map(str, range(limit)):
            kind = "a house has" if not is_value else f"{attributes} attributes with {houses} values have"
            choice = f"{name} 0" if limit == 1 else f"{name} 0 to {limit - 1}"
            raise InputError(f"{where}: token {place + offset} is {words[offset]!r}: {kind} {choice}")
    return (int(words[1]) * STRIDE if is_value else CELLS) + int(words[2])


def parse_puzzle(lines: Iterable[str], name: str, size: Size | None = None) -> Clues:
    """Parses one puzzle, a clue on each line.

    Args:
      lines: the token form.
      name: the name of the puzzle in messages.
      size: the required numbers of houses and attributes; None reads them from the clues.

    Returns:
      int8 `[clues, 4]`.

    Raises:
      InputError: a line is no clue, there is no clue, or the clues name too few houses or attributes.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    clues = [parse_clue(line, f"{name}:{number}", size) for number, line in numbered if counts(line)]
    return checked_puzzle(clues, name, size)


def parse_whole(line: str, where: str) -> Clues:
    """Parses a puzzle with all clues on one line, as `parse_puzzle`."""
    words = tokens(line)
    ends = [place for place, word in enumerate(words, start=1) if word == "CLUE_END"]
    if (rest := words[ends[-1] if ends else 0 :]) != []:
        raise InputError(f"{where}: {shown(' '.join(rest), 50)} behind the last CLUE_END: clues alone are read")
    parts = itertools.pairwise([0, *ends])
    clues = [parse_clue(" ".join(words[a:b]), f"{where}: clue {i}") for i, (a, b) in enumerate(parts, start=1)]
    return checked_puzzle(clues, where)


def checked_puzzle(clues: list[list[int]], name: str, size: Size | None = None) -> Clues:
    """Returns clues as int8 `[clues, 4]`; raises InputError if there are none, or the puzzle is too small."""
    if not clues:
        raise InputError(f"{name} {EMPTY}")
    puzzle = np.array(clues, np.int8)
    for what, found, wanted in zip(Size._fields, sizes_of(puzzle[None]), size or (None, None), strict=True):
        if found[0] < (wanted or _FEWEST):
            last = (wanted or _FEWEST) - 1
            example = f"!= LHS c 0 {last} RHS n 0 0" if what == "houses" else f"!= LHS c {last} 0 RHS n 0 0"
            raise InputError(
                f"{name}: its clues name {found[0]} {what}, not {wanted or f'{_FEWEST} to {STRIDE}'}: add one that "
                f"names the last, such as {example} CLUE_END"
            )
    return puzzle


def tokens(text: str) -> list[str]:
    """Splits a text into tokens. Spaces may be missing around = and !=, and between a word and a number."""
    return _TOKEN.findall(text)

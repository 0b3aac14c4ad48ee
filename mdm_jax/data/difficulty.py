"""Difficulties of puzzles: rules that people use solve the normal set, and do not solve the hard set."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records
from mdm_jax.errors import InputError

DIFFICULTIES = ("normal", "hard")

CHUNK = 8192
_MOST_REJECTED = 64
"""The number of consecutive chunks without a puzzle of the difficulty after which the search gives up."""


def check_difficulty(difficulty: str | None) -> str | None:
    """Returns the difficulty; raises InputError unless it is "normal", "hard" or None, which means both."""
    if difficulty not in (None, *DIFFICULTIES):
        raise InputError(f"difficulty={difficulty!r} is unknown: choose normal, hard, or None for all")
    return difficulty


def is_of(records: Records, difficulty: str | None) -> NDArray[np.bool_]:
    """Whether records have a difficulty, bool [N]. They are hard if `order` [N, cells] is negative at any cell."""
    is_hard: NDArray[np.bool_] = np.min(records["order"], axis=1, initial=0) < 0
    return np.ones_like(is_hard) if difficulty is None else np.equal(is_hard, difficulty == "hard")


def check_unique(solve: Callable[[Any], tuple[Any, Any]], puzzles: NDArray[Any], solutions: NDArray[Any]) -> None:
    """Raises AssertionError unless an exact search, puzzles -> (solutions, counts), finds only the given solutions."""
    found, counts = solve(puzzles)
    wrong = np.flatnonzero((counts != 1) | (found != solutions).any(axis=1))
    assert not len(wrong), f"the generator made a puzzle with another solution: {puzzles[wrong[0]].tolist()}"


def choose(
    num: int, difficulty: str | None, make: Callable[[int, int], Records], *, kind: str, instead: str
) -> Iterator[Records]:
    """Makes puzzles in chunks and keeps those of one difficulty.

    Args:
      num: the number of puzzles to keep.
      difficulty: "normal", "hard", or None for all.
      make: (number of puzzles, index of the first) -> records.
      kind: the name of the puzzles, for messages.
      instead: the alternative that the message advises.

    Yields:
      Chunks of the kept records, in order.

    Raises:
      InputError: puzzles of that difficulty are too rare.
    """
    check_difficulty(difficulty)
    found, first, rejected = 0, 0, 0
    while found < num:
        here = min(CHUNK, num - found if difficulty is None else max(2 * (num - found), 64))
        records = make(here, first)
        kept = np.flatnonzero(is_of(records, difficulty))[: num - found]
        first, found = first + here, found + len(kept)
        rejected = 0 if len(kept) else rejected + 1
        if rejected == _MOST_REJECTED:
            raise InputError(f"{difficulty} {kind} hardly exist: {first} tried in vain; choose {instead}")
        yield {name: rows[kept] for name, rows in records.items()}

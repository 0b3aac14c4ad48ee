"""Puzzles by what a person's rules make of them: the normal set, which they solve, and the hard set."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError

DIFFICULTIES = ("normal", "hard")

Records = Mapping[str, NDArray[Any]]
"""Fields of N puzzles; `order` [N, cells] is negative where the rules gave up on a cell."""

CHUNK = 8192
_MOST_REJECTED = 64
"""Chunks in a row without one puzzle of the difficulty asked for, after which there seem to be none."""


def check_difficulty(difficulty: str | None) -> str | None:
    """Returns the difficulty, or raises InputError unless it is "normal", "hard" or None, which stands for all."""
    if difficulty not in (None, *DIFFICULTIES):
        raise InputError(f"difficulty={difficulty!r} is unknown: choose normal, hard, or None for all")
    return difficulty


def is_of(records: Records, difficulty: str | None) -> NDArray[np.bool_]:
    """Which records are of a difficulty: the rules gave up on a cell, or on none."""
    is_hard: NDArray[np.bool_] = np.min(records["order"], axis=1, initial=0) < 0
    return np.ones_like(is_hard) if difficulty is None else np.equal(is_hard, difficulty == "hard")


def check_unique(solve: Callable[[Any], tuple[Any, Any]], puzzles: NDArray[Any], solutions: NDArray[Any]) -> None:
    """AssertionError unless an exact search, puzzles -> (solutions, counts), finds each one's solution and no other."""
    found, counts = solve(puzzles)
    wrong = np.flatnonzero((counts != 1) | (found != solutions).any(axis=1))
    assert not len(wrong), f"the generator made a puzzle with another solution: {puzzles[wrong[0]].tolist()}"


def choose(
    num: int, difficulty: str | None, make: Callable[[int, int], Records], *, kind: str, instead: str
) -> Iterator[Records]:
    """Makes puzzles and keeps those of one difficulty, some at a time.

    Args:
        num: How many in all.
        difficulty: "normal", "hard", or None for all.
        make: (how many, the number of the first) -> records.
        kind: What a message calls the puzzles.
        instead: What it says to choose.

    Yields:
        Those that are kept, in their order.

    Raises:
        InputError: No puzzle of that difficulty turns up.
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

"""Zebra puzzles with the order in which their cells fall: the normal set, which deduction solves, and the hard set."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import zebra
from mdm_jax.data.zebra_clues import LARGEST, SMALLEST, Clues, Size, check_sizes
from mdm_jax.errors import InputError

DIFFICULTIES = ("normal", "hard")

RULES_VERSION = 1
"""To be raised whenever `zebra_deduction.deduce` orders a puzzle otherwise, since prepared data is named by it."""

Records = Mapping[str, NDArray[Any]]
"""`clues` int8 `[num, clues, 4]` as in `zebra_clues`; `solution` and `order` int8 `[num, 36]`, the latter as in
`zebra_deduction.Deduction`."""

_CHUNK = 8192
_MOST_REJECTED = 64
"""Chunks in a row without one puzzle of the difficulty asked for, after which there seem to be none."""


def generate_ordered(
    num: int,
    *,
    smallest: Size = SMALLEST,
    largest: Size = LARGEST,
    difficulty: str | None = None,
    seed: int = 0,
    split: zebra.Split | None = None,
) -> Iterator[Records]:
    """Generates puzzles, orders their cells by deduction and keeps those of one difficulty, some at a time.

    Args:
        num: How many in all.
        smallest: As `zebra.generate`, whose puzzles are tried in their order from number 0.
        largest: As `zebra.generate`.
        difficulty: "normal" for those that deduction solves, "hard" for the others, None for all.
        seed: As `zebra.generate`.
        split: As `zebra.generate`.

    Yields:
        `clues` int8 `[some, largest.max_clues, 4]`, `solution` and `order` int8 `[some, 36]`.

    Raises:
        InputError: An argument is out of its range, or no puzzle of that difficulty turns up.
    """
    check_difficulty(difficulty)
    smallest, largest = check_sizes(smallest, largest)
    found, first, rejected = 0, 0, 0
    while found < num:
        here = min(_CHUNK, num - found if difficulty is None else max(2 * (num - found), 64))
        puzzles = zebra.generate(here, smallest=smallest, largest=largest, seed=seed, split=split, first=first)
        check_unique(*puzzles)
        records = ordered(*puzzles)
        kept = np.flatnonzero(is_of(records, difficulty))[: num - found]
        first, found = first + here, found + len(kept)
        rejected = 0 if len(kept) else rejected + 1
        if rejected == _MOST_REJECTED:
            raise InputError(f"{difficulty} puzzles hardly exist: {first} tried in vain; choose other sizes")
        yield {name: rows[kept] for name, rows in records.items()}


def check_difficulty(difficulty: str | None) -> str | None:
    """Returns the difficulty, or raises InputError unless it is "normal", "hard" or None, which stands for all."""
    if difficulty not in (None, *DIFFICULTIES):
        raise InputError(f"difficulty={difficulty!r} is unknown: choose normal, hard, or None for all")
    return difficulty


def check_unique(clues: Clues, solutions: NDArray[np.int8]) -> None:
    """AssertionError unless an exact search finds each puzzle's solution, and no other."""
    found, counts = zebra.solve(clues)
    wrong = np.flatnonzero((counts != 1) | (found != solutions).any(axis=1))
    assert not len(wrong), f"the generator made a puzzle with another solution: {clues[wrong[0]].tolist()}"


def ordered(clues: Clues, solutions: NDArray[np.int8]) -> Records:
    """Puzzles as records: `clues`, `solution` and `order`."""
    from mdm_jax.data import zebra_deduction  # brings numba along

    return {"clues": clues, "solution": solutions, "order": zebra_deduction.deduce(clues, solutions).order}


def is_of(records: Records, difficulty: str | None) -> NDArray[np.bool_]:
    """Which records are of a difficulty: deduction gave up on a cell, or on none."""
    is_hard: NDArray[np.bool_] = np.min(records["order"], axis=1, initial=0) < 0
    return np.ones_like(is_hard) if difficulty is None else np.equal(is_hard, difficulty == "hard")

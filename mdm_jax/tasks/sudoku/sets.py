"""Rated puzzles: the normal set, which the seven rules of `rules` solve, and the hard set, which they do not."""

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Split
from mdm_jax.data.difficulty import check_unique, choose, is_of
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import puzzle as sudoku

RATING_VERSION = 1
"""Raise it whenever `rules.rate` rates a puzzle otherwise: prepared data are named by it."""


def generate_rated(
    num: int,
    *,
    size: int = 9,
    clues: int | None = None,
    difficulty: str | None = None,
    seed: int = 0,
    split: Split | None = None,
) -> Iterator[Records]:
    """Generates puzzles, rates them and keeps those of one difficulty, some at a time.

    Args:
      num: the number of puzzles to keep.
      size: as `sudoku.generate`, whose puzzles are tried in their order from number 0.
      clues: as `sudoku.generate`.
      difficulty: "normal", "hard", or None for all.
      seed: as `sudoku.generate`.
      split: as `sudoku.generate`.

    Returns:
      Chunks of records: `puzzle`, `solution`, and `order` and `rule` of `rules.Rating`, int8 `[some, cells]` each;
      0 = blank.

    Raises:
      InputError: an argument is out of its range, or no puzzle of that difficulty turns up.
    """

    def make(some: int, first: int) -> Records:
        puzzles, solutions = sudoku.generate(some, size=size, clues=clues, seed=seed, split=split, first=first)
        check_unique(sudoku.solve, puzzles, solutions)
        return rated(puzzles, solutions)

    return choose(num, difficulty, make, kind=f"{size}x{size} puzzles", instead="another size, or clues")


def read_rated(
    path: str | os.PathLike[str],
    num: int,
    *,
    size: int,
    difficulty: str | None,
    split: Split,
    on_read: Callable[[str], object] | None = None,
) -> Records:
    """Reads a file of puzzles, rates them and takes the first ones of one difficulty and split.

    Args:
      path: as `files.read_puzzles` reads it. Its order and rules, if it states them, replace ours.
      num: the number of puzzles.
      size: the wanted size.
      difficulty: "normal", "hard", or None for all.
      split: "train" or "test"; see `sudoku.in_test_split`.
      on_read: gets the line that says how the file was read.

    Returns:
      The records.

    Raises:
      InputError: the file is not right, or has too few such puzzles.
    """
    read = sudoku_files.read_puzzles(path, size=size)
    if on_read is not None:
        on_read(read.how)
    records = dict(rated(read.puzzles, read.solutions))
    if read.order is not None and read.rule is not None:
        records |= {"order": read.order, "rule": read.rule}
    is_chosen = is_of(records, difficulty) & np.equal(sudoku.in_test_split(read.solutions), split == "test")
    if is_chosen.sum() < num:
        kind = f"{difficulty} puzzles" if difficulty else "puzzles"
        raise InputError(f"{path} has {is_chosen.sum()} {kind} for the {split} split, not {num}: ask for fewer")
    chosen = np.flatnonzero(is_chosen)[:num]
    return {name: values[chosen] for name, values in records.items()}


def rated(puzzles: NDArray[np.int8], solutions: NDArray[np.int8]) -> Records:
    """A rating for each puzzle, as records: `puzzle`, `solution`, `order` and `rule` int8 `[num, cells]`."""
    from mdm_jax.tasks.sudoku import rules as sudoku_rules  # brings numba along

    rating = sudoku_rules.rate(puzzles)
    return {"puzzle": puzzles, "solution": solutions, "order": rating.order, "rule": rating.rule}

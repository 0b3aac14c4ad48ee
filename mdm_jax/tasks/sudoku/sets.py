"""Rated puzzles. The seven rules of `rules` solve the normal set and do not solve the hard set.

Training puzzles are none of the lists that models are evaluated on, nor related to one: see `public_lists`.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Split
from mdm_jax.data.difficulty import check_unique, choose, is_of
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.public_lists import is_related

RATING_VERSION = 1
"""Increase it when `rules.rate` gives another rating. The names of prepared data contain it."""


def generate_rated(
    num: int,
    *,
    size: int = 9,
    clues: int | None = None,
    difficulty: str | None = None,
    seed: int = 0,
    split: Split | None = None,
) -> Iterator[Records]:
    """Generates puzzles in the order of `puzzle.generate`, rates them and keeps those of one difficulty.

    Args:
      num: the number of puzzles to keep.
      size: as for `puzzle.generate`.
      clues: as for `puzzle.generate`.
      difficulty: "normal", "hard", or None for all.
      seed: as for `puzzle.generate`.
      split: as for `puzzle.generate`.

    Returns:
      Chunks of records: `puzzle`, `solution`, and `order` and `rule` of `rules.Rating`, each int8 `[chunk, cells]`,
      0 = blank.

    Raises:
      InputError: an argument is out of its range, or puzzles of that difficulty are too rare.
    """

    def make(some: int, first: int) -> Records:
        puzzles, solutions = sudoku.generate(some, size=size, clues=clues, seed=seed, split=split, first=first)
        check_unique(sudoku.solve, puzzles, solutions)
        kept = ~is_related(solutions) if split == "train" else slice(None)
        return rated(puzzles[kept], solutions[kept])

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
      path: a file for `files.read_puzzles`. The order and the rules in the file, if any, replace our rating.
      num: the number of puzzles.
      size: the size of the puzzles.
      difficulty: "normal", "hard", or None for all.
      split: "train" or "test"; see `puzzle.in_test_split`.
      on_read: receives the line that says how the file was read.

    Returns:
      The records.

    Raises:
      InputError: the file is faulty, or has too few such puzzles.
    """
    read = sudoku_files.read_puzzles(path, size=size)
    if on_read is not None:
        on_read(read.how)
    records = dict(rated(read.puzzles, read.solutions))
    if read.order is not None and read.rule is not None:
        records |= {"order": read.order, "rule": read.rule}
    is_chosen = is_of(records, difficulty) & np.equal(sudoku.in_test_split(read.solutions), split == "test")
    if split == "train":
        is_chosen &= ~is_related(read.solutions)
    if is_chosen.sum() < num:
        kind = f"{difficulty} puzzles" if difficulty else "puzzles"
        raise InputError(f"{path} has {is_chosen.sum()} {kind} for the {split} split, not {num}: ask for fewer")
    chosen = np.flatnonzero(is_chosen)[:num]
    return {name: values[chosen] for name, values in records.items()}


def rated(puzzles: NDArray[np.int8], solutions: NDArray[np.int8]) -> Records:
    """Rates puzzles. Returns records: `puzzle`, `solution`, `order` and `rule`, int8 `[num, cells]`."""
    from mdm_jax.tasks.sudoku import rules as sudoku_rules  # imports numba

    rating = sudoku_rules.rate(puzzles)
    return {"puzzle": puzzles, "solution": solutions, "order": rating.order, "rule": rating.rule}

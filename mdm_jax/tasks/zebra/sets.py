"""Zebra puzzles with the order of deduction. Deduction solves the normal set and does not solve the hard set."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Split
from mdm_jax.data.difficulty import check_unique, choose
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import LARGEST, SMALLEST, Clues, Size, check_sizes

RULES_VERSION = 1
"""Increase it when `deduction.deduce` gives another order. The names of prepared data contain it."""


def generate_ordered(
    num: int,
    *,
    smallest: Size = SMALLEST,
    largest: Size = LARGEST,
    difficulty: str | None = None,
    seed: int = 0,
    split: Split | None = None,
) -> Iterator[Records]:
    """Generates puzzles in the order of `puzzle.generate`, deduces them and keeps those of one difficulty.

    Args:
      num: the number of puzzles to keep.
      smallest: as for `puzzle.generate`.
      largest: as for `puzzle.generate`.
      difficulty: "normal" for puzzles that deduction solves, "hard" for the others, None for all.
      seed: as for `puzzle.generate`.
      split: as for `puzzle.generate`.

    Returns:
      Chunks of records: `clues` int8 `[chunk, largest.max_clues, 4]`, `solution` int8 `[chunk, 36]`, and `order` of
      `deduction.Deduction`, int8 `[chunk, 36]`.

    Raises:
      InputError: an argument is out of its range, or puzzles of that difficulty are too rare.
    """
    smallest, largest = check_sizes(smallest, largest)

    def make(some: int, first: int) -> Records:
        puzzles = zebra.generate(some, smallest=smallest, largest=largest, seed=seed, split=split, first=first)
        check_unique(zebra.solve, *puzzles)
        return ordered(*puzzles)

    return choose(num, difficulty, make, kind="puzzles", instead="other sizes")


def ordered(clues: Clues, solutions: NDArray[np.int8]) -> Records:
    """Deduces puzzles. Returns records: `clues`, `solution` and `order`."""
    from mdm_jax.tasks.zebra import deduction as zebra_deduction  # imports numba

    return {"clues": clues, "solution": solutions, "order": zebra_deduction.deduce(clues, solutions).order}

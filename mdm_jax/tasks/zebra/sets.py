"""Zebra puzzles with the order in which their cells fall: the normal set, which deduction solves, and the hard set."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Records, Split
from mdm_jax.data.difficulty import check_unique, choose
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import LARGEST, SMALLEST, Clues, Size, check_sizes

RULES_VERSION = 1
"""Raise it whenever `deduction.deduce` orders a puzzle otherwise: prepared data are named by it."""


def generate_ordered(
    num: int,
    *,
    smallest: Size = SMALLEST,
    largest: Size = LARGEST,
    difficulty: str | None = None,
    seed: int = 0,
    split: Split | None = None,
) -> Iterator[Records]:
    """Generates puzzles, orders their cells by deduction and keeps those of one difficulty, some at a time.

    Args:
      num: the number of puzzles to keep.
      smallest: as `zebra.generate`, whose puzzles are tried in their order from number 0.
      largest: as `zebra.generate`.
      difficulty: "normal" for those that deduction solves, "hard" for the others, None for all.
      seed: as `zebra.generate`.
      split: as `zebra.generate`.

    Returns:
      Chunks of records: `clues` int8 `[some, largest.max_clues, 4]`, and `solution` and `order` int8 `[some, 36]`,
      `order` as in `deduction.Deduction`.

    Raises:
      InputError: an argument is out of its range, or no puzzle of that difficulty turns up.
    """
    smallest, largest = check_sizes(smallest, largest)

    def make(some: int, first: int) -> Records:
        puzzles = zebra.generate(some, smallest=smallest, largest=largest, seed=seed, split=split, first=first)
        check_unique(zebra.solve, *puzzles)
        return ordered(*puzzles)

    return choose(num, difficulty, make, kind="puzzles", instead="other sizes")


def ordered(clues: Clues, solutions: NDArray[np.int8]) -> Records:
    """Puzzles as records: `clues`, `solution` and `order`."""
    from mdm_jax.tasks.zebra import deduction as zebra_deduction  # brings numba along

    return {"clues": clues, "solution": solutions, "order": zebra_deduction.deduce(clues, solutions).order}

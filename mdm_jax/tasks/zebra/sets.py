"""Zebra puzzles with the order in which their cells fall: the normal set, which deduction solves, and the hard set."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Split
from mdm_jax.data.difficulty import check_unique, choose
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import LARGEST, SMALLEST, Clues, Size, check_sizes

RULES_VERSION = 1
"""To be raised whenever `deduction.deduce` orders a puzzle otherwise, since prepared data is named by it."""

Records = Mapping[str, NDArray[Any]]
"""`clues` int8 `[num, clues, 4]` as in `clues`; `solution` and `order` int8 `[num, 36]`, the latter as in
`deduction.Deduction`."""


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
        num: How many in all.
        smallest: As `zebra.generate`, whose puzzles are tried in their order from number 0.
        largest: As `zebra.generate`.
        difficulty: "normal" for those that deduction solves, "hard" for the others, None for all.
        seed: As `zebra.generate`.
        split: As `zebra.generate`.

    Returns:
        Of each chunk `clues` int8 `[some, largest.max_clues, 4]`, `solution` and `order` int8 `[some, 36]`.

    Raises:
        InputError: An argument is out of its range, or no puzzle of that difficulty turns up.
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

"""Puzzles that are harder than random ones, by local search, to train on.

A random minimal puzzle needs 4 guesses of the solver in `kernels` on average; those of the public lists need 66
(magictour_top1465), 275 (forum_hardest_se11_1k) and 533 (forum_hardest_1106). Nobody draws such puzzles at random. The
search gives other cells in the place of some, and keeps what is not easier.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.checks import whole_number
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import kernels
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.public_lists import is_related

MOST = 16
"""The puzzles of a chain that are kept, the hardest."""
_CHUNK = 20_000
"""Steps between two yields, about five seconds, since compiled code cannot be interrupted."""


class Harder(NamedTuple):
    """Puzzles of some chains, each chain from easy to hard.

    Attributes:
      puzzles: int8 `[num, 81]`, 0 = blank; minimal, with one solution.
      solutions: int8 `[num, 81]`.
      guesses: int64 `[num]`, as `guesses` counts.
      chains: the number of chains, of which some may have been left out.
    """

    puzzles: NDArray[np.int8]
    solutions: NDArray[np.int8]
    guesses: NDArray[np.int64]
    chains: int


def guesses(puzzles: ArrayLike) -> NDArray[np.int64]:
    """How hard puzzles are for a search.

    Args:
      puzzles: integers `[num, cells]`, 0 = blank.

    Returns:
      int64 `[num]`: the digits that the search of `puzzle.solve` tries until it knows the solution to be the only one.
      It fills in singles, and tries the digits of a cell with the fewest. 0 where singles are enough, or lead to a
      contradiction; of a puzzle with several solutions, those tried until two are found.

    Raises:
      InputError: as `puzzle.solve`.

    Example:
      from mdm_jax.tasks.sudoku.harder import guesses

      singles = "1.3434.22.4343.1"  # a 4x4 puzzle
      assert guesses([[0 if cell == "." else int(cell) for cell in singles]]) == 0
    """
    given = sudoku.checked_grids("puzzles", puzzles)
    found = np.zeros(len(given), np.int64)
    kernels.count_guesses(sudoku.units_of_cells(sudoku.size_of(given.shape[1])), given, found)
    return found


def generate_harder(chains: int, *, steps: int, seed: int = 0) -> Iterator[Harder]:
    """Makes chains of 9x9 puzzles, each puzzle of a chain harder than the one before.

    A chain begins with a puzzle of `puzzle.generate`, and keeps its solution. A step gives other cells in the place of
    about four to eight, with one solution again and no given that is not needed. It is kept if the result needs as
    many guesses as the puzzle before, or more. The puzzles that need more than all before are those of the chain, of
    which the hardest 16 are kept. Chain i depends on (seed, i, steps) only. No chain is related to the lists of
    `public_lists`; one in sixteen is on the test side, as `puzzle.in_test_split` has it.

    Args:
      chains: the number of chains.
      steps: the steps of each, at a quarter of a millisecond of one core each. 2,000 lead to about 100 guesses.
      seed: the seed, from 0 to 2^63 - 1.

    Yields:
      The puzzles of some chains, every few seconds.

    Raises:
      InputError: an argument is out of its range; raised with the first puzzles.

    Example:
      from mdm_jax.tasks.sudoku.harder import generate_harder

      (found,) = generate_harder(2, steps=10, seed=1)
      assert found.puzzles.shape == found.solutions.shape and found.guesses.max() > 0
    """
    chains, steps, seed = whole_number("chains", chains), whole_number("steps", steps), whole_number("seed", seed)
    if chains < 1:
        raise InputError(f"chains={chains}: give at least 1, the number of chains of puzzles")
    size = min(max(_CHUNK // max(steps, 1), 2), 1024)
    for first in range(0, chains, size):
        num = min(size, chains - first)
        puzzles, solutions = np.zeros((num, MOST, 81), np.int8), np.zeros((num, 81), np.int8)
        found, units = np.zeros((num, MOST), np.int64), sudoku.units_of_cells(9)
        kernels.harden(units, np.uint64(seed), np.uint64(first), steps, puzzles, solutions, found)
        is_kept = (found >= 0) & ~is_related(solutions)[:, None]
        yield Harder(puzzles[is_kept], solutions[np.nonzero(is_kept)[0]], found[is_kept], num)

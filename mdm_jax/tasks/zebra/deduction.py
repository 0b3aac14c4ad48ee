"""Solves Zebra puzzles by elimination, as people do, and records the order in which cells are filled in.

Each value starts with all houses as candidates. Each step applies the first of three rules that changes anything, at
its first instance: in the order of attributes, and then of values or houses, or in the order of clues. The next step
starts again at the first rule.

1. A value with one candidate is in that house. The cell is filled in, and the attribute's other values lose the house.
2. A house that is a candidate of only one value of an attribute has that value. The cell is filled in.
3. A clue removes from each of its terms the houses in which the clue cannot hold, wherever the other terms may be.

The rules do not guess, so some puzzles stay unsolved. To give every cell a place in the order, the house of one value
is then looked up in the solution, and the rules go on from there, as often as necessary. It is the first value with the
fewest candidates. The cells from the first such look-up on are marked.

The order of the cells in the data of Shah et al. (2024) has not been published. These rules are our own. Importing this
imports numba.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.compiled import njit, prange
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import CELLS, NONE, STRIDE, sizes_of, support


class Deduction(NamedTuple):
    """The result of the rules on N puzzles."""

    is_solved: NDArray[np.bool_]
    """[N]: whether the rules fill in every cell without a look-up"""
    order: NDArray[np.int8]
    """[N, 36]: ±1, ±2, ... in the order in which the cells were filled in, negative from the first look-up on; 0 for
    cells that the puzzle does not have"""
    filled: NDArray[np.int8]
    """[N, 36]: the grid as far as the rules fill it in without a look-up; -1 elsewhere"""


def deduce(clues: ArrayLike, solutions: ArrayLike) -> Deduction:
    """Applies the rules to each puzzle, and looks up a cell when no rule changes anything.

    Args:
      clues: integers `[num, clues, 4]`.
      solutions: integers `[num, 36]`, the solution of each puzzle.

    Returns:
      The cells that the rules fill in, and the order of all cells.

    Raises:
      InputError: a clue is invalid, a puzzle names fewer than 3 houses or attributes, or a grid does not solve it.
    """
    checked, answers = zebra.checked_solutions(clues, solutions)
    num = len(checked)
    found = Deduction(np.zeros(num, np.bool_), np.zeros((num, CELLS), np.int8), np.full((num, CELLS), NONE, np.int8))
    sizes = np.stack(sizes_of(checked), axis=1)
    _deduce_all(support(), sizes, checked, answers, found.is_solved, found.order, found.filled)
    return found


@njit(cache=True)
def _single(domains: NDArray[np.int64], houses: int, attributes: int, order: NDArray[np.int8]) -> tuple[int, int]:
    """The value and the house of the first cell that rule 1, else rule 2, fills in, as terms; -1, -1 if none."""
    for first in range(0, attributes * STRIDE, STRIDE):
        for value in range(first, first + houses):
            for house in range(houses):
                if domains[value] == 1 << house and order[first + house] == 0:
                    return value, first + house
    for first in range(0, attributes * STRIDE, STRIDE):
        for house in range(houses):
            candidate, num = -1, 0
            for value in range(first, first + houses):
                if domains[value] >> house & 1:
                    candidate = value
                    num += 1
            if num == 1 and order[first + house] == 0:
                return candidate, first + house
    return -1, -1


@njit(cache=True)
def _look_up(domains: NDArray[np.int64], houses: int, attributes: int, solution: NDArray[np.int8]) -> tuple[int, int]:
    """The first value with the fewest candidates, at least two, and its house in the solution, as terms."""
    best, fewest = -1, STRIDE + 1
    for first in range(0, attributes * STRIDE, STRIDE):
        for value in range(first, first + houses):
            num = 0
            for house in range(houses):
                num += domains[value] >> house & 1
            if 1 < num < fewest:
                best, fewest = value, num
    cell = best - best % STRIDE
    while solution[cell] != best % STRIDE:
        cell += 1
    return best, cell


@njit(cache=True)
def _strike(domains: NDArray[np.int64], support: NDArray[np.int8], clue: NDArray[np.int8]) -> bool:
    """Applies a clue to its terms. Returns whether any lost a house. `domains[-1]` is that of missing terms."""
    a, b, c = clue[1], clue[2], clue[3]
    changed = False
    for role in range(3):
        term = clue[1 + role]
        if term >= 0:
            earlier, later = b if role == 0 else a, b if role == 2 else c
            left = domains[term] & support[clue[0], role, domains[later], domains[earlier]]
            changed |= left != domains[term]
            domains[term] = left
    return changed


@njit(cache=True)
def _deduce(
    support: NDArray[np.int8],
    houses: int,
    attributes: int,
    clues: NDArray[np.int8],
    solution: NDArray[np.int8],
    order: NDArray[np.int8],
    filled: NDArray[np.int8],
) -> bool:
    """Writes one puzzle's `order` and `filled` (0 and -1 when called). Returns whether no look-up was necessary."""
    domains = np.full(CELLS + STRIDE + 1, (1 << houses) - 1)
    for number in range(STRIDE):  # the terms of houses
        domains[CELLS + number] = 1 << number
    domains[-1] = 1
    sign, num_filled = 1, 0
    while num_filled < houses * attributes:
        value, cell = _single(domains, houses, attributes, order)
        if value < 0:
            changed = False
            for i in range(len(clues)):
                if not changed and clues[i, 0] >= 0:
                    changed = _strike(domains, support, clues[i])
            if changed:
                continue
            value, cell = _look_up(domains, houses, attributes, solution)
            sign = -1
        num_filled += 1
        order[cell] = sign * num_filled
        if sign > 0:
            filled[cell] = value % STRIDE
        first, bit = cell - cell % STRIDE, 1 << cell % STRIDE
        for other in range(first, first + houses):
            domains[other] &= ~bit
        domains[value] = bit
    return sign > 0


@njit(cache=True, parallel=True)
def _deduce_all(
    support: NDArray[np.int8],
    sizes: NDArray[np.int64],
    clues: NDArray[np.int8],
    solutions: NDArray[np.int8],
    is_solved: NDArray[np.bool_],
    order: NDArray[np.int8],
    filled: NDArray[np.int8],
) -> None:
    for i in prange(len(clues)):
        houses, attributes = sizes[i]
        is_solved[i] = _deduce(support[houses], houses, attributes, clues[i], solutions[i], order[i], filled[i])

"""Rates Sudokus by seven rules that people use, and records the order in which the rules fill in the blanks.

Each step applies the first rule that changes anything, in the order of `Rule`, at its first instance: rows, then
columns, then boxes, and cells from the left and the top. The next step starts again at the first rule. Among locked
candidates of one unit, the one with the earlier first cell comes first, and with the same first cell the lower digit.

The rules do not guess, so some puzzles stay unsolved: 36% of random minimal 9x9 puzzles. The solved puzzles are the
paper's normal set, the others its hard set.

Source: Kim et al. 2025 (section 4, D.2) and Shah et al. 2024 (arXiv:2409.10502), who describe the solver they used.
Deviation: in that solver an XY-wing can have an end for a pivot. It then drops a correct digit and gives up, and 38% of
the puzzles stay unsolved. Here the XY-wing is sound. Without XY-wings the order of the steps is the same.

Importing this imports numba.
"""

import enum
import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.compiled import njit, prange
from mdm_jax.tasks.sudoku import puzzle as sudoku


class Rule(enum.IntEnum):
    """The rules, easiest first, with their numbers in the files of Shah et al."""

    GIVEN = 0
    LONE_SINGLE = 2
    """a cell with one candidate"""
    HIDDEN_SINGLE = 3
    """a digit with one cell in a unit"""
    NAKED_PAIR = 4
    """two cells of a unit with the same two candidates: cells that see both lose them"""
    NAKED_TRIPLET = 5
    """three cells of a unit that have three candidates together, at least two of the cells with the same candidates:
    cells that see all three lose them"""
    LOCKED_CANDIDATE = 6
    """a digit with exactly two cells in a unit: cells that see both lose it"""
    XY_WING = 7
    """a pivot xy that sees cells xz and yz: cells that see both of these lose z"""
    UNIQUE_RECTANGLE = 8
    """three corners of a rectangle in two boxes that hold the same two candidates: the fourth loses them"""


class Rating(NamedTuple):
    """The result of the rules on N puzzles."""

    is_solved: NDArray[np.bool_]
    """[N]: whether the rules fill in every blank"""
    order: NDArray[np.int8]
    """[N, cells]: 1, 2, ... in the order in which the blanks were filled in; 0 for givens; -1 for cells left blank"""
    rule: NDArray[np.int8]
    """[N, cells]: the hardest `Rule` used since the last cell was filled in; `GIVEN` for givens and cells left blank"""
    filled: NDArray[np.int8]
    """[N, cells]: the grid, with givens, as far as the rules fill it in; 0 for cells left blank"""

    @property
    def hardest(self) -> NDArray[np.int8]:
        """[N]: the hardest rule of any cell."""
        return self.rule.max(axis=1)


def rate(puzzles: ArrayLike) -> Rating:
    """Applies the rules to each puzzle until it is solved or no rule applies.

    Args:
      puzzles: integers `[num, cells]`, 0 = blank. Each must have exactly one solution, which the last rule relies on.

    Returns:
      The rating.

    Raises:
      InputError: the array is not of integers `[num, 16 | 36 | 81]` from 0 to size.
    """
    given = sudoku.checked_grids("puzzles", puzzles)
    size = sudoku.size_of(given.shape[1])
    rating = Rating(np.zeros(len(given), np.bool_), np.zeros_like(given), np.zeros_like(given), given.copy())
    _rate_all(sudoku.units_of_cells(size), sudoku.cells_of_units(size), _sees(size), given, *rating)
    return rating


@functools.cache
def _sees(size: int) -> NDArray[np.bool_]:
    """Whether two different cells share a unit, bool `[cells, cells]`."""
    units = sudoku.units_of_cells(size)
    sees: NDArray[np.bool_] = (units[:, None] == units[None]).any(axis=2)
    np.fill_diagonal(sees, False)
    return sees


_POPCOUNT = np.array([digits.bit_count() for digits in range(1 << 9)], np.int64)
_MAX_CANDIDATES = 9


@njit(cache=True)
def _place(left: NDArray[np.int64], sees: NDArray[np.bool_], cell: int, bit: int) -> None:
    """Fills in a cell: its candidates are removed, and the cells that see it lose the digit."""
    left[cell] = 0
    for other in range(len(left)):
        if sees[cell, other]:
            left[other] &= ~bit


@njit(cache=True)
def _strip(left: NDArray[np.int64], sees: NDArray[np.bool_], a: int, b: int, c: int, bits: int) -> bool:
    """Removes digits from the cells that see all of a, b and c, which may be equal. Returns whether any changed."""
    changed = False
    for cell in range(len(left)):
        if left[cell] & bits and sees[a, cell] and sees[b, cell] and sees[c, cell]:
            left[cell] &= ~bits
            changed = True
    return changed


@njit(cache=True)
def _lone_single(left: NDArray[np.int64]) -> int:
    """The first cell with one candidate, or -1."""
    for cell in range(len(left)):
        if _POPCOUNT[left[cell]] == 1:
            return cell
    return -1


@njit(cache=True)
def _hidden_single(left: NDArray[np.int64], cells: NDArray[np.int64]) -> tuple[int, int]:
    """The first cell that is the only one of its unit for a digit, and the digit's bit; (-1, 0) if there is none."""
    for unit in range(len(cells)):
        once, twice = 0, 0
        for cell in cells[unit]:
            twice |= once & left[cell]
            once |= left[cell]
        single = once & ~twice
        if single:
            for cell in cells[unit]:
                bit = left[cell] & single
                if bit:
                    return cell, bit & -bit
    return -1, 0


@njit(cache=True)
def _naked_pair(left: NDArray[np.int64], cells: NDArray[np.int64], sees: NDArray[np.bool_]) -> bool:
    for unit in range(len(cells)):
        for i in range(cells.shape[1]):
            a = cells[unit, i]
            if _POPCOUNT[left[a]] != 2:
                continue
            for j in range(i + 1, cells.shape[1]):
                b = cells[unit, j]
                if left[a] == left[b] and _strip(left, sees, a, b, b, left[a]):
                    return True
    return False


@njit(cache=True)
def _naked_triplet(left: NDArray[np.int64], cells: NDArray[np.int64], sees: NDArray[np.bool_]) -> bool:
    members = np.zeros(_MAX_CANDIDATES, np.int64)
    for unit in range(len(cells)):
        for i in range(cells.shape[1]):
            wanted = left[cells[unit, i]]
            if not 2 <= _POPCOUNT[wanted] <= 3:
                continue
            equal, found, values = 0, 0, 0
            for cell in cells[unit]:
                equal += left[cell] == wanted
                if left[cell] and _POPCOUNT[left[cell] | wanted] <= 3:
                    members[found] = cell
                    found += 1
                    values |= left[cell]
            is_triplet = 2 <= equal <= 3 and found == 3 and _POPCOUNT[values] == 3
            if is_triplet and _strip(left, sees, members[0], members[1], members[2], values):
                return True
    return False


@njit(cache=True)
def _locked_candidate(left: NDArray[np.int64], cells: NDArray[np.int64], sees: NDArray[np.bool_]) -> bool:
    for unit in range(len(cells)):
        once, twice, more = 0, 0, 0
        for cell in cells[unit]:
            more |= twice & left[cell]
            twice |= once & left[cell]
            once |= left[cell]
        for i in range(cells.shape[1]):
            a = cells[unit, i]
            bits = left[a] & twice & ~more
            while bits:
                bit = bits & -bits
                bits ^= bit
                for j in range(i + 1, cells.shape[1]):
                    b = cells[unit, j]
                    if left[b] & bit and _strip(left, sees, a, b, b, bit):
                        return True
    return False


@njit(cache=True)
def _xy_wing(left: NDArray[np.int64], sees: NDArray[np.bool_]) -> bool:
    for pivot in range(len(left)):
        if _POPCOUNT[left[pivot]] != 2:
            continue
        for a in range(len(left)):
            is_wing = sees[pivot, a] and _POPCOUNT[left[a]] == 2 and _POPCOUNT[left[a] & left[pivot]] == 1
            if not is_wing:
                continue
            z = left[a] & ~left[pivot]
            wanted = z | (left[pivot] & ~left[a])
            for b in range(a + 1, len(left)):
                if sees[pivot, b] and left[b] == wanted and _strip(left, sees, a, b, b, z):
                    return True
    return False


@njit(cache=True)
def _unique_rectangle(left: NDArray[np.int64], units: NDArray[np.uint8]) -> bool:
    cells, size = len(left), units[0, 1]
    for a in range(cells):
        pair = left[a]
        if _POPCOUNT[pair] != 2:
            continue
        for b in range(cells):
            if b == a or units[b, 0] != units[a, 0] or left[b] != pair:
                continue
            for c in range(cells):
                is_corner = c != a and units[c, 1] == units[a, 1] and left[c] == pair
                in_two_boxes = (units[a, 2] == units[b, 2]) != (units[a, 2] == units[c, 2])
                if not (is_corner and in_two_boxes):
                    continue
                d = units[c, 0] * size + units[b, 1] - size
                if left[d] & pair:
                    left[d] &= ~pair
                    return True
    return False


@njit(cache=True)
def _rate(
    units: NDArray[np.uint8],
    cells: NDArray[np.int64],
    sees: NDArray[np.bool_],
    puzzle: NDArray[np.int8],
    order: NDArray[np.int8],
    rule: NDArray[np.int8],
    filled: NDArray[np.int8],
) -> bool:
    """Rates one puzzle into `order`, `rule` and `filled`. Returns whether it was solved."""
    left = np.full(len(puzzle), (1 << cells.shape[1]) - 1)
    for cell in range(len(puzzle)):
        if puzzle[cell]:
            _place(left, sees, cell, 1 << (puzzle[cell] - 1))
    num_blanks, num_filled, hardest = (puzzle == 0).sum(), 0, 0
    order[:] = np.where(puzzle == 0, -1, 0)
    while num_filled < num_blanks:
        cell, used = _lone_single(left), 2
        bit = left[cell]
        if cell < 0:
            cell, bit = _hidden_single(left, cells)
            used = 3
        if cell >= 0:
            _place(left, sees, cell, bit)
            num_filled += 1
            order[cell], rule[cell], filled[cell] = num_filled, max(hardest, used), _POPCOUNT[bit - 1] + 1
            hardest = 0
            continue
        if _naked_pair(left, cells, sees):
            used = 4
        elif _naked_triplet(left, cells, sees):
            used = 5
        elif _locked_candidate(left, cells, sees):
            used = 6
        elif _xy_wing(left, sees):
            used = 7
        elif _unique_rectangle(left, units):
            used = 8
        else:
            return False
        hardest = max(hardest, used)
    return True


@njit(cache=True, parallel=True)
def _rate_all(
    units: NDArray[np.uint8],
    cells: NDArray[np.int64],
    sees: NDArray[np.bool_],
    puzzles: NDArray[np.int8],
    is_solved: NDArray[np.bool_],
    order: NDArray[np.int8],
    rule: NDArray[np.int8],
    filled: NDArray[np.int8],
) -> None:
    for i in prange(len(puzzles)):
        is_solved[i] = _rate(units, cells, sees, puzzles[i], order[i], rule[i], filled[i])

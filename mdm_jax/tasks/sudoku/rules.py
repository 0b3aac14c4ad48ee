"""Rates Sudokus by the seven rules that a person would use, and tells in which order they fill in the blanks.

Each step takes the first rule, in the order of `Rule`, and its first instance, in the order rows, columns, boxes and
cells from the left and the top, that changes anything; after it the search starts again at the first rule. Of locked
candidates in one unit the one that begins in the earlier cell goes first; of two that begin in the same cell the lower
digit, wherever its other cell is. There is no guessing, so some puzzles stay unsolved: of random minimal 9x9 ones 36%.
Those that are solved are the paper's normal set, the rest its hard set. Importing this compiles with numba; source of
the rules' exact form: the description in Kim et al. 2025 (section 4, D.2) and Shah et al. 2024 (arXiv:2409.10502) of
the solver they used. Deviation: that solver's XY-wing can take an end for the pivot; it then drops a right digit and
gives up, so that 38% stay unsolved. Here it is sound. Where no XY-wing comes in, the order of the steps is the same.
"""

import enum
import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.compiled import njit, prange
from mdm_jax.tasks.sudoku import puzzle as sudoku


class Rule(enum.IntEnum):
    """The rules, easiest first, under the numbers that Shah et al.'s files give them."""

    GIVEN = 0
    LONE_SINGLE = 2
    """a cell with one candidate"""
    HIDDEN_SINGLE = 3
    """a digit with one place in a unit"""
    NAKED_PAIR = 4
    """two cells of a unit with the same two candidates: cells that see both lose them"""
    NAKED_TRIPLET = 5
    """three cells of a unit with three candidates among them, two of the cells having equal ones"""
    LOCKED_CANDIDATE = 6
    """a digit with exactly two places in a unit: cells that see both lose it"""
    XY_WING = 7
    """a pivot xy that sees cells xz and yz: cells that see both of these lose z"""
    UNIQUE_RECTANGLE = 8
    """three corners of a rectangle in two boxes that hold the same two candidates: the fourth loses them"""


class Rating(NamedTuple):
    """What the rules make of N puzzles."""

    is_solved: NDArray[np.bool_]
    """[N]: whether the rules alone fill in every blank"""
    order: NDArray[np.int8]
    """[N, cells]: 1, 2, ... in the order in which the blanks fell; 0 where given; -1 where the rules gave up"""
    rule: NDArray[np.int8]
    """[N, cells]: the hardest `Rule` used since the blank before fell; `GIVEN` where given or never filled in"""
    filled: NDArray[np.int8]
    """[N, cells]: the grid as far as the rules get, givens included; 0 where they gave up"""

    @property
    def hardest(self) -> NDArray[np.int8]:
        """[N]: the hardest rule behind any blank that fell."""
        return self.rule.max(axis=1)


def rate(puzzles: ArrayLike) -> Rating:
    """Applies the rules to each puzzle until it is solved or none of them applies.

    Args:
      puzzles: integers `[num, cells]`, 0 = blank; each with exactly one solution, which the last rule relies on.

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
    """Which cells share a unit, bool `[cells, cells]`; no cell with itself."""
    units = sudoku.units_of_cells(size)
    sees: NDArray[np.bool_] = (units[:, None] == units[None]).any(axis=2)
    np.fill_diagonal(sees, False)
    return sees


_POPCOUNT = np.array([digits.bit_count() for digits in range(1 << 9)], np.int64)
_MAX_CANDIDATES = 9


@njit(cache=True)
def _place(left: NDArray[np.int64], sees: NDArray[np.bool_], cell: int, bit: int) -> None:
    """Fills a cell in: it has no candidates any more, and those that see it lose the digit."""
    left[cell] = 0
    for other in range(len(left)):
        if sees[cell, other]:
            left[other] &= ~bit


@njit(cache=True)
def _strip(left: NDArray[np.int64], sees: NDArray[np.bool_], a: int, b: int, c: int, bits: int) -> bool:
    """Takes digits from the cells that see all of a, b and c (which may be equal); whether that changed anything."""
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
    """The first cell of the first unit that is the only place of a digit there, and its bit; (-1, 0) if none is."""
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
    """Rates one puzzle into `order`, `rule` and `filled`; whether it was solved."""
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

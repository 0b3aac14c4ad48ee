"""The compiled part of `puzzle`: one search makes full grids, empties cells and solves.

A digit d is the bit `1 << (d - 1)`, so a set of digits is an integer. A board's `order` is a permutation of its cells
with the filled cells first. It lists the empty cells, and it is the trail along which the search retreats.

Two limits of numba shape this file. Recursive functions crash when they come from its cache, so the search keeps its
own stack. A cached function does not notice when a function of another file changes, so all code that may change is in
this file.
"""

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.compiled import njit, prange
from mdm_jax.data.splitmix import GOLDEN, draw, mix

_POPCOUNT = np.array([digits.bit_count() for digits in range(1 << 9)], np.int64)
_ZERO, _ONE = cast(int, np.int64(0)), cast(int, np.int64(1))  # a plain literal would compile the search again
_TEST_SHARE = np.uint64(16)  # one grid in sixteen


class _Board(NamedTuple):
    """A partly filled grid with the scratch space of its search."""

    full: int  # the set of all digits
    units: NDArray[np.uint8]  # [cells, 3], the row, column and box of each cell, with consecutive numbers
    order: NDArray[np.uint8]  # [cells], a permutation of the cells, the filled ones first
    placed: NDArray[np.int64]  # [cells], the digit of each filled cell
    used: NDArray[np.int64]  # [3 * size], the digits in each unit
    once: NDArray[np.int64]  # [3 * size], scratch: the digits with a possible cell in the unit
    twice: NDArray[np.int64]  # [3 * size], scratch: the digits with several, later the hidden singles
    marks: NDArray[np.int64]  # [cells], the search's stack: the position of the cell that was branched on,
    choices: NDArray[np.int64]  # [cells], and the digits not yet tried there
    solution: NDArray[np.int64]  # [cells], the first solution found, a bit for each cell
    guesses: NDArray[np.int64]  # [1], the digits that the search has tried
    state: NDArray[np.uint64]  # [1], the random generator


@njit(cache=True)
def _empty_board(units: NDArray[np.uint8], state: np.uint64) -> _Board:
    cells, num_units = len(units), units[-1, 2] + 1
    return _Board(
        full=(1 << num_units // 3) - 1,
        units=units,
        order=np.arange(cells).astype(np.uint8),
        placed=np.zeros(cells, np.int64),
        used=np.zeros(num_units, np.int64),
        once=np.zeros(num_units, np.int64),
        twice=np.zeros(num_units, np.int64),
        marks=np.zeros(cells, np.int64),
        choices=np.zeros(cells, np.int64),
        solution=np.zeros(cells, np.int64),
        guesses=np.zeros(1, np.int64),
        state=np.full(1, state),
    )


@njit(cache=True)
def _shuffle(board: _Board) -> None:
    order = board.order
    for i in range(len(order) - 1, 0, -1):
        j = draw(board.state, i + 1)
        order[i], order[j] = order[j], order[i]


@njit(cache=True)
def _line_signature(digits: NDArray[np.int8], size: int, band: int, across: int, along: int) -> np.uint64:
    """A hash that is invariant under the symmetries of the lines. It sums over all pairs of lines.

    Two lines, read side by side, define a permutation of the digits. The lengths of its cycles do not change when
    digits are renamed or the cells of both lines are moved. Nor does it change whether the lines share a band.
    """
    total, renamed = np.uint64(0), np.zeros(size + 1, np.int64)
    for a in range(size):
        for b in range(a + 1, size):
            for i in range(size):
                renamed[digits[a * across + i * along]] = digits[b * across + i * along]
            cycles = np.uint64(a // band == b // band)
            for start in range(1, size + 1):
                length, digit = 0, start
                while renamed[digit]:
                    renamed[digit], digit = 0, renamed[digit]
                    length += 1
                cycles += mix(np.uint64(length))
            total += mix(cycles)
    return total


@njit(cache=True)
def class_hash(digits: NDArray[np.int8]) -> np.uint64:
    """A hash of a full 9x9 grid, the same for all grids that a symmetry relates. It must never change."""
    return mix(_line_signature(digits, 9, 3, 9, 1)) + mix(_line_signature(digits, 9, 3, 1, 9))


@njit(cache=True)
def is_test(digits: NDArray[np.int8]) -> bool:
    """Whether a full grid is on the test side. This must never change, or grids would change sides.

    At 9x9, grids that are related by a symmetry are on the same side. The smaller sizes have too few classes of grids
    for that (2 and 49), so there the hash is of the grid itself.
    """
    h = np.uint64(0)
    if len(digits) == 81:
        return mix(class_hash(digits)) % _TEST_SHARE == np.uint64(0)
    for digit in digits:
        h = mix(h + np.uint64(digit))
    return h % _TEST_SHARE == np.uint64(0)


@njit(cache=True)
def _candidates(board: _Board, cell: int) -> int:
    units, used = board.units, board.used
    return board.full & ~(used[units[cell, 0]] | used[units[cell, 1]] | used[units[cell, 2]])


@njit(cache=True)
def _toggle(board: _Board, cell: int, bit: int) -> None:
    """Adds a digit to the three units of a cell, or removes it."""
    for kind in range(3):
        board.used[board.units[cell, kind]] ^= bit


@njit(cache=True)
def _fill(board: _Board, position: int, filled: int, bit: int) -> int:
    """Puts a digit into the empty cell at `order[position]`; returns the new number of filled cells."""
    order = board.order
    order[position], order[filled] = order[filled], order[position]
    board.placed[order[filled]] = bit
    _toggle(board, order[filled], bit)
    return filled + 1


@njit(cache=True)
def _retreat(board: _Board, filled: int, mark: int) -> int:
    """Empties the cells `order[mark:filled]`; returns the new number of filled cells."""
    for position in range(mark, filled):
        cell = board.order[position]
        _toggle(board, cell, board.placed[cell])
    return mark


@njit(cache=True)
def _save(board: _Board) -> None:
    for cell in range(len(board.placed)):  # an assignment of slices would take numba seconds to compile
        board.solution[cell] = board.placed[cell]


@njit(cache=True)
def _write_digits(bits: NDArray[np.int64], digits: NDArray[np.int8]) -> None:
    for cell in range(len(bits)):
        digits[cell] = _POPCOUNT[bits[cell] - 1] + 1


@njit(cache=True)
def _propagate(board: _Board, filled: int) -> tuple[int, int]:
    """Fills naked singles (a cell with one candidate) and hidden singles (a digit with one cell) until none is left.

    Args:
      board: the board, changed in place.
      filled: the number of filled cells.

    Returns:
      The number of filled cells, and the index in `order` of the empty cell with the fewest candidates. The index is
      the number of cells if the grid is full, and -1 if a cell has no candidate or a digit no cell.
    """
    full, units, order, used, once, twice = board.full, board.units, board.order, board.used, board.once, board.twice
    cells = len(order)
    while filled < cells:
        start, fewest, branch = filled, 10, -1
        once[:] = 0
        twice[:] = 0
        for position in range(filled, cells):
            cell = order[position]
            candidates = _candidates(board, cell)
            if candidates & (candidates - 1) == 0:
                if candidates == 0:
                    return filled, -1
                filled = _fill(board, position, filled, candidates)
                continue
            for kind in range(3):
                unit = units[cell, kind]
                twice[unit] |= once[unit] & candidates
                once[unit] |= candidates
            if _POPCOUNT[candidates] < fewest:
                fewest, branch = _POPCOUNT[candidates], position
        # A cell that was visited before a later cell was filled may have had too many candidates, never too few. So a
        # digit without a cell is a contradiction, and a digit with one cell belongs there, unless its unit has it now.
        hidden, any_hidden = twice, 0
        for unit in range(len(used)):
            if once[unit] | used[unit] != full:
                return filled, -1
            hidden[unit] = once[unit] & ~(twice[unit] | used[unit])
            any_hidden |= hidden[unit]
        if any_hidden:
            for position in range(filled, cells):
                cell = order[position]
                singles = hidden[units[cell, 0]] | hidden[units[cell, 1]] | hidden[units[cell, 2]]
                single = singles & _candidates(board, cell)
                if single:
                    filled = _fill(board, position, filled, single & -single)
        if filled == start:
            return filled, branch
    return filled, cells


@njit(cache=True)
def _search(board: _Board, filled: int, choices: int, limit: int) -> int:
    """Counts the solutions in which the first empty cell holds one of `choices`. Tries digits in random order.

    Args:
      board: the board. `solution` receives the first solution. The rest is restored, except that the empty cells after
        the first may have another order.
      filled: the number of filled cells; the first empty one is `order[filled]`.
      choices: the digits allowed there, a subset of its candidates.
      limit: where to stop counting.

    Returns:
      The number of solutions, at most `limit`.
    """
    base, depth, found = filled, 0, 0
    board.marks[0], board.choices[0] = filled, choices
    while depth >= 0:
        filled = _retreat(board, filled, board.marks[depth])
        left = board.choices[depth]
        if left == 0:
            depth -= 1
            continue
        rest = left
        for _ in range(draw(board.state, _POPCOUNT[left])):
            rest &= rest - 1
        bit = rest & -rest
        board.choices[depth] = left ^ bit
        board.guesses[0] += 1
        filled, branch = _propagate(board, _fill(board, filled, filled, bit))
        if branch == len(board.order):
            if found == 0:
                _save(board)
            found += 1
            if found == limit:
                break
        elif branch >= 0:
            depth += 1
            board.order[branch], board.order[filled] = board.order[filled], board.order[branch]
            board.marks[depth], board.choices[depth] = filled, _candidates(board, board.order[filled])
    _retreat(board, filled, base)
    return found


@njit(cache=True)
def _dig(board: _Board, solution: NDArray[np.int64], clues: int) -> int:
    """Empties cells of a full grid, from the end of `order`, as long as the solution stays unique.

    `order` then holds the cells that must stay, those not tried yet, and the empty ones. A cell that must stay changes
    places with the first one that is not tried, which is the next to be tried. A cell may be emptied if and only if no
    solution has another digit there, so the search looks only for such a solution.

    Args:
      board: the board, changed in place.
      solution: the full grid, as bits.
      clues: the number of givens to stop at; 0 for a minimal puzzle.

    Returns:
      The number of givens that are left. They come first in `order`.
    """
    board.used[:] = board.full
    kept, filled = 0, len(board.order)
    while kept < filled and filled > clues:
        cell = board.order[filled - 1]
        bit = solution[cell]
        _toggle(board, cell, bit)
        if _search(board, filled - 1, _candidates(board, cell) & ~bit, _ONE) == 0:
            filled -= 1
            continue
        _toggle(board, cell, bit)
        board.order[filled - 1], board.order[kept] = board.order[kept], cell
        kept += 1
    return filled


@njit(cache=True)
def _make(board: _Board, clues: int, side: int, attempts: int, puzzle: NDArray[np.int8], grid: NDArray[np.int8]) -> int:
    """Writes one puzzle into `puzzle` and `grid`. Returns the fewest givens reached, `clues` unless it gave up."""
    fewest = len(board.order) + 1
    for _ in range(attempts):
        is_done = False
        while not is_done:
            board.used[:] = 0
            _shuffle(board)
            _search(board, _ZERO, board.full, _ONE)
            _write_digits(board.solution, grid)
            is_done = side < 0 or is_test(grid) == (side == 1)
        _shuffle(board)
        givens = _dig(board, board.solution.copy(), clues)
        if givens < fewest:
            fewest = givens
        if clues == 0 or givens == clues:
            for cell in board.order[:givens]:
                puzzle[cell] = grid[cell]
            break
    return fewest


@njit(cache=True, parallel=True)
def generate(
    units: NDArray[np.uint8],
    seed: np.uint64,
    first: np.uint64,
    clues: int,
    side: int,
    attempts: int,
    puzzles: NDArray[np.int8],
    solutions: NDArray[np.int8],
    fewest: NDArray[np.int64],
) -> None:
    """Makes puzzles in parallel. Each has its own random generator, so the number of threads does not matter.

    Args:
      units: uint8 `[cells, 3]`, the units of each cell.
      seed: the seed of all puzzles.
      first: the number of the first puzzle.
      clues: the number of givens; 0 for minimal puzzles.
      side: 0 for train, 1 for test, -1 for either.
      attempts: the number of grids to try for one puzzle.
      puzzles: int8 `[num, cells]`, zeros when called; receives the puzzles.
      solutions: int8 `[num, cells]`; receives the full grids.
      fewest: int64 `[num]`; receives the fewest givens that the attempts at each puzzle reached.
    """
    for i in prange(len(puzzles)):
        board = _empty_board(units, mix(mix(seed + GOLDEN) + first + np.uint64(i)))
        fewest[i] = _make(board, clues, side, attempts, puzzles[i], solutions[i])


@njit(cache=True)
def _solve(board: _Board, puzzle: NDArray[np.int8], limit: int) -> int:
    """Counts the solutions of one puzzle up to `limit`; `board.solution` receives the first."""
    cells, filled = len(puzzle), _ZERO
    for cell in range(cells):
        if puzzle[cell]:
            bit = 1 << (puzzle[cell] - 1)
            if _candidates(board, cell) & bit == 0:
                return 0
            filled = _fill(board, cell, filled, bit)  # order[cell] is still cell: only earlier entries were swapped
    filled, branch = _propagate(board, filled)
    if branch < 0:
        return 0
    if branch == cells:
        _save(board)
        return 1
    board.order[branch], board.order[filled] = board.order[filled], board.order[branch]
    return _search(board, filled, _candidates(board, board.order[filled]), limit)


@njit(cache=True)
def _guesses(board: _Board, puzzle: NDArray[np.int8]) -> int:
    """The digits that the search tries until it knows the solution to be the only one, 0 if singles solve it."""
    for cell in range(len(puzzle)):
        board.order[cell] = cell
    board.used[:] = 0
    board.guesses[0] = 0
    state, board.state[0] = board.state[0], np.uint64(0)  # so that the number is one of the puzzle alone
    _solve(board, puzzle, 2)
    board.state[0] = state
    return board.guesses[0]


@njit(cache=True)
def _give(grid: NDArray[np.int8], givens: NDArray[np.uint8], puzzle: NDArray[np.int8]) -> None:
    """Writes the puzzle with these givens."""
    puzzle[:] = 0
    for cell in givens:
        puzzle[cell] = grid[cell]


@njit(cache=True)
def _climb(
    board: _Board, steps: int, grid: NDArray[np.int8], puzzles: NDArray[np.int8], guesses: NDArray[np.int64]
) -> None:
    """Makes a minimal puzzle harder in small steps; writes each one that needs more guesses than all before.

    A step empties the full grid anew: first one to three of the givens, then other cells, as `_dig` does, which loses
    four to eight of the givens. It is kept if the puzzle needs as many guesses as before, or more. Only the hardest
    stay if there are more than fit.

    Args:
      board: the board; only its random generator matters.
      steps: the number of steps.
      grid: int8 `[cells]`, the solution of all.
      puzzles: int8 `[most, cells]`; the first is the minimal puzzle.
      guesses: int64 `[most]`; receives the guesses that each puzzle needs.
    """
    solution, found, most = np.zeros(len(grid), np.int64), 1, len(puzzles)
    for cell in range(len(grid)):
        solution[cell] = 1 << (grid[cell] - 1)
    here, there = puzzles[0].copy(), puzzles[0].copy()
    level = guesses[0] = _guesses(board, here)
    for _ in range(steps):
        # In `order` givens come first, but those to take out last of all: `_dig` empties these before all others.
        front, back, out = 0, len(here), 1 + draw(board.state, 3)
        for cell in range(len(here)):
            board.order[cell] = cell
        _shuffle(board)
        shuffled = board.order.copy()
        for cell in shuffled:
            if here[cell] and out:
                out -= 1
                back -= 1
                board.order[back] = cell
            elif here[cell]:
                board.order[front] = cell
                front += 1
        for cell in shuffled:
            if not here[cell]:
                board.order[front] = cell
                front += 1
        _give(grid, board.order[: _dig(board, solution, 0)], there)
        needed = _guesses(board, there)
        if needed >= level:
            here[:] = there
            if needed > level:
                if found == most:
                    puzzles[:-1] = puzzles[1:].copy()
                    guesses[:-1] = guesses[1:].copy()
                    found -= 1
                puzzles[found], guesses[found] = there, needed
                found += 1
            level = needed


@njit(cache=True, parallel=True)
def harden(
    units: NDArray[np.uint8],
    seed: np.uint64,
    first: np.uint64,
    steps: int,
    puzzles: NDArray[np.int8],
    solutions: NDArray[np.int8],
    guesses: NDArray[np.int64],
) -> None:
    """Makes chains of ever harder puzzles in parallel; see `harder.generate_harder`.

    Args:
      units: as for `generate`.
      seed: as for `generate`.
      first: the number of the first chain.
      steps: the number of steps of each chain.
      puzzles: int8 `[chains, most, cells]`, zeros when called; receives the puzzles of each chain.
      solutions: int8 `[chains, cells]`; receives the one grid of each chain.
      guesses: int64 `[chains, most]`; receives what they need, -1 where there is no puzzle.
    """
    for i in prange(len(puzzles)):
        board = _empty_board(units, mix(mix(seed + GOLDEN) + first + np.uint64(i)))
        _make(board, 0, -1, 1, puzzles[i, 0], solutions[i])
        guesses[i, :] = -1
        _climb(board, steps, solutions[i], puzzles[i], guesses[i])


@njit(cache=True, parallel=True)
def count_guesses(units: NDArray[np.uint8], puzzles: NDArray[np.int8], guesses: NDArray[np.int64]) -> None:
    """Writes the digits that the search tries in each puzzle of `puzzles` into `guesses`."""
    for i in prange(len(puzzles)):
        guesses[i] = _guesses(_empty_board(units, np.uint64(0)), puzzles[i])


@njit(cache=True, parallel=True)
def solve(
    units: NDArray[np.uint8],
    puzzles: NDArray[np.int8],
    limit: int,
    solutions: NDArray[np.int8],
    num_solutions: NDArray[np.int32],
) -> None:
    """Solves puzzles in parallel into `solutions` (zeros when called) and `num_solutions`; see `puzzle.solve`."""
    for i in prange(len(puzzles)):
        board = _empty_board(units, np.uint64(0))
        num_solutions[i] = _solve(board, puzzles[i], limit)
        if num_solutions[i] > 0:
            _write_digits(board.solution, solutions[i])

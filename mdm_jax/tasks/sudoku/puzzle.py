"""Generates, solves and checks Sudoku puzzles of three sizes. NumPy in, NumPy out.

A puzzle is a row-major int8 vector of size * size cells: 0 for a blank, digits 1 to size. Sizes are 4 (boxes of 2 x 2),
6 (boxes of 2 rows x 3 columns) and 9 (boxes of 3 x 3). The compiled search is in `kernels`.
"""

import functools
import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.checks import Split, side_of, whole_number
from mdm_jax.errors import InputError

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, for each size of grid."""

GENERATOR_VERSION = 2
"""Increase it when `generate` gives other puzzles for the same arguments. The names of prepared data contain it."""

_FEWEST_CLUES = {4: 4, 6: 8, 9: 17}  # puzzles with fewer givens have several solutions (9: McGuire et al. 2012)
_EASY_CLUES = {4: 5, 6: 11, 9: 25}  # most grids can be reduced to these
_ATTEMPTS = 4096
_CHUNK = 1024


def check_size(size: int) -> int:
    """Returns the size, or raises InputError unless it is 4, 6 or 9."""
    if size not in BOXES:
        raise InputError(f"size={size!r} is not supported: choose one of 4, 6 and 9")
    return int(size)


def check_clues(clues: int | None, size: int) -> int | None:
    """Returns the number of givens; raises InputError if no puzzle of this size has it. None means minimal."""
    if clues is None or _FEWEST_CLUES[size] <= whole_number("clues", clues) <= size**2:
        return clues
    raise InputError(
        f"clues={clues}: {size}x{size} puzzles with one solution have {_FEWEST_CLUES[size]} to {size**2} givens; "
        f"choose from these, or None for minimal puzzles"
    )


def size_of(cells: int) -> int:
    """The size of the grid with a number of cells: 4, 6 or 9.

    Raises:
      InputError: the number is not 16, 36 or 81.
    """
    for size in BOXES:
        if size * size == cells:
            return size
    raise InputError(f"a puzzle of {cells} cells is not supported: it must have 16, 36 or 81")


@functools.cache
def units_of_cells(size: int) -> NDArray[np.uint8]:
    """Numbers the units: rows from 0, columns from `size`, boxes from `2 * size`.

    Args:
      size: 4, 6 or 9.

    Returns:
      uint8 `[size * size, 3]`, read-only: the row, column and box of each cell.
    """
    box_rows, box_columns = BOXES[check_size(size)]
    row, column = np.divmod(np.arange(size * size), size)
    box = row // box_rows * (size // box_columns) + column // box_columns
    units = np.stack([row, size + column, 2 * size + box], axis=1).astype(np.uint8)
    units.flags.writeable = False
    return units


@functools.cache
def cells_of_units(size: int) -> NDArray[np.int64]:
    """Lists the cells of each unit: the rows, then the columns, then the boxes.

    Args:
      size: 4, 6 or 9.

    Returns:
      int64 `[3 * size, size]`, read-only.
    """
    units = units_of_cells(size)
    cells = np.stack([np.flatnonzero((units == unit).any(axis=1)) for unit in range(3 * size)])
    cells.flags.writeable = False
    return cells


def generate(
    num: int,
    *,
    size: int = 9,
    clues: int | None = None,
    seed: int = 0,
    split: Split | None = None,
    first: int = 0,
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Makes random puzzles with exactly one solution.

    A randomised search makes a full grid. Every grid has a positive probability, but grids are not equally likely. The
    cells are then emptied in random order, unless another solution would appear, down to `clues` givens or, with None,
    until every given is needed. Puzzle i depends on (seed, first + i, size, clues, split) only, and not on `num` or the
    number of threads.

    Args:
      num: the number of puzzles.
      size: 4, 6 or 9.
      clues: the exact number of givens, or None for minimal puzzles.
      seed: the seed, from 0 to 2^63 - 1.
      split: "train", "test", or None for both. Train and test never share a grid, whatever the other arguments. At 9x9
        no symmetry relates a train grid to a test grid. See `in_test_split`.
      first: the index of the first puzzle.

    Returns:
      The puzzles and their solutions, each int8 `[num, size * size]`.

    Raises:
      InputError: an argument is out of its range, or no puzzle with so few clues was found in 4,096 attempts.
    """
    cells = check_size(size) ** 2
    num, seed, first = whole_number("num", num), whole_number("seed", seed), whole_number("first", first)
    side = side_of(split)
    clues = check_clues(clues, size)
    from mdm_jax.tasks.sudoku import kernels as sudoku_kernels

    puzzles, solutions = np.zeros((num, cells), np.int8), np.zeros((num, cells), np.int8)
    fewest = np.zeros(num, np.int64)
    # In chunks, since compiled code cannot be interrupted. The first is a single puzzle, so that failures come soon.
    bounds = [0, *range(min(num, 1), num, _CHUNK), num]
    for start, stop in itertools.pairwise(bounds):
        here = slice(start, stop)
        sudoku_kernels.generate(
            units_of_cells(size),
            np.uint64(seed),
            np.uint64(first + start),
            clues or 0,
            side,
            _ATTEMPTS,
            puzzles[here],
            solutions[here],
            fewest[here],
        )
        if clues is not None and (fewest[here] > clues).any():
            i = start + int(np.argmax(fewest[here] > clues))
            raise InputError(
                f"clues={clues}: {_ATTEMPTS} attempts at puzzle {first + i} came down to {fewest[i]} givens at best; "
                f"ask for {max(_EASY_CLUES[size], clues + 1)} or more, or for None (minimal puzzles)"
            )
    return puzzles, solutions


def solve(puzzles: ArrayLike, *, limit: int = 2) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Solves puzzles by exact search.

    Args:
      puzzles: integers `[num, cells]`, 0 = blank.
      limit: the number of solutions to stop at. 2 is enough to know whether there is exactly one.

    Returns:
      The first solution of each puzzle, int8 `[num, cells]` (zeros if there is none), and the number of solutions up to
      `limit`, int32 `[num]`.

    Raises:
      InputError: the array is not of integers `[num, 16 | 36 | 81]` from 0 to size, or `limit` is below 1.
    """
    given = checked_grids("puzzles", puzzles)
    if whole_number("limit", limit) < 1:
        raise InputError(f"limit={limit}: give at least 1, the number of solutions to look for")
    from mdm_jax.tasks.sudoku import kernels as sudoku_kernels

    solutions, num_solutions = np.zeros_like(given), np.zeros(len(given), np.int32)
    sudoku_kernels.solve(
        units_of_cells(size_of(given.shape[1])), given, min(limit, np.iinfo(np.int32).max), solutions, num_solutions
    )
    return solutions, num_solutions


def is_solved(grids: ArrayLike, puzzles: ArrayLike) -> NDArray[np.bool_]:
    """Whether each grid is a complete, correct answer to its puzzle. Any correct answer counts.

    Args:
      grids: integers `[num, cells]` from a model. Values out of range are wrong, not an error.
      puzzles: integers `[num, cells]`, 0 = blank.

    Returns:
      bool `[num]`: every row, column and box holds each digit once, and every given is kept.

    Raises:
      InputError: the arrays have different shapes, or the puzzles are not valid arguments of `solve`.
    """
    given, grids = checked_grids("puzzles", puzzles), np.asarray(grids)
    if grids.shape != given.shape:
        raise InputError(f"grids have shape {grids.shape} and puzzles {given.shape}: they must be the same")
    size = size_of(given.shape[1])
    in_units = np.sort(grids[:, cells_of_units(size)], axis=-1)
    follows_rules = (in_units == np.arange(1, size + 1)).all(axis=(1, 2))
    keeps_clues = ((given == 0) | (given == grids)).all(axis=1)
    return follows_rules & keeps_clues


def in_test_split(solutions: ArrayLike) -> NDArray[np.bool_]:
    """Whether full grids belong to the test side. A fixed hash puts one grid in sixteen there.

    At 9x9 the hash is invariant under symmetries, so no symmetry relates the two sides. The smaller sizes have too few
    classes of grids for that (2 and 49), so there the hash is of the grid itself.

    Args:
      solutions: integers `[num, cells]`, full grids.

    Returns:
      bool `[num]`, True for the test side.

    Raises:
      InputError: the array is not of integers `[num, 16 | 36 | 81]` from 0 to size.
    """
    grids = checked_grids("solutions", solutions)
    from mdm_jax.tasks.sudoku import kernels as sudoku_kernels

    return np.array([sudoku_kernels.is_test(grid) for grid in grids], np.bool_)


def checked_grids(name: str, grids: ArrayLike) -> NDArray[np.int8]:
    """Returns grids as contiguous int8; raises InputError unless they are integers `[num, cells]` from 0 to size."""
    array = np.asarray(grids)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise InputError(f"{name} are {array.dtype} of shape {array.shape}: integers of shape [num, cells] are wanted")
    size = size_of(array.shape[1])
    is_bad = (array < 0) | (array > size)
    if is_bad.any():
        i, cell = (int(index) for index in np.argwhere(is_bad)[0])
        raise InputError(
            f"{name}[{i}, {cell}] is {array[i, cell]}: a {size}x{size} grid holds 1 to {size}, and 0 where it is blank"
        )
    return np.array(array, np.int8, order="C")  # a copy, since a read-only array would compile the kernels again

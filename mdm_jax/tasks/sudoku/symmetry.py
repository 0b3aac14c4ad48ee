"""The symmetries of Sudoku, which map puzzles with one solution to puzzles with one solution.

A symmetry permutes the rows within each band, the bands, the columns within each stack, the stacks and the digits. If
boxes are square it may transpose the grid. At 9x9 there are 6^8 · 2 · 9! = 1,218,998,108,160 symmetries (Russell &
Jarvis 2006). All are drawn with equal probability. A rule-based solver does equally well after a symmetry, but ties in
the order of its steps may fall differently.
"""

import numpy as np
from numpy.typing import NDArray

from mdm_jax.tasks.sudoku import puzzle as sudoku


def random_symmetries(rng: np.random.Generator, num: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Draws symmetries.

    Args:
      rng: the random generator, which is advanced.
      num: the number of symmetries.
      size: 4, 6 or 9.

    Returns:
      For each symmetry, the cell that moves to each position, int64 `[num, cells]`, and the new digit for each digit,
      int8 `[num, size + 1]`; 0 stays 0.

    Raises:
      InputError: the size is not supported.
    """
    box_rows, box_columns = sudoku.BOXES[sudoku.check_size(size)]
    rows, columns = _line_orders(rng, num, size, box_rows), _line_orders(rng, num, size, box_columns)
    cells = rows[:, :, None] * size + columns[:, None, :]
    if box_rows == box_columns:
        is_transposed = rng.random(num) < 0.5
        cells = np.where(is_transposed[:, None, None], cells.swapaxes(1, 2), cells)
    digits = np.zeros((num, size + 1), np.int8)
    digits[:, 1:] = rng.random((num, size)).argsort(axis=1) + 1
    return cells.reshape(num, size * size), digits


def transform(grids: NDArray[np.int8], cells: NDArray[np.int64], digits: NDArray[np.int8]) -> NDArray[np.int8]:
    """Applies one symmetry to each grid, which may be a puzzle or a solution.

    Args:
      grids: int8 `[num, cells]`, 0 = blank.
      cells: from `random_symmetries`.
      digits: from `random_symmetries`.

    Returns:
      int8 `[num, cells]`.
    """
    return np.take_along_axis(digits, np.take_along_axis(grids, cells, axis=1), axis=1)


def augment(batch: dict[str, NDArray[np.int8]], rng: np.random.Generator) -> dict[str, NDArray[np.int8]]:
    """Applies a random symmetry to each record.

    Args:
      batch: `puzzle` and `solution`, int8 `[num, cells]`, and other fields of that shape, such as `order`. The cells of
        all fields move; digits change in `puzzle` and `solution` only.
      rng: the random generator, which is advanced.

    Returns:
      The same fields.
    """
    num, num_cells = batch["puzzle"].shape
    cells, digits = random_symmetries(rng, num, sudoku.size_of(num_cells))
    moved = {name: np.take_along_axis(field, cells, axis=1) for name, field in batch.items()}
    for name in ("puzzle", "solution"):
        moved[name] = np.take_along_axis(digits, moved[name], axis=1)
    return moved


def _line_orders(rng: np.random.Generator, num: int, size: int, band: int) -> NDArray[np.int64]:
    """Draws permutations of rows that keep bands of `band` rows together: int64 `[num, size]`."""
    bands = rng.random((num, size // band)).argsort(axis=1)
    within = rng.random((num, size // band, band)).argsort(axis=2)
    return (bands[:, :, None] * band + within).reshape(num, size)

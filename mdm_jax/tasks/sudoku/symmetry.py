"""The symmetries of Sudoku. They turn a puzzle with one solution into a puzzle with one solution.

Rows move within their band and bands among each other, columns and stacks likewise, digits are renamed, and where boxes
are square the grid may be transposed: 6^8 · 2 · 9! = 1,218,998,108,160 elements at 9x9 (Russell & Jarvis 2006), all
drawn with equal probability. They keep what a rule-based solver can do, up to ties in the order of its steps.
"""

import numpy as np
from numpy.typing import NDArray

from mdm_jax.tasks.sudoku import puzzle as sudoku


def random_symmetries(rng: np.random.Generator, num: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Draws elements of the group.

    Args:
      rng: the generator, which is advanced.
      num: the number of elements.
      size: 4, 6 or 9.

    Returns:
      For each, the cell that comes to each place, int64 `[num, cells]`, and the new name of each digit, int8
      `[num, size + 1]`, where 0 stays 0.

    Raises:
      InputError: the size is not supported.
    """
    box_rows, box_columns = sudoku.BOXES[sudoku.check_size(size)]
    rows, columns = _line_orders(rng, num, size, box_rows), _line_orders(rng, num, size, box_columns)
    cells = rows[:, :, None] * size + columns[:, None, :]
    if box_rows == box_columns:
        is_turned = rng.random(num) < 0.5
        cells = np.where(is_turned[:, None, None], cells.swapaxes(1, 2), cells)
    digits = np.zeros((num, size + 1), np.int8)
    digits[:, 1:] = rng.random((num, size)).argsort(axis=1) + 1
    return cells.reshape(num, size * size), digits


def transform(grids: NDArray[np.int8], cells: NDArray[np.int64], digits: NDArray[np.int8]) -> NDArray[np.int8]:
    """Applies one symmetry to each grid; puzzles and solutions alike.

    Args:
      grids: int8 `[num, cells]`, 0 = blank.
      cells: as from `random_symmetries`.
      digits: as from `random_symmetries`.

    Returns:
      int8 `[num, cells]`.
    """
    return np.take_along_axis(digits, np.take_along_axis(grids, cells, axis=1), axis=1)


def augment(batch: dict[str, NDArray[np.int8]], rng: np.random.Generator) -> dict[str, NDArray[np.int8]]:
    """Applies a random symmetry to each record, its puzzle and its solution alike; other per-cell fields move along.

    Args:
      batch: `puzzle` and `solution`, int8 `[num, cells]`, and any other fields of that shape, such as `order`.
      rng: the generator, which is advanced.

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
    """Orders of rows that keep bands of `band` rows together: int64 `[num, size]`."""
    bands = rng.random((num, size // band)).argsort(axis=1)
    within = rng.random((num, size // band, band)).argsort(axis=2)
    return (bands[:, :, None] * band + within).reshape(num, size)

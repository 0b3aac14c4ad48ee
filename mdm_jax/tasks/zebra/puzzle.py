"""Generates, solves and checks Zebra puzzles of 3 to 6 houses and attributes. NumPy in, NumPy out.

`clues` defines puzzles, clues and grids. No generator of such puzzles has been published, so the distribution of these
puzzles is our own. The compiled search is in `kernels`.
"""

import functools
import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.data.checks import Split, side_of, whole_number
from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra.clues import (
    CELLS,
    LARGEST,
    NONE,
    SMALLEST,
    STRIDE,
    Clues,
    Size,
    check_sizes,
    checked_clues,
    is_cell,
    relations,
    sizes_of,
    support,
)

GENERATOR_VERSION = 1
"""Increase it when `generate` gives other puzzles for the same arguments. The names of prepared data contain it."""

_CHUNK = 1024


def generate(
    num: int,
    *,
    smallest: Size = SMALLEST,
    largest: Size = LARGEST,
    seed: int = 0,
    split: Split | None = None,
    first: int = 0,
) -> tuple[Clues, NDArray[np.int8]]:
    """Makes random puzzles with exactly one solution and without redundant clues.

    The numbers of houses and attributes are uniform, and so is the solution. Clues that hold are drawn until there is
    no other solution: first a type, uniformly, then, also uniformly, a clue of the type that names at most one house by
    its number. Then each clue, in random order, is dropped if the solution stays unique without it. A puzzle is drawn
    again if it exceeds `Size.max_clues` or `Size.max_tokens`. It is also drawn again if it names neither the last house
    nor the last value of an attribute, since its size could not be read from it. That happens to one in a hundred at
    3 x 3, and to fewer at larger sizes. Puzzle i depends on (seed, first + i, smallest, largest, split) only, and not
    on `num` or the number of threads.

    Args:
      num: the number of puzzles.
      smallest: the smallest numbers of houses and attributes.
      largest: the largest numbers.
      seed: the seed, from 0 to 2^63 - 1.
      split: "train", "test", or None for both. Train and test never share a puzzle, nor two that differ in names, order
        or direction only. See `in_test_split`.
      first: the index of the first puzzle.

    Returns:
      The puzzles, int8 `[num, largest.max_clues, 4]`, and their solutions, int8 `[num, 36]`.

    Raises:
      InputError: an argument is out of its range.
    """
    smallest, largest = check_sizes(smallest, largest)
    num, seed, first = whole_number("num", num), whole_number("seed", seed), whole_number("first", first)
    side = side_of(split)
    from mdm_jax.tasks.zebra import kernels as zebra_kernels

    clues = np.full((num, largest.max_clues, 4), NONE, np.int8)
    solutions = np.full((num, CELLS), NONE, np.int8)
    for start in range(0, num, _CHUNK):  # in chunks, since compiled code cannot be interrupted
        here = slice(start, start + _CHUNK)
        zebra_kernels.generate(
            support(),
            _limits(),
            (smallest.houses, smallest.attributes),
            (largest.houses, largest.attributes),
            np.uint64(seed),
            np.uint64(first + start),
            side,
            clues[here],
            solutions[here],
        )
    return clues, solutions


@functools.cache
def _limits() -> NDArray[np.int64]:
    """The largest numbers of clues and tokens, by the numbers of houses and attributes, int64 `[7, 7, 2]`."""
    sizes = itertools.product(range(STRIDE + 1), repeat=2)
    limits = [(size.max_clues, size.max_tokens) for size in itertools.starmap(Size, sizes)]
    return np.array(limits, np.int64).reshape(STRIDE + 1, STRIDE + 1, 2)


def solve(clues: ArrayLike, *, limit: int = 2) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Solves puzzles by exact search.

    Args:
      clues: integers `[num, clues, 4]`.
      limit: the number of solutions to stop at. 2 is enough to know whether there is exactly one.

    Returns:
      The first solution of each puzzle, int8 `[num, 36]` (-1 everywhere if there is none), and the number of solutions
      up to `limit`, int32 `[num]`.

    Raises:
      InputError: a clue is invalid, a puzzle names fewer than 3 houses or attributes, or `limit` is below 1.
    """
    checked = checked_clues(clues)
    if whole_number("limit", limit) < 1:
        raise InputError(f"limit={limit}: at least one solution has to be looked for; choose 1 or more")
    from mdm_jax.tasks.zebra import kernels as zebra_kernels

    solutions = np.full((len(checked), CELLS), NONE, np.int8)
    num_solutions = np.zeros(len(checked), np.int32)
    most = min(limit, np.iinfo(np.int32).max)
    sizes = np.stack(sizes_of(checked), axis=1)
    zebra_kernels.solve(support(), sizes, _as_terms(checked), most, solutions, num_solutions)
    return solutions, num_solutions


def is_solved(grids: ArrayLike, clues: ArrayLike) -> NDArray[np.bool_]:
    """Whether each grid is a complete, correct answer to its puzzle. Any correct answer counts.

    Args:
      grids: integers `[num, 36]` from a model. Values out of range are wrong, not an error. Cells that a puzzle does
        not have are ignored.
      clues: integers `[num, clues, 4]`.

    Returns:
      bool `[num]`: every attribute has each value in one house, and every clue holds.

    Raises:
      InputError: the grids have another shape, or the clues are not valid arguments of `solve`.
    """
    checked, grids = checked_clues(clues), np.asarray(grids)
    if grids.shape != (len(checked), CELLS):
        raise InputError(f"grids have shape {grids.shape}: {(len(checked), CELLS)} is wanted, a row for each puzzle")
    houses, attributes = sizes_of(checked)
    cells = is_cell(houses, attributes).reshape(-1, STRIDE, STRIDE)
    is_at = (grids.reshape(-1, STRIDE, STRIDE, 1) == np.arange(STRIDE)) & cells[..., None]  # [num, attribute, house, v]
    is_full = ((is_at.sum(axis=2) == 1) | ~cells).all(axis=(1, 2))
    house_of = _house_of_terms(is_at.argmax(axis=2))
    in_houses = np.take_along_axis(house_of, checked[:, :, 1:].reshape(len(checked), -1).astype(np.int64), axis=1)
    a, b, c = np.moveaxis(in_houses.reshape(*checked.shape[:2], 3), -1, 0)
    kinds = checked[:, :, 0]
    return is_full & (relations()[houses[:, None], kinds, a, b, c] | (kinds == NONE)).all(axis=1)


def in_test_split(clues: ArrayLike, solutions: ArrayLike) -> NDArray[np.bool_]:
    """Whether puzzles belong to the test side. A fixed hash puts one puzzle in eight there.

    The hash does not change when attributes or values are renamed, when clues are reordered, when houses are counted
    from the other end (with left-of and immediate-left reversed), or when the terms of =, != and nbr, or the last two
    of inbetween, are exchanged.

    Args:
      clues: integers `[num, clues, 4]`.
      solutions: integers `[num, 36]`, the solution of each puzzle.

    Returns:
      bool `[num]`, True for the test side.

    Raises:
      InputError: a clue is invalid, or a grid does not solve its puzzle.
    """
    checked, grids = checked_solutions(clues, solutions)
    from mdm_jax.tasks.zebra import sides as zebra_sides

    is_at = grids.reshape(-1, STRIDE, STRIDE, 1) == np.arange(STRIDE)
    house_of = _house_of_terms(is_at.argmax(axis=2))
    sides = np.zeros(len(checked), np.bool_)
    zebra_sides.split(np.stack(sizes_of(checked), axis=1), _as_terms(checked), house_of, sides)
    return sides


def checked_solutions(clues: ArrayLike, solutions: ArrayLike) -> tuple[Clues, NDArray[np.int8]]:
    """Checks puzzles with their solutions.

    Args:
      clues: integers `[num, clues, 4]`.
      solutions: integers `[num, 36]`.

    Returns:
      Contiguous int8 copies. Cells that a puzzle does not have are -1.

    Raises:
      InputError: a clue is invalid, or a grid does not solve its puzzle.
    """
    checked, grids = checked_clues(clues), np.asarray(solutions)
    is_wrong = ~is_solved(grids, checked)
    if is_wrong.any():
        raise InputError(f"solutions[{np.argmax(is_wrong)}] does not solve its puzzle: `solve` gives one that does")
    return checked, np.where(is_cell(*sizes_of(checked)), grids, NONE).astype(np.int8)


def _as_terms(clues: Clues) -> NDArray[np.int64]:
    """Clues in the form of the compiled code: int64 `[num, clues, 4]`, 42 in place of -1."""
    return np.where(clues == NONE, CELLS + STRIDE, clues).astype(np.int64)


def _house_of_terms(house_of_values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Adds the terms of houses, and one for missing terms, to `[num, 6, 6]`: int64 `[num, 43]`."""
    num = len(house_of_values)
    numbers = np.broadcast_to(np.append(np.arange(STRIDE), 0), (num, STRIDE + 1))
    return np.concatenate([house_of_values.reshape(num, CELLS), numbers], axis=1)

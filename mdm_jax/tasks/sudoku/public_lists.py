"""The public lists that models are evaluated on: no puzzle that is related to one of theirs is trained on.

`public_lists.npy` holds the hashes of their solutions, sorted, uint64: those of all puzzles of 17 givens, of
magictour_top1465, of forum_hardest_se11_1k and forum_hardest_1106 (docs/planning.md), and of the test split of Ye et
al. 2024. Grids that a symmetry relates have the same hash. Others rarely do, and then a puzzle is left out of training
that need not be.
"""

import functools
import pathlib

import numpy as np
from numpy.typing import NDArray

FILE = pathlib.Path(__file__).with_suffix(".npy")
"""Written by `np.save(FILE, np.unique(hashes(solutions)))`."""


def hashes(solutions: NDArray[np.int8]) -> NDArray[np.uint64]:
    """The hashes of full grids, int8 `[num, 81]`: uint64 `[num]`."""
    from mdm_jax.tasks.sudoku import kernels as sudoku_kernels

    return np.array([sudoku_kernels.class_hash(grid) for grid in solutions.copy()], np.uint64)


@functools.cache
def _known() -> NDArray[np.uint64]:
    known: NDArray[np.uint64] = np.load(FILE)
    return known


def is_related(solutions: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Whether full grids may be solutions of the lists, up to symmetries: bool `[num]`; never at sizes below 9."""
    if solutions.shape[1] != 81:
        return np.zeros(len(solutions), np.bool_)
    return np.isin(hashes(solutions), _known())

"""Zebra puzzles: terms, and the seven types of clue with their meaning. NumPy in, NumPy out.

A puzzle has a row of 3 to 6 houses, and 3 to 6 attributes. Each attribute has one value in each house. Clues restrict
the houses of values. A puzzle is the array of its clues, int8 `[clues, 4]`. Each row holds a type and three terms, with
-1 for missing terms and in empty rows. The clues also define the size of the puzzle: it has as many houses and
attributes as they name (`sizes_of`). So a model can read the size from the clues.

A *term* is an argument of a clue. Value v of attribute a (a cell) is term `6 * a + v`. House n is term `36 + n`. All
count from 0. The tokens of a clue (Shah et al. 2024, arXiv:2409.10502) are

    [type] LHS [c|n] [attr] [val] RHS [c|n] [attr] [val] CLUE_END

with c for a cell and n for a house, which has attr 0. Let A be the term after LHS, and x(A) its house:

    =               x(A) = x(B)
    !=              x(A) ≠ x(B)
    left-of         x(A) < x(B)             somewhere to the left
    immediate-left  x(A) + 1 = x(B)
    nbr             |x(A) - x(B)| = 1       next to each other, on either side
    ends            A in the first or the last house
    inbetween       x(B) < x(A) < x(C) or x(C) < x(A) < x(B)    somewhere between, not always directly between

The source does not give the tokens of the last two. Here `ends` has no right-hand side, and that of `inbetween` has two
terms:

    ends LHS [c|n] [attr] [val] CLUE_END
    inbetween LHS [c|n] [attr] [val] RHS [c|n] [attr] [val] [c|n] [attr] [val] CLUE_END

The terms of a clue differ, and at least one of them is a cell.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.errors import InputError

TYPES = ("=", "!=", "left-of", "immediate-left", "nbr", "ends", "inbetween")
"""The types of clue, by number."""

ARITY = np.array([2, 2, 2, 2, 2, 1, 3], np.int8)
"""The number of terms of each type."""

STRIDE = 6
"""The largest number of houses, and of attributes."""

CELLS = STRIDE * STRIDE
"""The length of a grid, an int8 vector, for puzzles of any size. `grid[6 * a + h]` is the value of attribute a in house
h, or -1 if the puzzle has no such attribute or house."""

NONE = -1
"""The number of a term, a clue or a cell that does not exist."""

Clues = NDArray[np.int8]
"""`[num, clues, 4]` for `num` puzzles."""


class Size(NamedTuple):
    """The size of a puzzle, or the largest size of a set of puzzles."""

    houses: int
    attributes: int

    @property
    def num_cells(self) -> int:
        """The number of answers."""
        return self.houses * self.attributes

    @property
    def max_clues(self) -> int:
        """The largest number of clues that `puzzle.generate` makes."""
        return self.num_cells

    @property
    def max_tokens(self) -> int:
        """The largest number of tokens of the clues. At 6 x 6, 348 with ANSWER and triples make Shah et al.'s 457."""
        return 29 * self.num_cells // 3


SMALLEST, LARGEST = Size(3, 3), Size(STRIDE, STRIDE)


def check_sizes(smallest: Size, largest: Size) -> tuple[Size, Size]:
    """Returns the sizes; raises InputError unless `smallest` is at most `largest` and both are from 3 to 6."""
    for name, low, high in zip(Size._fields, smallest, largest, strict=True):
        is_whole = isinstance(low, int | np.integer) and isinstance(high, int | np.integer)
        if not is_whole or not 3 <= low <= high <= STRIDE:
            raise InputError(f"{low} to {high} {name}: choose two whole numbers from 3 to {STRIDE}, the smaller first")
    return Size(*smallest), Size(*largest)


@functools.cache
def relations() -> NDArray[np.bool_]:
    """The meaning of every type of clue.

    Returns:
      bool `[7, 7, 6, 6, 6]`, read-only: whether a clue holds, by the number of houses (3 to 6 are used), the type and
      the houses of the three terms. The house of a missing term does not matter.
    """
    a, b, c = np.ogrid[:STRIDE, :STRIDE, :STRIDE]
    holds = np.zeros((STRIDE + 1, len(TYPES), STRIDE, STRIDE, STRIDE), np.bool_)
    for houses in range(1, STRIDE + 1):
        is_end, is_between = (a == 0) | (a == houses - 1), ((b < a) & (a < c)) | ((c < a) & (a < b))
        for kind, rule in enumerate((a == b, a != b, a < b, a + 1 == b, abs(a - b) == 1, is_end, is_between)):
            holds[houses, kind] = rule
    holds.flags.writeable = False
    return holds


@functools.cache
def support() -> NDArray[np.int8]:
    """The houses of a term that a clue allows. A domain is a set of houses, as the bits of an integer.

    Returns:
      int8 `[7, 14, 3, 64, 64]`, read-only: the houses in which a term can be such that the clue holds for some houses
      of the other two terms. The indices are the number of houses, the type (plus 7 for its negation), the index of the
      term, and the domains of the other two terms, the later term first.
    """
    holds = np.concatenate([relations(), ~relations()], axis=1)
    is_in = (np.arange(1 << STRIDE)[:, None] >> np.arange(STRIDE) & 1).astype(np.float32)  # [domains, houses]
    tables = []
    for role in range(3):
        of_term = np.moveaxis(holds, 2 + role, -1).astype(np.float32)  # [houses, types, earlier, later, term]
        counts = np.einsum("htijx,ui,vj->htvux", of_term, is_in, is_in, optimize=True)
        tables.append(((counts > 0) << np.arange(STRIDE)).sum(axis=-1).astype(np.int8))
    table = np.stack(tables, axis=2)
    table.flags.writeable = False
    return table


def sizes_of(clues: Clues) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sizes of puzzles, by the largest house and attribute that the clues name.

    Args:
      clues: checked clues, int8 `[num, clues, 4]`.

    Returns:
      The numbers of houses and of attributes, int64 `[num]` each.
    """
    terms = clues[:, :, 1:].reshape(len(clues), -1).astype(np.int64)
    houses = np.where(terms >= 0, terms % STRIDE, NONE).max(axis=1, initial=NONE) + 1
    attributes = np.where(terms < CELLS, terms // STRIDE, NONE).max(axis=1, initial=NONE) + 1
    return houses, attributes


def is_cell(houses: NDArray[np.int64], attributes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a grid of a size has a cell, bool `[num, 36]`, for numbers of houses and attributes `[num]`."""
    attribute, house = np.divmod(np.arange(CELLS), STRIDE)
    return (attribute < attributes[:, None]) & (house < houses[:, None])


def checked_clues(clues: ArrayLike) -> Clues:
    """Checks puzzles.

    Args:
      clues: integers `[num, clues, 4]`.

    Returns:
      A contiguous int8 copy.

    Raises:
      InputError: the array has another shape or dtype, a clue is invalid, or a puzzle names fewer than 3 houses or
        attributes.
    """
    array = np.asarray(clues)
    if array.ndim != 3 or array.shape[2] != 4 or array.dtype.kind not in "iu":
        raise InputError(
            f"clues are {array.dtype} of shape {array.shape}: integers of shape [num, clues, 4] are wanted"
        )
    kinds, terms = array[:, :, 0], array[:, :, 1:]
    _refuse(array, (kinds < NONE) | (kinds >= len(TYPES)), f"types are 0 to {len(TYPES) - 1}, and -1 for no clue")
    arity = np.where(kinds >= 0, ARITY[kinds], 0)
    is_there = np.arange(3) < arity[..., None]
    _refuse(array, ((terms >= 0) != is_there).any(axis=-1), "ends takes 1 term, inbetween 3, others 2; then -1 follows")
    _refuse(array, ((terms < NONE) | (terms >= CELLS + STRIDE)).any(axis=-1), "terms are 0 to 41, and -1 for none")
    names_value = (is_there & (terms < CELLS)).any(axis=-1)
    _refuse(array, (arity > 0) & ~names_value, "name one value at least, not just houses")
    a, b, c = np.moveaxis(terms, -1, 0)
    _refuse(array, ((a == b) | (b == c) | (a == c)) & (arity > 1), "a clue's terms must differ")
    checked = np.array(array, np.int8, order="C")
    for name, found in zip(Size._fields, sizes_of(checked), strict=True):
        if (found < 3).any():
            i = int(np.argmax(found < 3))
            raise InputError(
                f"puzzle {i} names {found[i]} {name}: 3 to {STRIDE} are wanted, so add clues that name more"
            )
    return checked


def _refuse(array: NDArray[Any], is_bad: Any, wanted: str) -> None:
    """Raises InputError for the first bad clue, if any; `is_bad` is bool `[num, clues]`."""
    if is_bad.any():
        i, clue = (int(index) for index in np.argwhere(is_bad)[0])
        raise InputError(f"clues[{i}, {clue}] is {array[i, clue].tolist()}: {wanted}")

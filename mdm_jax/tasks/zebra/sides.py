"""The compiled hash that splits Zebra puzzles into train and test. It must never change, or puzzles change sides."""

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.compiled import njit, prange
from mdm_jax.data.splitmix import mix

_STRIDE = 6  # terms of an attribute, and the most attributes
_LEFT_OF, _IMMEDIATE_LEFT, _BETWEEN = 2, 3, 6  # the types with terms that cannot be exchanged
_NONE = 42  # a missing clue or term
_TEST_SHARE = np.uint64(8)  # one puzzle in eight


@njit(cache=True)
def _signature(
    clues: NDArray[np.int64],
    num_clues: int,
    houses: int,
    attributes: int,
    house_of: NDArray[np.int64],
    is_mirrored: bool,
) -> np.uint64:
    """A hash that does not depend on the names of attributes and values, nor on the order of clues and of equal terms.

    Values are identified by their houses. Attributes are distinguished by the clues that name them, as in colour
    refinement (Weisfeiler & Leman 1968): each round mixes into the colour of an attribute the colours of the attributes
    in its clues.
    """
    colours, sums, seen = np.zeros(_STRIDE + 1, np.uint64), np.zeros(_STRIDE + 1, np.uint64), np.zeros(3, np.uint64)
    colours[_STRIDE] = 1  # the house numbers are no attribute
    total = np.uint64(0)
    for _ in range(4):
        sums[:] = 0
        total = np.uint64(0)
        for i in range(num_clues):
            kind, arity = clues[i, 0], 0
            if kind == _NONE:
                continue
            whole = np.uint64(kind)
            while arity < 3 and clues[i, 1 + arity] != _NONE:
                term, side = clues[i, 1 + arity], 0
                house = houses - 1 - house_of[term] if is_mirrored else house_of[term]
                if kind in (_LEFT_OF, _IMMEDIATE_LEFT):
                    side = 1 - arity if is_mirrored else arity
                elif kind == _BETWEEN:
                    side = min(arity, 1)
                seen[arity] = mix(mix(colours[term // _STRIDE] + np.uint64(house)) + np.uint64(side))
                whole += seen[arity]
                arity += 1
            whole = mix(whole)
            total += whole
            for role in range(arity):
                sums[clues[i, 1 + role] // _STRIDE] += mix(whole + seen[role])
        for attribute in range(attributes):
            colours[attribute] = mix(colours[attribute] + sums[attribute])
    return mix(total)


@njit(cache=True)
def is_test(
    clues: NDArray[np.int64], num_clues: int, houses: int, attributes: int, house_of: NDArray[np.int64]
) -> bool:
    """Whether a puzzle is on the test side.

    Args:
      clues: int64 `[at least num_clues, 4]`, as in `clues`, but 42 in place of -1.
      num_clues: the number of clues.
      houses: the number of houses.
      attributes: the number of attributes.
      house_of: int64 `[at least 42]`, the house of each term in the solution.
    """
    h = np.uint64(0)
    for is_mirrored in range(2):
        h += _signature(clues, num_clues, houses, attributes, house_of, is_mirrored == 1)
    return mix(h) % _TEST_SHARE == np.uint64(0)


@njit(cache=True, parallel=True)
def split(
    sizes: NDArray[np.int64], clues: NDArray[np.int64], house_of: NDArray[np.int64], sides: NDArray[np.bool_]
) -> None:
    """Writes into `sides` whether puzzles are on the test side.

    Args:
      sizes: int64 `[num, 2]`, the numbers of houses and attributes.
      clues: int64 `[num, clues, 4]`, 42 in place of -1.
      house_of: int64 `[num, at least 42]`, the house of each term in the solution.
      sides: bool `[num]`; receives the answers.
    """
    for i in prange(len(clues)):
        sides[i] = is_test(clues[i], clues.shape[1], sizes[i, 0], sizes[i, 1], house_of[i])

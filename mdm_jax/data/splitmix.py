"""The splitmix64 random generator (Steele, Lea & Flood 2014), compiled. It must never change, or puzzles change.

Compiled code of other files holds copies of it in numba's cache, which does not notice changes here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.compiled import njit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""The increment of the generator's state."""


@njit(cache=True)
def mix(x: np.uint64) -> np.uint64:
    """The finaliser of the generator, a bijection of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def draw(state: NDArray[np.uint64], n: int) -> Any:
    """Draws a number from 0 to n - 1, and advances the state of the generator, uint64 `[1]`."""
    state[0] += GOLDEN
    return np.int64(((mix(state[0]) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))

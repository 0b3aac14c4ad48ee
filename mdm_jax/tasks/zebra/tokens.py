"""The vocabulary of Zebra puzzles, and the tokens of clues. NumPy in, NumPy out."""

import numpy as np
from numpy.typing import NDArray

from mdm_jax.tasks.base import Tokens
from mdm_jax.tasks.zebra.clues import ARITY, CELLS, NONE, STRIDE, TYPES, Clues

SYMBOLS = ("MASK", *TYPES, *map(str, range(STRIDE)), "c", "n", "LHS", "RHS", "CLUE_END", "ANSWER", "EXTRA")
"""Every token by its id. Ids 1 to 19 are the tokens of Shah et al. (2024), in our own order; EXTRA is the padding."""

MASK, FIRST_TYPE, ZERO = 0, 1, SYMBOLS.index("0")
CELL, NUMBER, LHS, RHS = (SYMBOLS.index(symbol) for symbol in ("c", "n", "LHS", "RHS"))
CLUE_END, ANSWER, EXTRA = (SYMBOLS.index(symbol) for symbol in ("CLUE_END", "ANSWER", "EXTRA"))

CLUE_LENGTH = 13
"""Tokens of the longest clue: its type, LHS and a term, RHS and two terms, CLUE_END."""


def clue_tokens(clues: Clues) -> tuple[Tokens, NDArray[np.bool_]]:
    """Writes each clue in 13 positions. A short clue does not fill all of them.

    Args:
      clues: checked clues, int8 `[num, clues, 4]`.

    Returns:
      Tokens int32 `[num, 13 * clues]`, and whether each position is filled, bool of the same shape.
    """
    kinds, terms = clues[:, :, 0].astype(np.int32), clues[:, :, 1:].astype(np.int32)
    is_value = terms < CELLS
    attributes = np.where(is_value, terms // STRIDE, 0)
    written = np.stack([np.where(is_value, CELL, NUMBER), ZERO + attributes, ZERO + terms % STRIDE], axis=-1)
    tokens = np.empty((*kinds.shape, CLUE_LENGTH), np.int32)
    tokens[:, :, 0], tokens[:, :, 1], tokens[:, :, 5] = FIRST_TYPE + kinds, LHS, RHS
    tokens[:, :, 2:5], tokens[:, :, 6:9], tokens[:, :, 9:12] = np.moveaxis(written, 2, 0)
    tokens[:, :, 12] = CLUE_END
    needs = np.array([1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 1])  # number of terms of the clues that fill each position
    is_taken = np.where(kinds == NONE, 0, ARITY[kinds])[..., None] >= needs
    return tokens.reshape(len(clues), -1), is_taken.reshape(len(clues), -1)

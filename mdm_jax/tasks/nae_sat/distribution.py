"""L&O-NAE-SAT: latent bits, and observations of whether triples of them are not all equal. NumPy in, NumPy out.

A sequence holds N latents, 0 or 1, and then P observations. O_j = 0 if the three latents of triple j are equal, else 1.
The triples of a distribution are fixed. They are drawn without repetition, and the latents of a triple are distinct, so
three in four observations are 1.

Source: Kim et al. 2025, sections 3.3 and D.1.1. The paper does not say that m = 2 and that latents of a triple are
distinct; this follows from its numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data.checks import Split, side_of
from mdm_jax.errors import InputError
from mdm_jax.theory.predicates import SparseObservations, nae, random_tuples

VERSION = 1
"""The version of the generator. Increase it when a seed gives other sequences."""
PAD_ID = 2
MASK_ID = 3


def observations(num_latents: int, num_observations: int, seed: int = 0) -> SparseObservations:
    """The observed triples of a distribution.

    Args:
      num_latents: N.
      num_observations: P.
      seed: the seed of the triples.

    Raises:
      InputError: N < 3, or P is not from 1 to N (N - 1) (N - 2).
    """
    if num_observations < 1:
        raise InputError(f"num_observations={num_observations}: give at least 1")
    rng = np.random.default_rng([VERSION, 0, seed])
    return SparseObservations(nae(3, 2), random_tuples(rng, num_observations, num_latents, 3))


def generate(num: int, num_latents: int, num_observations: int, *, seed: int = 0, split: Split) -> NDArray[np.int8]:
    """Draws sequences, int8 `[num, N + P]`.

    Args:
      num: the number of sequences.
      num_latents: N.
      num_observations: P.
      seed: the seed, also of the triples.
      split: "train" or "test", two independent streams. With few latents they contain equal sequences.

    Raises:
      InputError: as `observations`, or the split is neither of the two.
    """
    functions = observations(num_latents, num_observations, seed)
    side = side_of(split)
    if side < 0:
        raise InputError("split=None: choose 'train' or 'test', which are two streams")
    rng = np.random.default_rng([VERSION, 1 + side, seed])
    latents = rng.integers(2, size=(num, num_latents), dtype=np.int8)
    return np.concatenate([latents, functions.probabilities(latents).astype(np.int8)], axis=1)


def examples(tokens: NDArray[np.integer], length: int | None = None) -> dict[str, NDArray[Any]]:
    """The sequences to train on: `tokens` int32 and `is_prompt` bool `[num, length]`. Padding is prompt.

    Args:
      tokens: int `[num, N + P]`.
      length: the length with padding, 512 in the paper; None adds no padding.
    """
    padding = check_length(length, tokens.shape[1]) - tokens.shape[1]
    padded = np.pad(tokens.astype(np.int32), ((0, 0), (0, padding)), constant_values=PAD_ID)
    return {"tokens": padded, "is_prompt": padded == PAD_ID}


def start(num: int, used: int, length: int | None = None) -> NDArray[np.int32]:
    """The sequences to fill in, int32 `[num, length]`: masks for the N + P = `used` tokens, then padding."""
    return np.where(np.arange(check_length(length, used)) < used, MASK_ID, PAD_ID)[None].repeat(num, 0).astype(np.int32)


def check_length(length: int | None, used: int) -> int:
    """Returns the length with padding; raises InputError if it is less than N + P = `used`."""
    if length is not None and length < used:
        raise InputError(f"length={length} is too short for N + P = {used} tokens: give at least that, or none")
    return used if length is None else length


def accuracy(tokens: NDArray[np.integer], functions: SparseObservations, num_latents: int) -> NDArray[np.floating]:
    """The share of observations that agree with the latents beside them, float `[num]`.

    Args:
      tokens: int `[num, at least N + P]`.
      functions: from `observations`.
      num_latents: N.
    """
    expected = functions.probabilities(tokens[:, :num_latents])
    return (tokens[:, num_latents : num_latents + functions.num_observations] == expected).mean(axis=1)

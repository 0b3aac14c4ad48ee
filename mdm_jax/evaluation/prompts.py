"""Decodes sequences of different lengths, in batches of few shapes, so that few programs are compiled."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.progress import Bar
from mdm_jax.typing import Array

SMALLEST = 64
"""The length of the shortest shape."""


def padded_length(length: int) -> int:
    """The padded length: 64, 96, 128, 192, 256, 384, ... It is less than 1.5 times any length above 64."""
    shape = SMALLEST
    while shape < length:
        shape = shape * 3 // 2 if shape & (shape - 1) == 0 else shape * 4 // 3
    return shape


@dataclasses.dataclass(frozen=True)
class FilledSequences:
    """N decoded sequences of different lengths."""

    rows: list[Any]
    """of each sequence its row of the sampler's result: fields [L] of its own length, the others as they are"""
    nfe: float
    """network calls per batch, averaged over batches"""
    shapes: list[tuple[int, int]]
    """[B, L] of every batch"""


def fill_sequences(
    decode: Callable[[Array, Array], Any],
    sequences: Sequence[Sequence[int] | np.ndarray],
    *,
    pad_id: int | None,
    max_length: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    progress: str | None = None,
) -> FilledSequences:
    """Decodes sequences of different lengths in batches. Each has its own key, by its number.

    Args:
      decode: (keys [B], x_init int32 [B, L]) -> a named tuple of arrays [B, L], [B] or scalar, with `nfe`.
      sequences: the token ids of each, with whatever `decode` fills in.
      pad_id: what stands behind a sequence that is shorter than its batch, which the network must ignore. None pads
        nothing: only sequences of one length share a batch.
      max_length: the largest length that the network takes; None for no limit. Padding never exceeds it.
      batch_size: the number of sequences in a batch.
      seed: the seed of all keys.
      numbers: of each sequence, for its key; None is its place among the sequences.
      progress: the label of a progress bar; None shows none.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    places = jnp.arange(len(sequences)) if numbers is None else jnp.asarray(numbers)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), places)
    order = np.argsort(lengths, kind="stable")
    groups = [order] if pad_id is not None else np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    batches = [
        (group[i : i + batch_size], min(batch_size, len(group)))
        for group in groups
        for i in range(0, len(group), batch_size)
    ]
    rows: list[Any] = [None] * len(sequences)
    calls, shapes = [], []
    for batch, size in Bar(batches, desc=progress, unit="batch", disable=progress is None, leave=False):
        longest = int(lengths[batch].max())
        length = longest if pad_id is None else padded_length(longest)
        x_init = np.full((size, min(length, max_length or length)), pad_id or 0, np.int32)
        repeated = np.resize(batch, size)  # the last batch repeats sequences of its own
        for row, number in zip(x_init, repeated, strict=True):
            row[: lengths[number]] = sequences[number]
        result = decode(keys[repeated], jnp.asarray(x_init))
        fields = jax.device_get(tuple(result))
        for i, number in enumerate(batch):
            own = [x[i, : lengths[number]] if x.ndim == 2 else x[i] if x.ndim else x for x in fields]
            rows[number] = result._make(own)
        calls.append(int(result.nfe))
        shapes.append(x_init.shape)
    return FilledSequences(rows, float(np.mean(calls)), shapes)

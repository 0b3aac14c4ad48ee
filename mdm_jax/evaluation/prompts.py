"""Decodes sequences of different lengths, in batches of few shapes, so that few programs are compiled."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError, shown
from mdm_jax.progress import Bar
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import Decode
from mdm_jax.typing import Array

SMALLEST = 64
"""The length of the shortest shape."""


@dataclasses.dataclass(frozen=True)
class Continued:
    """The continuations of N prompts."""

    tokens: list[np.ndarray]
    """the new tokens of each prompt, int32 [num_new], in the order of the prompts"""
    nfe: float
    """network calls per batch, averaged over batches"""
    seconds: float
    """wall time, with compilation"""
    shapes: list[tuple[int, int]]
    """[B, L] of every batch"""


def padded_length(length: int) -> int:
    """The padded length: 64, 96, 128, 192, 256, 384, ... It is less than 1.5 times any length above 64."""
    shape = SMALLEST
    while shape < length:
        shape = shape * 3 // 2 if shape & (shape - 1) == 0 else shape * 4 // 3
    return shape


def continue_prompts(
    decode: Decode,
    prompts: Sequence[Sequence[int]],
    *,
    num_new: int,
    mask_id: int,
    pad_id: int,
    max_length: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: str | None = None,
) -> Continued:
    """Generates `num_new` tokens after each prompt. Prompts of similar length share a batch. Each has its own key.

    Args:
      decode: fills in a batch, such as `functools.partial(mdm_jax.sample, denoiser, params, mask_id=..., ...)`. Its
        network must ignore padding on the right (`TransformerConfig.pad_id`).
      prompts: the token ids of each prompt, at least one.
      num_new: the number of tokens to generate after each prompt.
      mask_id: the id of the mask token.
      pad_id: the id of the padding.
      max_length: the largest length that the network takes; None for no limit. Padding never exceeds it.
      batch_size: the number of prompts in a batch.
      seed: the seed of all keys.
      progress: the label of a progress bar; None shows none.

    Raises:
      InputError: there are no prompts; a prompt is empty, too long, or holds a mask; `mask_id` is `pad_id`; or
        `num_new` or `batch_size` is below 1.
    """
    if mask_id == pad_id:
        raise InputError(f"mask_id and pad_id are both {mask_id}: padding would be filled in; give two ids")
    check_number("num_new", num_new, Range(1, INT32), whole=True)
    check_number("batch_size", batch_size, Range(1, INT32), whole=True)
    for prompt in prompts:
        ids = np.asarray(prompt)
        if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > INT32):
            raise InputError(f"a prompt must be token ids from 0 to {INT32}, got {shown(prompt)}")
    if any(mask_id in prompt for prompt in prompts):
        raise InputError(f"a prompt holds the mask's id, {mask_id}, which would be filled in: take it out")
    lengths = np.array([len(prompt) for prompt in prompts])
    if not len(lengths) or lengths.min() < 1:
        raise InputError("give at least one prompt, and none that is empty")
    longest = int(lengths.max()) + num_new
    if max_length is not None and longest > max_length:
        raise InputError(f"a prompt and its {num_new} new tokens are {longest} tokens, more than {max_length}")
    sequences = [[*prompt, *[mask_id] * num_new] for prompt in prompts]
    begin = time.perf_counter()
    filled = fill_sequences(
        decode, sequences, pad_id=pad_id, max_length=max_length, batch_size=batch_size, seed=seed, progress=progress
    )
    return Continued(
        [row.tokens[-num_new:] for row in filled.rows], filled.nfe, time.perf_counter() - begin, filled.shapes
    )


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

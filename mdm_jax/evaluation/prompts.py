"""Continues prompts of different lengths, in batches of few shapes, so that few programs are compiled."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError, shown
from mdm_jax.evaluation.puzzles import Decode
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.report.progress import Bar

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
    batch_size = min(batch_size, len(prompts))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(len(prompts)))
    order = np.argsort(lengths, kind="stable")
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    tokens: list[np.ndarray] = [np.empty(0, np.int32)] * len(prompts)
    calls, shapes, begin = [], [], time.perf_counter()
    for batch in Bar(batches, desc=progress, unit="batch", disable=progress is None, leave=False):
        rows = np.resize(batch, batch_size)  # the last batch repeats prompts of its own
        length = padded_length(int(lengths[batch].max()) + num_new)
        x_init = np.full((batch_size, min(length, max_length or length)), pad_id, np.int32)
        for row, number in zip(x_init, rows, strict=True):
            row[: lengths[number]] = prompts[number]
            row[lengths[number] : lengths[number] + num_new] = mask_id
        result = decode(keys[rows], jnp.asarray(x_init))
        filled = np.asarray(result.tokens)
        for row, number in zip(filled, batch, strict=False):
            tokens[number] = row[lengths[number] : lengths[number] + num_new]
        calls.append(int(result.nfe))
        shapes.append(x_init.shape)
    return Continued(tokens, float(np.mean(calls)), time.perf_counter() - begin, shapes)

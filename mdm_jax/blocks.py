"""Blocks of a sequence, for sampling block by block, and the window of a row's open block.

A sequence of L positions is cut into blocks of W positions from the left; the last block may be
shorter. A window is the W neighbouring positions that a step reads of a row. W is static, and the
start of a window is traced, so that one program serves all blocks.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array, Features


def leftmost_block(is_open: Array, block_length: int, *, together: bool, left: Array | int = 0) -> tuple[Array, Array]:
    """Finds the leftmost block of each row that has an open position.

    Args:
      is_open: bool [B, L], the open positions of the whole sequence.
      block_length: W.
      together: whether all rows take one block, the leftmost in which any row has an open position.
      left: int32 [B], the first position of each row's first block; open positions lie behind it.

    Returns:
      The index of the block, int32 [B], and the open positions in it, bool [B, L].
    """
    block_of = (jnp.arange(is_open.shape[1], dtype=jnp.int32)[None] - jnp.reshape(left, (-1, 1))) // block_length
    candidates = is_open
    if together:
        candidates = jnp.broadcast_to(is_open.any(axis=0, keepdims=True), is_open.shape)
    leftmost = jnp.argmax(candidates, axis=-1, keepdims=True)
    block = jnp.take_along_axis(jnp.broadcast_to(block_of, is_open.shape), leftmost, axis=1)
    return block[:, 0], is_open & (block_of == block)


def window_start(block: Array, length: int, block_length: int, left: Array | int = 0) -> Array:
    """The first position of the window of each block, int32 of the shape of `block`.

    If the last block is shorter than W, its window starts before it and ends with the sequence.
    """
    return jnp.minimum(left + block * block_length, length - block_length)


def window_positions(start: Array, block_length: int) -> Array:
    """The positions in each row's window, int32 [B, W], from where it starts, int32 [B]."""
    return start[:, None] + jnp.arange(block_length, dtype=jnp.int32)[None]


def behind_end(is_masked: Array, is_end: Array, is_target: Array) -> Array:
    """The masks of each gap behind its first end, bool [B, L]; a gap is a run of targets.

    Args:
      is_masked: bool [B, L], the targets that are masked.
      is_end: bool [B, L], the revealed targets with a token that ends a text. It counts as the end of
        its gap if no mask of the gap stands before it.
      is_target: bool [B, L], the masks and what was revealed.
    """
    places = jnp.broadcast_to(jnp.arange(is_masked.shape[1], dtype=jnp.int32), is_masked.shape)

    def last(is_one: Array) -> Array:
        return jax.lax.cummax(jnp.where(is_one, places, -1), axis=1)

    given = last(~is_target)
    return is_masked & (last(is_end & (last(is_masked) <= given)) > given)


def take_positions(output: Array | Features, positions: Array) -> Array | Features:
    """The logits [B, L, V], or the Features, at positions int32 [B, W] of each row."""
    if isinstance(output, Features):
        return output._replace(hidden=jnp.take_along_axis(output.hidden, positions[..., None], axis=1))
    return jnp.take_along_axis(output, positions[..., None], axis=1)


def put_window(fields: Any, start: Array, length: int) -> Any:
    """Puts what was computed in a window back into the sequence, with zeros outside the window.

    Args:
      fields: a pytree of arrays [B, W] or [B, W, D].
      start: int32 [B], the first position of each row's window.
      length: L.

    Returns:
      The pytree, with arrays [B, L] or [B, L, D].
    """
    block_length = jax.tree.leaves(fields)[0].shape[1]
    index = jnp.arange(length, dtype=jnp.int32)[None] - start[:, None]
    in_window = (index >= 0) & (index < block_length)
    index = jnp.clip(index, 0, block_length - 1)

    def put(field: Array) -> Array:
        where, which = (in_window, index) if field.ndim == 2 else (in_window[..., None], index[..., None])
        return jnp.where(where, jnp.take_along_axis(field, which, axis=1), 0)

    return jax.tree.map(put, fields)

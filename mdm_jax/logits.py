"""Logits, and what is read off them: made from Features only where they are read, some positions at a time.

The logits of a whole batch, float32 [B, L, V], can be the largest array of a program by far. So training makes them
only where a token is scored, and makes them again in the backward pass instead of keeping them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.checks import as_array, check_targets, vocab_size_of
from mdm_jax.errors import InputError
from mdm_jax.kernels.matmul import linear
from mdm_jax.orders import inverse
from mdm_jax.typing import Array, Features

CHUNK = 1 << 23
"""Logits made at a time for each group of rows: 32 MiB of float32."""


def float_logits(output: Array | Features, mask_id: int | None) -> Array:
    """A network's output as float32 logits in which the mask token cannot be predicted.

    Args:
      output: logits [B, L, V] of any float dtype, or Features.
      mask_id: its logit becomes -inf if it is below V; None if the network knows no mask token.

    Returns:
      float32 [B, L, V].
    """
    if isinstance(output, Features):
        logits = linear(output.hidden, output.head, output.hidden.dtype)
    else:
        logits = output.astype(jnp.float32)
    if mask_id is None or mask_id >= logits.shape[-1]:
        return logits
    is_mask_id = jnp.arange(logits.shape[-1]) == mask_id
    return jnp.where(is_mask_id[None, None], -jnp.inf, logits)


def token_nll(logits: Array, targets: Array) -> Array:
    """-log p(target) in nats: float32 [B, L] from logits float [B, L, V] and targets int32 [B, L].

    NaN where the target is no id below V.
    """
    logits = as_array(logits, "logits", "float of shape [B, L, V]")
    targets = as_array(targets, "targets", "int32 of shape [B, L]")
    if targets.shape != logits.shape[:-1] or not logits.ndim or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise InputError(
            f"targets must be int32 of the logits' shape without V, got {targets.dtype} {targets.shape} for logits "
            f"{logits.shape}"
        )
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    targets = jnp.where(targets < 0, logits.shape[-1], targets)  # a negative index would count from the end
    return -jnp.take_along_axis(log_p, targets[..., None], axis=-1, mode="fill")[..., 0]


def scored_nll(
    output: Array | Features,
    targets: Array,
    is_scored: Array,
    *,
    mask_id: int | None,
    rows: int = 1,
    budget: int | None = None,
) -> Array:
    """-log p(target) where `is_scored`, 0 elsewhere.

    Args:
      output: of the network, logits [B, L, V] or Features.
      targets: int32 [B, L].
      is_scored: bool [B, L].
      mask_id: the mask token's id, which cannot be predicted; None if the network knows none.
      rows: neighbouring rows that share a budget, a divisor of B.
      budget: the most positions that are scored in such a group of rows; logits are made from Features for as many.
        A group that exceeds it is NaN throughout. None for no bound.

    Returns:
      float32 [B, L], nats; NaN where the target is no id below V.

    Raises:
      InputError: a scored target is no id below V, where the values can be looked at.
    """
    check_targets(targets, is_scored, vocab_size_of(output), "x_0")
    if not isinstance(output, Features):
        return jnp.where(is_scored, token_nll(float_logits(output, mask_id), targets), 0)
    hidden, head = output
    groups = (targets.shape[0] // rows, rows * targets.shape[1])
    hidden, is_scored_here = hidden.reshape(*groups, -1), is_scored.reshape(groups)
    targets_here = targets.reshape(groups)
    if budget is None or budget >= groups[1]:
        nll = _in_chunks(Features(hidden, head), targets_here, mask_id)
        return jnp.where(is_scored, nll.reshape(targets.shape), 0)
    scored_first = jnp.argsort(~is_scored_here, axis=-1, stable=True)
    indices = scored_first[:, :budget]
    hidden = jnp.take_along_axis(hidden, indices[..., None], axis=1)
    nll = _in_chunks(Features(hidden, head), jnp.take_along_axis(targets_here, indices, axis=1), mask_id)
    nll = jnp.pad(nll, ((0, 0), (0, groups[1] - budget)))
    nll = jnp.take_along_axis(nll, inverse(scored_first), axis=1)
    nll = jnp.where(is_scored_here.sum(axis=1, keepdims=True) > budget, jnp.nan, nll)
    return jnp.where(is_scored, nll.reshape(targets.shape), 0)


def map_columns(read: Callable[[Array], Any], is_read: Array, size: int) -> Any:
    """`read` where it is wanted, `size` positions of every row at a time; zeros elsewhere.

    Each row's wanted positions come first, and there are as many chunks as the row that wants most needs. Rows stay
    where they lie, so that a batch that is split over devices stays split.

    Args:
      read: indices int32 [B, P], with P = size -> a pytree of arrays [B, P].
      is_read: bool [B, L].
      size: P.

    Returns:
      The pytree, as arrays [B, L].
    """
    batch, length = is_read.shape
    num_chunks = -(-length // size)
    wanted_first = jnp.argsort(~is_read, axis=-1, stable=True).astype(jnp.int32)
    indices = jnp.pad(wanted_first, ((0, 0), (0, num_chunks * size - length)))

    def read_chunk(i: Array, done: Any) -> Any:
        chunk = read(jax.lax.dynamic_slice_in_dim(indices, i * size, size, axis=1))
        return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, i * size, 1), done, chunk)

    most = is_read.sum(axis=-1, dtype=jnp.int32).max()
    like = jax.eval_shape(read, indices[:, :size])
    zeros = jax.tree.map(lambda leaf: jnp.zeros((batch, num_chunks * size), leaf.dtype), like)
    sorted_fields = jax.lax.fori_loop(0, -(-most // size), read_chunk, zeros)
    back = inverse(wanted_first)
    return jax.tree.map(lambda field: jnp.where(is_read, jnp.take_along_axis(field, back, axis=1), 0), sorted_fields)


def _in_chunks(features: Features, targets: Array, mask_id: int | None) -> Array:
    """-log p(target), float32 [G, N], from hidden [G, N, D], `CHUNK` logits per group at a time."""
    num_groups, num_positions = targets.shape
    size = max(CHUNK // features.head.shape[1], 1)
    if num_positions <= size:
        return token_nll(float_logits(features, mask_id), targets)
    num_chunks = -(-num_positions // size)
    padding = (0, num_chunks * size - num_positions)

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), padding, *[(0, 0)] * (x.ndim - 2)))
        return x.reshape(num_groups, num_chunks, size, *x.shape[2:]).swapaxes(0, 1)

    @jax.checkpoint
    def nll_of(chunk: tuple[Array, Array]) -> Array:
        hidden, targets = chunk
        return token_nll(float_logits(Features(hidden, features.head), mask_id), targets)

    nll = jax.lax.map(nll_of, (cut(features.hidden), cut(targets)))
    return nll.swapaxes(0, 1).reshape(num_groups, -1)[:, :num_positions]

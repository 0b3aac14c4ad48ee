"""Logits made from Features only for the positions that are read, a chunk at a time.

The logits of a whole batch, float32 [B, L, V], can be by far the largest array of a program.
Training makes them for scored positions only, and makes them again in the backward pass instead of
keeping them.
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
"""Logits that are made at a time for each group of rows: 32 MiB of float32."""


def float_logits(output: Array | Features, mask_id: int | None) -> Array:
    """The output of a network as float32 logits in which the mask token has -inf.

    Args:
      output: logits [B, L, V] of any float dtype, or Features.
      mask_id: id of the mask token; its logit is set to -inf if it is below V. None sets none.

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
    """-log p(target) of each position, from logits.

    Args:
      logits: float [B, L, V], normalised or not.
      targets: int32 [B, L].

    Returns:
      float32 [B, L], nats; NaN where the target is no id below V.

    Raises:
      InputError: a shape or a dtype is invalid.

    Example:
      logits, targets = jnp.zeros((1, 2, 4)), jnp.array([[0, 3]])
      assert jnp.allclose(mdm_jax.token_nll(logits, targets), jnp.log(4))
    """
    logits = as_array(logits, "logits", "float of shape [B, L, V]")
    targets = as_array(targets, "targets", "int32 of shape [B, L]")
    if targets.shape != logits.shape[:-1] or not logits.ndim or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise InputError(
            f"targets must be int32 of the logits' shape without V, got {targets.dtype} {targets.shape} for logits "
            f"{logits.shape}"
        )
    logits, num = logits.astype(jnp.float32), logits.shape[-1]
    # A look-up of log_softmax would keep a copy of the logits, and scatter into another in the backward pass.
    is_target = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    nll = jax.nn.logsumexp(logits, axis=-1) - jnp.where(is_target, logits, 0).sum(axis=-1)
    return jnp.where((targets >= 0) & (targets < num), nll, jnp.nan)


def scored_nll(
    output: Array | Features,
    targets: Array,
    is_scored: Array,
    *,
    mask_id: int | None,
    rows: int = 1,
    budget: int | None = None,
) -> Array:
    """-log p(target) at scored positions, 0 elsewhere.

    Args:
      output: of the network, logits [B, L, V] or Features.
      targets: int32 [B, L].
      is_scored: bool [B, L].
      mask_id: id of the mask token, which is never predicted; None if the network knows none.
      rows: neighbouring rows in a group that shares a budget, a divisor of B.
      budget: static upper bound on the scored positions of a group. Of Features, logits are made
        for this many positions per group. If a group exceeds it, its values are NaN. None is no
        bound.

    Returns:
      float32 [B, L], nats; NaN where the target is no id below V.

    Raises:
      InputError: a scored target is no id below V, if the values are known.
    """
    check_targets(targets, is_scored, vocab_size_of(output), "x_0")
    if not isinstance(output, Features):
        return jnp.where(is_scored, token_nll(float_logits(output, mask_id), targets), 0)
    hidden, head = output
    groups = (targets.shape[0] // rows, rows * targets.shape[1])
    hidden, grouped_is_scored = hidden.reshape(*groups, -1), is_scored.reshape(groups)
    grouped_targets = targets.reshape(groups)
    if budget is None or budget >= groups[1]:
        nll = _in_chunks(Features(hidden, head), grouped_targets, mask_id)
        return jnp.where(is_scored, nll.reshape(targets.shape), 0)
    scored_first = jnp.argsort(~grouped_is_scored, axis=-1, stable=True)
    indices = scored_first[:, :budget]
    hidden = jnp.take_along_axis(hidden, indices[..., None], axis=1)
    nll = _in_chunks(Features(hidden, head), jnp.take_along_axis(grouped_targets, indices, axis=1), mask_id)
    nll = jnp.pad(nll, ((0, 0), (0, groups[1] - budget)))
    nll = jnp.take_along_axis(nll, inverse(scored_first), axis=1)
    nll = jnp.where(grouped_is_scored.sum(axis=1, keepdims=True) > budget, jnp.nan, nll)
    return jnp.where(is_scored, nll.reshape(targets.shape), 0)


def map_columns(read: Callable[[Array], Any], is_read: Array, size: int) -> Any:
    """Applies `read` to the positions that are read, `size` positions of every row at a time.

    In each row the positions that are read are moved to the front, and as many chunks are computed
    as the row with the most needs. Rows stay in place, so that a batch that is sharded over rows
    stays sharded.

    Args:
      read: indices int32 [B, P], with P = size -> a pytree of arrays [B, P].
      is_read: bool [B, L].
      size: P.

    Returns:
      The pytree, with arrays [B, L] that are 0 where `is_read` is False.
    """
    batch, length = is_read.shape
    num_chunks = -(-length // size)
    read_first = jnp.argsort(~is_read, axis=-1, stable=True).astype(jnp.int32)
    indices = jnp.pad(read_first, ((0, 0), (0, num_chunks * size - length)))

    def read_chunk(i: Array, fields: Any) -> Any:
        chunk = read(jax.lax.dynamic_slice_in_dim(indices, i * size, size, axis=1))
        return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, i * size, 1), fields, chunk)

    most = is_read.sum(axis=-1, dtype=jnp.int32).max()
    like = jax.eval_shape(read, indices[:, :size])
    zeros = jax.tree.map(lambda leaf: jnp.zeros((batch, num_chunks * size), leaf.dtype), like)
    sorted_fields = jax.lax.fori_loop(0, -(-most // size), read_chunk, zeros)
    rank = inverse(read_first)
    return jax.tree.map(lambda field: jnp.where(is_read, jnp.take_along_axis(field, rank, axis=1), 0), sorted_fields)


def _in_chunks(features: Features, targets: Array, mask_id: int | None) -> Array:
    """-log p(target), float32 [G, N], of hidden [G, N, D], `CHUNK` logits per group at a time."""
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

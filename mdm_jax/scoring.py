"""-log p of given tokens, out of logits or, where the vocabulary is large, straight out of Features.

The logits of a whole batch, float32 [B, L, V], can be the largest array of training by far. From Features they are made
only where a token is scored, some positions at a time, and made again in the backward pass instead of being kept.
"""

import jax
import jax.numpy as jnp

from mdm_jax.denoiser import as_array, check_targets, float_logits, vocab_size_of
from mdm_jax.errors import InputError
from mdm_jax.orders import inverse
from mdm_jax.typing import Array, Features

CHUNK = 1 << 23
"""Logits made at a time for each group of rows: 32 MiB of float32."""


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
      budget: the caller's word that at most so many positions are scored in such a group of rows, so that logits are
        made from Features for no more; None if there is no bound.

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
    places = scored_first[:, :budget]
    hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)
    nll = _in_chunks(Features(hidden, head), jnp.take_along_axis(targets_here, places, axis=1), mask_id)
    nll = jnp.pad(nll, ((0, 0), (0, groups[1] - budget)))
    nll = jnp.take_along_axis(nll, inverse(scored_first), axis=1)
    return jnp.where(is_scored, nll.reshape(targets.shape), 0)


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

"""Attention as pure functions, without modules and parameters.

The softmax is in float32, and every product is summed in float32, whatever the dtype of the
operands.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mdm_jax.kernels import cpu, gpu, tpu
from mdm_jax.kernels.matmul import einsum
from mdm_jax.typing import Array

_HIDDEN = -1e30  # finite: a query that sees no key gets the mean of the values instead of NaN
PIECES = {"cpu": cpu.num_pieces}
"""Platform -> (number of heads, scores per head) -> number of pieces that are computed in turn."""


def attention(q: Array, k: Array, v: Array, *, causal: bool, is_real: Array | None) -> Array:
    """Softmax attention, softmax(q·kᵀ) v, in the form for the platform.

    Queries must already be divided by √d: that takes fewer operations than dividing the scores, and
    is done before rounding. If there are fewer key heads than query heads, each key head serves H /
    Hkv neighbouring query heads. Half precision runs in cuDNN's fused kernel on NVIDIA GPUs from
    Ampere on, and in splash attention on TPUs. These keep no scores [B, H, L, L] in memory. All
    else is plain XLA.

    Args:
      q: [B, P, H, d]; products are taken in its dtype. P must be L if causal.
      k: [B, L, Hkv, d], with H a multiple of Hkv.
      v: [B, L, Hkv, d].
      causal: whether a query sees only keys at its own position and before.
      is_real: bool [B, L], keys that may be seen; None for all.

    Returns:
      [B, P, H, d] in q's dtype. For a query that sees no key, output and gradients are finite.
    """

    def plain(q: Array, k: Array, v: Array) -> Array:
        return _by_platform(q, k.swapaxes(1, 2), v.swapaxes(1, 2), _visible(q.shape[1], causal, is_real))

    fused = {}
    if gpu.takes(q):
        fused["cuda"] = partial(gpu.attention, causal=causal, is_real=is_real)
    if q.shape[1] == k.shape[1] and tpu.takes(q):
        fused["tpu"] = partial(tpu.attention, causal=causal, is_real=is_real)
    out: Array = jax.lax.platform_dependent(q, k, v, **fused, default=plain) if fused else plain(q, k, v)
    return out


def cached_attention(q: Array, k: Array, v: Array, positions: Array, *, causal: bool) -> Array:
    """Attention of a part of a sequence over the cached keys and values of the whole sequence.

    Args:
      q: [B, T, H, d], the part, divided by √d.
      k: [B, Hkv, L, d], slot j for position j, with H a multiple of Hkv. Heads come before
        positions, so that a step with one query copies no keys.
      v: [B, Hkv, L, d], finite also at slots that no query sees.
      positions: int [1, T], the positions of the queries.
      causal: whether a query sees only slots up to its own position; else it sees all.

    Returns:
      [B, T, H, d] in q's dtype.
    """
    slots = jnp.arange(k.shape[2], dtype=positions.dtype)
    visible = (slots[None, :] <= positions[0][:, None])[None, None] if causal else None
    return _by_platform(q, k, v, visible)


def _visible(length: int, causal: bool, is_real: Array | None) -> Array | None:
    """The keys that each query sees, bool [B or 1, 1, L or 1, L] over (row, head, query, key).

    None if all queries see all keys.
    """
    before = jnp.tril(jnp.ones((1, 1, length, length), dtype=bool)) if causal else None
    real = None if is_real is None else is_real[:, None, None, :]
    if before is None or real is None:
        return before if real is None else real
    return before & real


def _by_platform(q: Array, k: Array, v: Array, visible: Array | None) -> Array:
    """`xla_attention`, in several pieces on the platforms in `PIECES`."""
    num_heads = k.shape[0] * k.shape[1]
    num_scores = q.shape[1] * k.shape[2] * (q.shape[2] // k.shape[1])
    pieces = {platform: num_pieces(num_heads, num_scores) for platform, num_pieces in PIECES.items()}
    forms = {platform: partial(xla_attention, num_pieces=number) for platform, number in pieces.items() if number > 1}
    if not forms:
        return xla_attention(q, k, v, visible)
    out: Array = jax.lax.platform_dependent(q, k, v, visible, **forms, default=xla_attention)
    return out


def xla_attention(q: Array, k: Array, v: Array, visible: Array | None, *, num_pieces: int = 1) -> Array:
    """Attention in plain XLA: heads before positions, and the softmax divided after the products.

    Args:
      q: [B, T, H, d], divided by √d.
      k: [B, Hkv, L, d].
      v: [B, Hkv, L, d].
      visible: bool [B or 1, 1, T or 1, L], the keys that each query sees; None if they see all.
      num_pieces: number of pieces into which the B · Hkv heads are cut, to be computed in turn.

    Returns:
      [B, T, H, d] in q's dtype.
    """
    batch, length, heads, depth = q.shape
    kv_heads = k.shape[1]
    groups = heads // kv_heads
    rows = q.reshape(batch, length, kv_heads, groups, depth).transpose(0, 2, 3, 1, 4)

    def of_head(rows: Array, k: Array, v: Array, visible: Array | None) -> Array:
        """One key head of one sequence: [G, T, d], [L, d], [L, d] and [1, T or 1, L] -> [G, T, d].

        The G query heads of the key head become rows of one product. The result is float32.
        """
        scores = einsum("qd,kd->qk", rows.reshape(-1, depth), k, q.dtype)
        if visible is not None:
            grouped = scores.reshape(groups, length, -1)
            scores = jnp.where(visible, grouped, _HIDDEN).reshape(scores.shape)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        out = einsum("qk,kd->qd", weights, v, q.dtype) / weights.sum(axis=-1, keepdims=True)
        return out.reshape(rows.shape)

    if visible is not None:
        visible = jnp.broadcast_to(visible, (batch, *visible.shape[1:]))
    if num_pieces == 1:
        out = jax.vmap(jax.vmap(of_head, (0, 0, 0, None)))(rows, k, v, visible)
    else:

        def of_index(operands: tuple[Array, Array, Array, Array]) -> Array:
            index, rows, k, v = operands
            return of_head(rows, k, v, None if visible is None else visible[index // kv_heads])

        num_heads = batch * kv_heads
        per_head = (x.reshape(num_heads, *x.shape[2:]) for x in (rows, k, v))
        out = jax.lax.map(of_index, (jnp.arange(num_heads), *per_head), batch_size=-(-num_heads // num_pieces))
    out = out.reshape(batch, kv_heads, groups, length, depth).transpose(0, 3, 1, 2, 4)
    return out.reshape(q.shape).astype(q.dtype)

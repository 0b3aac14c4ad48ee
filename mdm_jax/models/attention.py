"""Attention, as pure functions: no module, no parameters.

Softmax is float32 and every product accumulates in float32, whatever the dtype of the operands.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.products import contract
from mdm_jax.typing import Array

SCORES = 1 << 21
"""A CPU alone makes so many scores at a time, 8 MiB: about what its caches hold. For 12 heads over 1,024 positions that
takes a third of the time. (Pieces of what is split over devices would be gathered on all of them.)"""
_HIDDEN = -1e30  # finite, so that a query that sees no key gets the mean of the values and no NaN


def positions_from(is_real: Array) -> Array:
    """Positions counted from each row's first real token, so that left padding shifts nothing.

    Args:
      is_real: bool [B, L], False where the token is padding.

    Returns:
      int32 [B, L]; 0 on the padding before the first real token. A row of nothing but padding counts from its start.
    """
    first = jnp.argmax(is_real, axis=1).astype(jnp.int32)
    index = jnp.arange(is_real.shape[1], dtype=jnp.int32)
    return jnp.maximum(index[None, :] - first[:, None], 0)


def rotation(positions: Array | np.ndarray, width: int, theta: float) -> tuple[Array, Array]:
    """The cosines and sines of RoPE's angles, position · theta^(-2j/d).

    Of positions that are NumPy's they are constants of the program. Those of others XLA's CPU backend makes anew for
    every head that reads them, which takes as long as a product.

    Args:
      positions: int [B, L], or [1, L] if all rows agree.
      width: d of a head, even.
      theta: the base of the wavelengths.

    Returns:
      Two of float32 [B or 1, L, d / 2].
    """
    frequencies = np.asarray(theta ** (-np.arange(width // 2) / (width // 2)), dtype=np.float32)
    angles = positions.astype(np.float32)[..., None] * frequencies[None, None]
    if isinstance(angles, np.ndarray):
        return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))
    return jnp.cos(angles), jnp.sin(angles)


def rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary position embedding: the pair (x_j, x_{j + d/2}) is turned by its angle.

    Source: Su et al. 2021 (arXiv:2104.09864), with the pairing of LLaMA's published weights (halves, not neighbours).

    Args:
      x: [B, L, H, d], d even.
      cos: float32 [B or 1, L, d / 2], as from `rotation`.
      sin: the same.

    Returns:
      [B, L, H, d] in the dtype of `x`; the rotation itself is float32.
    """
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attention(q: Array, k: Array, v: Array, *, causal: bool, is_real: Array | None) -> Array:
    """Softmax attention, softmax(q·kᵀ) v, in the fastest form that this backend has.

    The queries come divided by √d: that is less work than dividing scores, and before they are rounded nothing is lost.

    NVIDIA GPUs of the Ampere generation or later run cuDNN's fused kernel for half precision; everything else runs
    plain XLA. With fewer heads of keys than of queries, each key head serves H / Hkv neighbouring query heads.

    Args:
      q: [B, P, H, d]; its dtype is what is multiplied in. P is L if causal; if not, any positions may ask.
      k: [B, L, Hkv, d], H a multiple of Hkv.
      v: [B, L, Hkv, d].
      causal: whether a query sees only keys at its own position and before.
      is_real: bool [B, L], the keys that may be seen; None for all of them.

    Returns:
      [B, P, H, d] in q's dtype. A query that sees no key gets something finite, as do its gradients.
    """
    if _cudnn_takes(q):
        return _cudnn_attention(q, k, v, causal=causal, is_real=is_real)
    return _xla_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), _visible(q.shape[1], causal, is_real))


def cached_attention(q: Array, k: Array, v: Array, positions: Array, *, causal: bool) -> Array:
    """Attention of a piece of a sequence over the cached keys and values of the whole.

    Args:
      q: [B, T, H, d], the piece, divided by √d.
      k: [B, Hkv, L, d], slot j for position j; H a multiple of Hkv. Heads lie before positions, so that a step that
        asks with one query copies no key.
      v: [B, Hkv, L, d], finite also where no query sees it.
      positions: int [1, T], those of the queries.
      causal: whether each sees the slots up to its own; if not, it sees all.

    Returns:
      [B, T, H, d] in q's dtype.
    """
    slots = jnp.arange(k.shape[2], dtype=positions.dtype)
    visible = (slots[None, :] <= positions[0][:, None])[None, None] if causal else None
    return _xla_attention(q, k, v, visible)


def _visible(length: int, causal: bool, is_real: Array | None) -> Array | None:
    """Which key each query sees, bool [B or 1, 1, L or 1, L] over (row, head, query, key); None if all see all."""
    before = jnp.tril(jnp.ones((1, 1, length, length), dtype=bool)) if causal else None
    real = None if is_real is None else is_real[:, None, None, :]
    if before is None or real is None:
        return before if real is None else real
    return before & real


def _xla_attention(q: Array, k: Array, v: Array, visible: Array | None) -> Array:
    """The form that is fastest on CPU: heads before positions, and the division by the softmax sum after P·V.

    There it also takes as many heads at a time as SCORES says.
    q [B, T, H, d], k and v [B, Hkv, L, d], visible bool [B or 1, 1, T or 1, L], or None if all is.
    """
    batch, length, heads, depth = q.shape
    kv_heads = k.shape[1]
    groups = heads // kv_heads
    rows = q.reshape(batch, length, kv_heads, groups, depth).transpose(0, 2, 3, 1, 4)

    def of_head(rows: Array, k: Array, v: Array, visible: Array | None) -> Array:
        """One key head of one sequence: [G, T, d], [L, d], [L, d] and [1, T or 1, L] -> float32 [G, T, d].

        Its query heads are more rows of the same product.
        """
        scores = contract("qd,kd->qk", rows.reshape(-1, depth), k, q.dtype)
        if visible is not None:
            grouped = scores.reshape(groups, length, -1)
            scores = jnp.where(visible, grouped, _HIDDEN).reshape(scores.shape)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        out = contract("qk,kd->qd", weights, v, q.dtype) / weights.sum(axis=-1, keepdims=True)
        return out.reshape(rows.shape)

    if visible is not None:
        visible = jnp.broadcast_to(visible, (batch, *visible.shape[1:]))
    num_heads = batch * kv_heads
    num_pieces = -(-num_heads // max(SCORES // (groups * length * k.shape[2]), 1))
    if num_pieces <= 1 or jax.default_backend() != "cpu" or jax.device_count() > 1:
        out = jax.vmap(jax.vmap(of_head, (0, 0, 0, None)))(rows, k, v, visible)
    else:

        def of_index(operands: tuple[Array, Array, Array, Array]) -> Array:
            index, rows, k, v = operands
            return of_head(rows, k, v, None if visible is None else visible[index // kv_heads])

        each = (x.reshape(num_heads, *x.shape[2:]) for x in (rows, k, v))
        out = jax.lax.map(of_index, (jnp.arange(num_heads), *each), batch_size=-(-num_heads // num_pieces))
    out = out.reshape(batch, kv_heads, groups, length, depth).transpose(0, 3, 1, 2, 4)
    return out.reshape(q.shape).astype(q.dtype)


def _cudnn_takes(q: Array) -> bool:
    """Whether cuDNN's fused attention can run on the default device for queries [B, L, H, d] like these."""
    if jax.default_backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    generation = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")[0]  # AMD's read "gfx90a"
    return generation.isdigit() and int(generation) >= 8 and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0


def _cudnn_attention(q: Array, k: Array, v: Array, *, causal: bool, is_real: Array | None) -> Array:
    length = q.shape[1]
    if is_real is None:
        return jax.nn.dot_product_attention(q, k, v, scale=1.0, is_causal=causal, implementation="cudnn")
    # A mask becomes cuDNN's bias, whose gradient kernel takes even lengths only: one hidden key makes an odd one even.
    q, k, v, is_real = (_even(x) for x in (q, k, v, is_real))
    visible = _visible(k.shape[1], causal, is_real)
    assert visible is not None
    mask = jnp.broadcast_to(visible, (q.shape[0], 1, q.shape[1], k.shape[1]))
    return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=1.0, implementation="cudnn")[:, :length]


def _even(x: Array) -> Array:
    """[B, L, ...] with an even L: zeros, or False, at one more position if it is odd."""
    return jnp.pad(x, [(0, 0), (0, x.shape[1] % 2)] + [(0, 0)] * (x.ndim - 2))

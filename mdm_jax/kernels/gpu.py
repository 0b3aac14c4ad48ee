"""Attention for NVIDIA GPUs: cuDNN's fused kernel, which keeps no scores in memory."""

from typing import Literal

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array


def takes(q: Array) -> bool:
    """Whether cuDNN's attention supports queries [B, P, H, d] like these on the default device.

    It supports half precision, and head widths that are multiples of 8 up to 128, on GPUs of the
    Ampere generation or later.
    """
    if jax.default_backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    generation = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")[0]  # AMD's is "gfx90a"
    return generation.isdigit() and int(generation) >= 8 and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool,
    is_real: Array | None,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> Array:
    """Attention as `kernels.attention.attention`, by cuDNN, or by JAX's own implementation ("xla").

    Right padding is passed as sequence lengths, which cost nothing. Other padding is passed as a
    mask [B, 1, L, L].
    """
    if is_real is None:
        return jax.nn.dot_product_attention(q, k, v, scale=1.0, is_causal=causal, implementation=implementation)

    def by_lengths(q: Array, k: Array, v: Array) -> Array:
        all_queries = jnp.full(q.shape[0], q.shape[1], jnp.int32)
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            scale=1.0,
            is_causal=causal,
            query_seq_lengths=all_queries,
            key_value_seq_lengths=lengths,
            implementation=implementation,
        )

    def by_mask(q: Array, k: Array, v: Array) -> Array:
        # cuDNN takes a mask as a bias, whose gradient kernel needs an even length: hide one more key.
        length = q.shape[1]
        q, k, v, real = (_even(x) for x in (q, k, v, is_real))
        visible = jnp.broadcast_to(real[:, None, None, :], (q.shape[0], 1, q.shape[1], k.shape[1]))
        if causal:
            visible &= jnp.tril(jnp.ones(visible.shape[2:], dtype=bool))[None, None]
        out = jax.nn.dot_product_attention(q, k, v, mask=visible, scale=1.0, implementation=implementation)
        return out[:, :length]

    # A row that is all padding sees its first key, so that its output is finite.
    lengths = jnp.maximum(is_real.sum(axis=1, dtype=jnp.int32), 1)
    index = jnp.arange(is_real.shape[1], dtype=jnp.int32)
    is_right_padded = jnp.all((index[None] < lengths[:, None]) == is_real.at[:, 0].set(True))
    out: Array = jax.lax.cond(is_right_padded, by_lengths, by_mask, q, k, v)
    return out


def _even(x: Array) -> Array:
    """Pads [B, L, ...] with one position of zeros (or False) if L is odd."""
    return jnp.pad(x, [(0, 0), (0, x.shape[1] % 2)] + [(0, 0)] * (x.ndim - 2))

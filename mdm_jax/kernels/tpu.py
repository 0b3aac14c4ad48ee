"""Attention for TPUs: splash attention, a Pallas kernel in JAX, which keeps no scores in memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mdm_jax.typing import Array

LEAST_LENGTH = 256
"""The shortest sequence for the kernel. It gains nothing on shorter ones, whose scores are small."""
BLOCKS = (512, 256, 128)
"""Positions per block of the kernel: the first number that divides the padded length."""


def takes(q: Array) -> bool:
    """Whether splash attention supports queries [B, L, H, d] like these.

    It multiplies in half precision, so that float32 takes the plain form. XLA cannot shard it by
    itself: with several devices it needs the mesh of the program
    (`jax.sharding.use_abstract_mesh`).
    """
    is_half = q.dtype in (jnp.bfloat16, jnp.float16)
    return is_half and q.shape[1] >= LEAST_LENGTH and (_mesh().size > 1 or jax.device_count() == 1)


def attention(q: Array, k: Array, v: Array, *, causal: bool, is_real: Array | None, interpret: bool = False) -> Array:
    """Attention as `kernels.attention.attention`, for equally many queries and keys.

    On a mesh the batch is split over all axes except "tensor", and heads over "tensor", where the
    numbers are divisible. `interpret` runs the kernel on any backend.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length = q.shape[1]
    padding = -length % BLOCKS[-1]
    padded = length + padding
    block = next(block for block in BLOCKS if padded % block == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask_class: Any = splash.CausalMask if causal else splash.FullMask
    is_valid = jnp.ones(k.shape[:2], jnp.int32) if is_real is None else is_real.astype(jnp.int32)
    is_valid = jnp.pad(is_valid, ((0, 0), (0, padding)))

    def local(q: Array, k: Array, v: Array, is_valid: Array) -> Array:
        mask = splash.MultiHeadMask([mask_class((padded, padded))] * q.shape[1])
        kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret)
        segments = splash.SegmentIds(q=jnp.ones_like(is_valid), kv=is_valid)
        out: Array = jax.vmap(kernel)(q, k, v, segments)
        return out

    def heads_first(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))).swapaxes(1, 2)

    mesh = _mesh()
    if mesh.size > 1:
        rows: tuple[str, ...] | None = tuple(axis for axis in mesh.axis_names if axis != "tensor")
        if q.shape[0] % math.prod(mesh.shape[axis] for axis in rows or ()):
            rows = None
        splits = "tensor" in mesh.axis_names and k.shape[2] % mesh.shape["tensor"] == 0
        spec = PartitionSpec(rows, "tensor" if splits else None)
        local = jax.shard_map(
            local, mesh=mesh, in_specs=(spec, spec, spec, PartitionSpec(rows)), out_specs=spec, check_vma=False
        )
    return local(heads_first(q), heads_first(k), heads_first(v), is_valid).swapaxes(1, 2)[:, :length]


def _mesh() -> Any:
    return jax.sharding.get_abstract_mesh()

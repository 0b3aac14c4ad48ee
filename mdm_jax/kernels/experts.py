"""Routed experts: each row of a matrix goes through a few of many networks of one shape.

A TPU multiplies rows that are sorted by expert with one kernel after the other. XLA has no such
product on other backends, and would multiply every sorted row by every kernel. There all experts
take the rows as they are, which is less, and splits over devices by experts.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mdm_jax.kernels.matmul import einsum
from mdm_jax.typing import Array


def swiglu_experts(
    x: Array, chosen: Array, shares: Array, gate: Array, up: Array, down: Array, dtype: jax.typing.DTypeLike
) -> Array:
    """Σ_j shares[n, j] · (silu(x[n] · gate[e]) · (x[n] · up[e])) · down[e], e = chosen[n, j].

    Products are as those of `matmul.einsum`.

    Args:
      x: float [N, D].
      chosen: int32 [N, k], experts of each row, all different.
      shares: float32 [N, k], their weights in the sum.
      gate: [E, D, F].
      up: [E, D, F].
      down: [E, F, D].
      dtype: of the operands in multiplications.

    Returns:
      float32 [N, D].
    """
    forms = {"tpu": partial(by_expert, dtype=jnp.dtype(dtype))}
    every = partial(by_row, dtype=jnp.dtype(dtype))
    out: Array = jax.lax.platform_dependent(x, chosen, shares, gate, up, down, **forms, default=every)
    return out


def by_row(
    x: Array, chosen: Array, shares: Array, gate: Array, up: Array, down: Array, *, dtype: jax.typing.DTypeLike
) -> Array:
    """`swiglu_experts` with all experts for every row: memory [E, N, F]."""
    weights = jnp.zeros((x.shape[0], gate.shape[0]), shares.dtype)
    weights = weights.at[jnp.arange(x.shape[0])[:, None], chosen].set(shares)
    hidden = jax.nn.silu(einsum("nd,edf->enf", x, gate, dtype)) * einsum("nd,edf->enf", x, up, dtype)
    return einsum("enf,efd->nd", hidden * weights.T[..., None], down, dtype)


def by_expert(
    x: Array, chosen: Array, shares: Array, gate: Array, up: Array, down: Array, *, dtype: jax.typing.DTypeLike
) -> Array:
    """`swiglu_experts` with a copy of each row for each of its experts, sorted by these: memory [N · k, D]."""
    order = jnp.argsort(chosen.reshape(-1), stable=True)
    sizes = jnp.bincount(chosen.reshape(-1), length=gate.shape[0]).astype(jnp.int32)
    rows = x[order // chosen.shape[1]]
    hidden = jax.nn.silu(grouped(rows, gate, sizes, dtype)) * grouped(rows, up, sizes, dtype)
    out = grouped(hidden * shares.reshape(-1)[order][:, None], down, sizes, dtype)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return out[back].reshape(*chosen.shape, -1).sum(axis=1)


def grouped(x: Array, kernels: Array, sizes: Array, dtype: jax.typing.DTypeLike) -> Array:
    """Multiplies the first sizes[0] rows of x by the first kernel, the next sizes[1] by the second, and so on.

    Args:
      x: float [N, in].
      kernels: [E, in, out].
      sizes: int32 [E], N in all.
      dtype: of the operands, in the backward pass too.

    Returns:
      float32 [N, out].
    """
    return _grouped(jnp.dtype(dtype), x, kernels, sizes)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(dtype: jnp.dtype, x: Array, kernels: Array, sizes: Array) -> Array:
    return _ragged(x.astype(dtype), kernels.astype(dtype), sizes)


def _ragged(x: Array, kernels: Array, sizes: Array) -> Array:
    return jax.lax.ragged_dot(
        x, kernels, sizes, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )


def _forward(
    dtype: jnp.dtype, x: Array, kernels: Array, sizes: Array
) -> tuple[Array, tuple[Array, Array, Array, Array, Array]]:
    low_x, low_kernels = x.astype(dtype), kernels.astype(dtype)
    likes = jnp.empty(0, x.dtype), jnp.empty(0, kernels.dtype)
    return _ragged(low_x, low_kernels, sizes), (low_x, low_kernels, sizes, *likes)


def _backward(
    dtype: jnp.dtype, residuals: tuple[Array, Array, Array, Array, Array], cotangent: Array
) -> tuple[Array, Array, None]:
    x, kernels, sizes, like_x, like_kernels = residuals
    cotangent = cotangent.astype(dtype)
    grad_x = _ragged(cotangent, kernels.swapaxes(1, 2), sizes)
    numbers = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
    )
    grad_kernels = jax.lax.ragged_dot_general(
        x, cotangent, sizes, numbers, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return grad_x.astype(like_x.dtype), grad_kernels.astype(like_kernels.dtype), None


_grouped.defvjp(_forward, _backward)

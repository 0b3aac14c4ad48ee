"""Forms for XLA's CPU backend (0.10). They change results by rounding only.

This backend compiles each of them to its fast matrix kernels, and the plain form to a scalar loop.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array

SCORES = 1 << 21
"""Attention scores per piece: 8 MiB of float32, about the size of the caches."""


def product(spec: str, x: Array, y: Array, *, plain: Callable[[str, Array, Array], Array]) -> Array:
    """A matrix product that XLA cannot fuse with neighbouring operations.

    Fusion makes the backward pass of an MLP two to three times slower. In low precision there are
    no fast kernels for a product with a fused transposition, or for a sum over the rows of the left
    operand, which is the gradient of a weight. In the latter case the smaller operand is transposed
    in memory and put on the left, which takes about a quarter of the time of the product. With
    several devices nothing is transposed, since that would gather a sharded operand on every
    device.
    """
    left, right, out = spec.replace("->", ",").split(",")
    if x.dtype == jnp.float32 or left[-1] not in out or jax.device_count() > 1:
        x, y = jax.lax.optimization_barrier((x, y))
        return jax.lax.optimization_barrier(plain(spec, x, y))
    if y.size < x.size:
        x, y, left, right = y, x, right, left
    rows_first = "".join(sorted(left, key=lambda letter: letter not in out))
    out_as_computed = "".join(dict.fromkeys(letter for letter in rows_first + right if letter in out))
    x, y = jax.lax.optimization_barrier((_transposed(x, left, rows_first), y))
    z = plain(f"{rows_first},{right}->{out_as_computed}", x, y)
    return _transposed(jax.lax.optimization_barrier(z), out_as_computed, out)


def _transposed(x: Array, axes: str, to: str) -> Array:
    """Reorders the axes in memory. The flattening in between prevents XLA from fusing it."""
    if axes == to:
        return x
    x = x.transpose([axes.index(letter) for letter in to])
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


def num_pieces(num_heads: int, num_scores: int) -> int:
    """Number of pieces for attention over `num_heads` heads with `num_scores` scores each.

    The pieces are computed in turn. For 12 heads over 1,024 positions they take a third of the time
    of the whole. With several devices the number is 1, since pieces of sharded heads would be
    gathered on every device.
    """
    return 1 if jax.device_count() > 1 else -(-num_heads // max(SCORES // num_scores, 1))

"""What XLA's CPU backend (0.10) wants. Results change by rounding only.

Each form here is one that this backend compiles to its fast matrix kernels, where the plain one falls to a scalar loop.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array

SCORES = 1 << 21
"""Attention scores at a time, 8 MiB of float32: about what the caches hold."""


def product(spec: str, x: Array, y: Array, *, plain: Callable[[str, Array, Array], Array]) -> Array:
    """A matrix product into which no neighbouring operation is folded.

    Folded operations make the backward pass of an MLP two to three times slower. A low-precision product with a folded
    transposition has no fast kernel at all, and neither has one that sums over the rows of its left operand, as the
    gradient of a weight does: there one operand is transposed in memory and put on the left. It is the smaller one,
    since transposing takes as long as a quarter of the product. Operands that are split over devices are left as they
    are: transposing would gather them on every device.
    """
    left, right, out = spec.replace("->", ",").split(",")
    if x.dtype == jnp.float32 or left[-1] not in out or jax.device_count() > 1:
        x, y = jax.lax.optimization_barrier((x, y))
        return jax.lax.optimization_barrier(plain(spec, x, y))
    if y.size < x.size:
        x, y, left, right = y, x, right, left
    rows_first = "".join(sorted(left, key=lambda letter: letter not in out))
    natural = "".join(dict.fromkeys(letter for letter in rows_first + right if letter in out))
    x, y = jax.lax.optimization_barrier((_transposed(x, left, rows_first), y))
    z = plain(f"{rows_first},{right}->{natural}", x, y)
    return _transposed(jax.lax.optimization_barrier(z), natural, out)


def _transposed(x: Array, axes: str, to: str) -> Array:
    """Reorders the axes in memory: XLA would fold a transposition that is not flattened in between into its reader."""
    if axes == to:
        return x
    x = x.transpose([axes.index(letter) for letter in to])
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


def num_pieces(num_heads: int, num_scores: int) -> int:
    """Into how many pieces attention over so many heads of so many scores each is cut, one after the other.

    For 12 heads over 1,024 positions pieces take a third of the time. Heads that are split over devices stay in one
    piece: pieces would be gathered on every device.
    """
    return 1 if jax.device_count() > 1 else -(-num_heads // max(SCORES // num_scores, 1))

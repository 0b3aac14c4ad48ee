"""What this device can do, measured on the spot: a large matrix product and a large copy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax.evaluation.benchmark import seconds
from mdm_jax.kernels.matmul import einsum


class Roofline(NamedTuple):
    """The two rates that bound everything."""

    flops: float
    """of matrix products, per second"""
    bytes: float
    """copied per second, read and written both counted"""

    def seconds(self, flops: float, num_bytes: float) -> float:
        """The least time for so many operations and so many bytes read or written."""
        return max(flops / self.flops, num_bytes / self.bytes)


def measure(dtype: str) -> Roofline:
    """The best of a few tries of each."""
    is_cpu = jax.default_backend() == "cpu"
    size, length = (2048, 1 << 26) if is_cpu else (8192, 1 << 29)
    x = jnp.ones((size, size), dtype)
    copied = jnp.ones(length, jnp.float32)
    product = jax.jit(lambda x: einsum("ij,jk->ik", x, x, dtype))
    copy = jax.jit(lambda x: x + 1)
    flops = 2 * size**3 / best(lambda: product(x))
    return Roofline(flops, 8 * length / best(lambda: copy(copied)))


def best(work: Callable[[], Any], tries: int = 5) -> float:
    """Seconds of the fastest of a few calls, after one that compiles."""
    return min(seconds(work) for _ in range(tries + 1))

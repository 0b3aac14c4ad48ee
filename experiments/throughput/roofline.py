"""Measures the two peak rates of this device: a large matrix product and a large copy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax.evaluation.benchmark import seconds
from mdm_jax.kernels.matmul import einsum


class Roofline(NamedTuple):
    """The peak rates of compute and of memory."""

    flops: float
    """of matrix products, per second"""
    bytes: float
    """copied per second, counting reads and writes"""

    def seconds(self, flops: float, num_bytes: float) -> float:
        """The shortest time for a number of operations and a number of bytes read or written."""
        return max(flops / self.flops, num_bytes / self.bytes)


def measure(dtype: str) -> Roofline:
    """Measures each rate as the best of a few tries."""
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

"""numba's home: kernels take their compiler from here, so that one place says how to install it."""

from mdm_jax.errors import of_extra

with of_extra("experiments"):
    from numba import njit, prange

__all__ = ["njit", "prange"]

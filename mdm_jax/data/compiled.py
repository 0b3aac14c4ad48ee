"""The one import of numba. If numba is missing, the error says how to install it."""

from mdm_jax.errors import of_extra

with of_extra("experiments"):
    from numba import njit, prange

__all__ = ["njit", "prange"]

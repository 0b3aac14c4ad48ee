"""What the data of all tasks share. NumPy in, NumPy out, no JAX."""

from mdm_jax.data.caches import find_numba_cache

find_numba_cache()

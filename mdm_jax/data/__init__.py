"""Tasks and their data: NumPy in, NumPy out, no JAX; kernels that numba compiles, pipelines of batches."""

from mdm_jax.data.caches import find_numba_cache

find_numba_cache()

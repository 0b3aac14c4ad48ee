"""Matrix products and attention, in the form that each backend needs. Only here a backend is named.

Other modules call `matmul` and `attention`. These choose by `jax.lax.platform_dependent`, so that a
program gets the form of the platform that it is compiled for, wherever it is traced.
"""

"""Matrix products and attention, and what each backend wants of them: the only files that name one.

`matmul` and `attention` are what the rest calls. They choose by `jax.lax.platform_dependent`, so that a program that is
compiled for a platform gets that platform's form, wherever it is traced.
"""

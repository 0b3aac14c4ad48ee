"""Matrix products in a given dtype, summed in float32, with an equally fast backward pass.

The precision is the same on every backend. float32 is multiplied in float32; XLA's default would be
TF32 on a GPU and bfloat16 on a TPU. Lower precision rounds the operands to the dtype and sums the
products in float32.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mdm_jax.kernels import cpu
from mdm_jax.typing import Array


def einsum(spec: str, x: Array, y: Array, dtype: jax.typing.DTypeLike) -> Array:
    """The einsum of two operands that are cast to `dtype`, summed in float32.

    Below float32 the backward pass casts the cotangent to `dtype` too. JAX's own derivative would
    multiply it in float32, without the fast units of an accelerator.

    Args:
      spec: "left,right->out". Each letter occurs in exactly two of the three, as in any matrix
        product.
      x: left operand, any float dtype.
      y: right operand, any float dtype.
      dtype: of the operands in the multiplication.

    Returns:
      float32, of the shape given by `spec`.
    """
    dtype = jnp.dtype(dtype)
    if dtype == jnp.float32:
        return _product(spec, x.astype(dtype), y.astype(dtype))
    return _low_precision(spec, dtype, x, y)


def linear(x: Array, kernel: Array, dtype: jax.typing.DTypeLike) -> Array:
    """Multiplies x by a kernel over its last axis: [..., in] -> float32 [..., out], as `einsum`."""
    return einsum("mi,io->mo", x.reshape(-1, x.shape[-1]), kernel, dtype).reshape(*x.shape[:-1], -1)


def plain(spec: str, x: Array, y: Array) -> Array:
    """The product of two operands of one dtype, summed in float32, on any backend."""
    return jnp.einsum(spec, x, y, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


PRODUCTS = {"cpu": cpu.product}
"""Platform -> its form of `plain`: (spec, x, y, plain) -> the same result up to rounding."""


def _product(spec: str, x: Array, y: Array) -> Array:
    forms = {platform: partial(form, spec, plain=plain) for platform, form in PRODUCTS.items()}
    product: Array = jax.lax.platform_dependent(x, y, **forms, default=partial(plain, spec))
    return product


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _low_precision(spec: str, dtype: jnp.dtype, x: Array, y: Array) -> Array:
    return _product(spec, x.astype(dtype), y.astype(dtype))


def _low_precision_forward(
    spec: str, dtype: jnp.dtype, x: Array, y: Array
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    low_x, low_y = x.astype(dtype), y.astype(dtype)
    return _product(spec, low_x, low_y), (low_x, low_y, jnp.empty(0, x.dtype), jnp.empty(0, y.dtype))


def _low_precision_backward(
    spec: str, dtype: jnp.dtype, residuals: tuple[Array, Array, Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, y, like_x, like_y = residuals
    operands, out = spec.split("->")
    left, right = operands.split(",")
    cotangent = cotangent.astype(dtype)
    grad_x = _product(f"{out},{right}->{left}", cotangent, y)
    grad_y = _product(f"{left},{out}->{right}", x, cotangent)
    return grad_x.astype(like_x.dtype), grad_y.astype(like_y.dtype)


_low_precision.defvjp(_low_precision_forward, _low_precision_backward)

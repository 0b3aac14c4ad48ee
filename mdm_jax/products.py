"""Matrix products in a dtype of choice, accumulated in float32, with a backward pass that is as fast."""

from functools import partial

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array


def contract(spec: str, x: Array, y: Array, dtype: jax.typing.DTypeLike) -> Array:
    """The einsum of two operands that are cast to `dtype`, accumulated in float32.

    Below float32 the backward pass casts the cotangent to `dtype` too: left to itself, autodiff would multiply it in
    float32, without the accelerator's fast units.

    Args:
      spec: "left,right->out" in which each letter stands in exactly two of the three, as in any matrix product.
      x: the left operand, any float dtype.
      y: the right operand, any float dtype.
      dtype: what the multiplication units get.

    Returns:
      float32, of the shape that `spec` says.
    """
    dtype = jnp.dtype(dtype)
    if dtype == jnp.float32:
        return _product(spec, x.astype(dtype), y.astype(dtype))
    return _low_precision(spec, dtype, x, y)


def _product(spec: str, x: Array, y: Array) -> Array:
    product = jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
    if x.dtype != jnp.float32 and jax.default_backend() == "cpu":
        # XLA folds a transposition that follows into the product, for which its CPU backend then lacks a kernel.
        product = jax.lax.optimization_barrier(product)
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

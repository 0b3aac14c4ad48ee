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
    if jax.default_backend() != "cpu":
        return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
    # XLA's CPU backend folds neighbouring operations into a product: that makes the backward pass of an MLP two to
    # three times slower, and a low-precision product with a transposition folded in has no kernel at all.
    left, right, out = spec.replace("->", ",").split(",")
    if x.dtype == jnp.float32 or left[-1] not in out or jax.device_count() > 1:
        x, y = jax.lax.optimization_barrier((x, y))
        return jax.lax.optimization_barrier(jnp.einsum(spec, x, y, preferred_element_type=jnp.float32))
    # Nor has one that sums over the rows of its left operand, as the gradient of a weight does. So one of the two is
    # turned and put on the left: the smaller one, since turning takes as long as a quarter of the product. (What is
    # split over devices would be gathered on all of them.)
    if y.size < x.size:
        x, y, left, right = y, x, right, left
    turned = "".join(sorted(left, key=lambda letter: letter not in out))
    natural = "".join(dict.fromkeys(letter for letter in turned + right if letter in out))
    x, y = jax.lax.optimization_barrier((_turned(x, left, turned), y))
    z = jnp.einsum(f"{turned},{right}->{natural}", x, y, preferred_element_type=jnp.float32)
    return _turned(jax.lax.optimization_barrier(z), natural, out)


def _turned(x: Array, axes: str, to: str) -> Array:
    """Reorders the axes, in memory too: what is not flat in between, XLA turns where it is read."""
    if axes == to:
        return x
    x = x.transpose([axes.index(letter) for letter in to])
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


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


def project(x: Array, kernel: Array, dtype: jax.typing.DTypeLike) -> Array:
    """The product x · kernel over the last axis, as `contract` does it: float [..., in] -> float32 [..., out]."""
    return contract("mi,io->mo", x.reshape(-1, x.shape[-1]), kernel, dtype).reshape(*x.shape[:-1], -1)

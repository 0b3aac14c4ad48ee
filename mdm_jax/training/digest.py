"""Digests and shapes of the arrays of a tree, by path, to tell whether two trees are equal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.typing import Array


def digest(tree: Any) -> dict[str, int]:
    """A number for each array, by path: the sum of its words times odd weights, modulo 2^32.

    The weight of a word depends on its position. Any single flipped bit changes the sum; other
    damage goes undetected with a probability of about 2^-32. Sharding does not matter.
    """
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(_digests(tree)))
    return {_name(path): int(value) for path, value in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def shapes(tree: Any) -> dict[str, list[int]]:
    """The shape of every array, by path."""
    return {_name(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _sum_of_bits(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == bool:
        leaf = leaf.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    position, stride = jnp.zeros((1,) * bits.ndim, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        along = tuple(-1 if i == axis else 1 for i in range(bits.ndim))
        position += np.uint32(stride % 2**32) * jnp.arange(bits.shape[axis], dtype=jnp.uint32).reshape(along)
        stride *= bits.shape[axis]
    return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)  # an odd weight keeps every bit


@jax.jit
def _digests(tree: Any) -> Any:
    return jax.tree.map(_sum_of_bits, tree)

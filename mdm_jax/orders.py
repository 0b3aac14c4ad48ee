"""Orders π: π(j) is the position that is revealed j-th. int32 [B, L], a permutation in each row.

Source: Kim et al. 2025, sections 2 and 3.2 (π-learners).
"""

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.checks import as_array, known_values
from mdm_jax.errors import InputError
from mdm_jax.randomness import row_keys
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.typing import Array


def _check_shape(batch: int, length: int) -> None:
    """InputError unless both are integers of at least 1."""
    check_number("batch", batch, Range(1, INT32), whole=True)
    check_number("length", length, Range(1, INT32), whole=True)


def uniform_order(key: Array, batch: int, length: int) -> Array:
    """Draws an order from all L! permutations uniformly, independently for each row.

    Args:
      key: a typed key, scalar or one per row [B]; consumed.
      batch: B, at least 1.
      length: L, at least 1.

    Returns:
      int32 [B, L].

    Raises:
      InputError: the key or a size is invalid.

    Example:
      order = mdm_jax.uniform_order(jax.random.key(0), 2, 4)
      assert jnp.sort(order, axis=-1).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    _check_shape(batch, length)
    positions = jnp.arange(length, dtype=jnp.int32)
    return jax.vmap(lambda row_key: jax.random.permutation(row_key, positions))(row_keys(key, batch))


def identity_order(batch: int, length: int) -> Array:
    """The order from left to right.

    Args:
      batch: B, at least 1.
      length: L, at least 1.

    Returns:
      int32 [B, L].

    Raises:
      InputError: a size is invalid.

    Example:
      assert mdm_jax.identity_order(1, 3).tolist() == [[0, 1, 2]]
    """
    _check_shape(batch, length)
    return jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))


def near_identity_order(key: Array, batch: int, length: int, num_swaps: int) -> Array:
    """Draws the identity with `num_swaps` random transpositions, independently for each row.

    The paper's "closer" orders use L/10 swaps and its "much closer" orders sqrt(L). About L log L
    swaps give a nearly uniform order. Source: Kim et al. 2025, section C.1.

    Args:
      key: a typed key, scalar or one per row [B]; consumed.
      batch: B, at least 1.
      length: L, at least 1, or 2 if there are swaps.
      num_swaps: number of pairs of distinct positions that are exchanged one after the other.

    Returns:
      int32 [B, L].

    Raises:
      InputError: the key, a size or `num_swaps` is invalid.

    Example:
      order = mdm_jax.near_identity_order(jax.random.key(0), 2, 8, num_swaps=1)
      assert (order != mdm_jax.identity_order(2, 8)).sum(axis=-1).tolist() == [2, 2]
    """
    _check_shape(batch, length)
    check_number("num_swaps", num_swaps, Range(0, INT32), whole=True)
    if num_swaps > 0 and length < 2:
        raise InputError(
            f"num_swaps must be at least 0, and 0 for a length below 2; got {num_swaps} at length {length}"
        )

    def draw(row_key: Array) -> tuple[Array, Array]:
        key_first, key_gap = jax.random.split(row_key)
        first = jax.random.randint(key_first, (num_swaps,), 0, length)
        gap = jax.random.randint(key_gap, (num_swaps,), 1, max(length, 2))
        return first, (first + gap) % length

    return swapped(identity_order(batch, length), *jax.vmap(draw)(row_keys(key, batch)))


def swapped(order: Array, first: Array, second: Array) -> Array:
    """Exchanges the entries at positions `first` and `second`, int32 [B, S], pair after pair."""

    def swap_one(row: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        i, j = pair
        return row.at[i].set(row[j]).at[j].set(row[i]), None

    return jax.vmap(lambda row, i, j: jax.lax.scan(swap_one, row, (i, j))[0])(order, first, second)


def inverse(order: Array) -> Array:
    """The rank of each position: `inverse(order)[b, order[b, j]] = j`.

    Args:
      order: int32 [B, L], π.

    Returns:
      int32 [B, L].

    Raises:
      InputError: `order` is no array of integers.

    Example:
      assert mdm_jax.inverse(jnp.array([[2, 0, 1]])).tolist() == [[1, 2, 0]]
    """
    order = as_array(order, "order", "int32 of shape [B, L]")
    if order.ndim < 1 or not jnp.issubdtype(order.dtype, jnp.integer):
        raise InputError(f"order must be int32 of shape [B, L], got {order.dtype} {order.shape}")
    return jnp.argsort(order, axis=-1).astype(jnp.int32)


def check_order(order: Array, tokens: Array) -> Array:
    """`order` as int32.

    Raises:
      InputError: its shape is not that of `tokens`, its dtype is no integer, or a row is no
        permutation, if the values are known.
    """
    order = as_array(order, "order", f"int32 of the tokens' shape {tokens.shape}")
    if order.shape != tokens.shape or not jnp.issubdtype(order.dtype, jnp.integer):
        raise InputError(f"order must be int32 of the tokens' shape {tokens.shape}, got {order.dtype} {order.shape}")
    values = known_values(order)
    if values is not None and (np.sort(values, axis=-1) != np.arange(values.shape[-1])).any():
        raise InputError(f"order must hold in each row every position from 0 to {order.shape[-1] - 1} once")
    return order.astype(jnp.int32)

"""Doing what is wanted and no more: the wanted entries of a batch first, a tile of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array


def ways_of(x: Array) -> int:
    """Over how many devices the rows of [B, ...] are split; if tracing hides it, as many as there are rows."""
    batch = max(x.shape[0], 1)
    if isinstance(x, jax.core.Tracer):
        return 1 if jax.device_count() == 1 else batch
    if not isinstance(x, jax.Array):
        return 1
    return batch // max(x.sharding.shard_shape(x.shape)[0], 1)


def split(x: Array, ways: int) -> Array:
    """[B, ...] -> [W, B / W, ...], each way's entries together."""
    return x.reshape(ways, x.shape[0] // ways, *x.shape[1:])


def pick(x: Array, places: Array) -> Array:
    """Of [W, N, ...], the entries at int32 [W, P] of each way: [W, P, ...]."""
    chosen: Array = jax.vmap(lambda x, places: x[places])(x, places)
    return chosen


def in_tiles(read: Callable[[Array], Any], is_wanted: Array, size: int, like: Any) -> Any:
    """`read` at what is wanted, in as many tiles as the way with the most of it takes; zeros where nothing was read.

    Each way stands by itself, so that ways on several devices stay there.

    Args:
      read: (places int32 [W, P]) -> a pytree of [W, P, ...], for P = size.
      is_wanted: bool [W, N].
      size: P, of a tile.
      like: the pytree of `read` at all N places, as shapes and dtypes [W, N, ...].
    """
    num = is_wanted.shape[1]
    wanted_first = jnp.argsort(~is_wanted, axis=-1, stable=True).astype(jnp.int32)
    places = jnp.pad(wanted_first, ((0, 0), (0, -num % size)), constant_values=num)

    def read_tile(i: Array, done: Any) -> Any:
        here = jax.lax.dynamic_slice_in_dim(places, i * size, size, axis=1)
        tile = read(jnp.minimum(here, num - 1))

        def write(old: Array, new: Array) -> Array:
            written: Array = jax.vmap(lambda old, new, here: old.at[here].set(new, mode="drop"))(old, new, here)
            return written

        return jax.tree.map(write, done, tile)

    num_tiles = -(-is_wanted.sum(axis=-1, dtype=jnp.int32).max(initial=0) // size)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return jax.lax.fori_loop(0, num_tiles, read_tile, zeros)

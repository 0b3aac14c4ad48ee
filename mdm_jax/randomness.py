"""Random draws, keyed by a row, a step of that row, and a position.

A key is folded with these three and with nothing else. So the draws of a row are the same alone and
in any batch, in any place on a mesh, with padding on the right, and for any grouping of positions
into chunks. This holds for JAX's default generator, threefry with `jax_threefry_partitionable`,
whose l-th of L draws does not depend on L. Keys of other generators are turned into keys of that
one.
"""

import jax
import jax.numpy as jnp

from mdm_jax.errors import InputError
from mdm_jax.typing import Array


def threefry(key: Array) -> Array:
    """`key` if it is a threefry key, else a threefry key made from its bits; of the same shape.

    The draws of the "rbg" generators for a row depend on the other rows and on the mesh.

    Raises:
      InputError: `key` is not a typed key.
    """
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InputError(f"key must be a typed key such as jax.random.key(0), got {type(key).__name__}")
    if str(jax.random.key_impl(key)) == "threefry2x32":
        return key
    words = jax.random.key_data(key)
    folded = jax.random.wrap_key_data(words[..., :2], impl="threefry2x32")
    fold = jnp.vectorize(jax.random.fold_in)
    for i in range(2, words.shape[-1]):
        folded = fold(folded, words[..., i])
    return folded


def one_key(key: Array) -> Array:
    """`key` as a threefry key; InputError for an array of keys."""
    key = threefry(key)
    if key.shape != ():
        raise InputError(f"key must be one key, got keys of shape {key.shape}")
    return key


def row_keys(key: Array, batch: int) -> Array:
    """One key per row: `key` folded with the index of the row, or `key` itself if it has shape [B].

    Args:
      key: a typed key, scalar or one per row [B].
      batch: B.

    Returns:
      Typed keys [B].

    Raises:
      InputError: `key` is not a typed key, or has another shape.
    """
    key = threefry(key)
    if key.shape == ():
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    if key.shape == (batch,):
        return key
    raise InputError(f"key must be one key or one per row ({batch}), got keys of shape {key.shape}")


def fold_rows(keys: Array, data: Array | int) -> Array:
    """Folds one number into the key of each row: keys [B] -> keys [B]."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def split_rows(keys: Array, num: int) -> tuple[Array, ...]:
    """Splits the key of each row: keys [B] -> `num` arrays of keys [B]; `keys` are consumed."""
    return jax.vmap(lambda key: tuple(jax.random.split(key, num)))(keys)


def uniform_rows(keys: Array, length: int) -> Array:
    """Uniform draws on [0, 1), float32 [B, L]; keys [B] are consumed."""
    return jax.vmap(lambda key: jax.random.uniform(key, (length,)))(keys)


def position_keys(keys: Array, positions: Array) -> Array:
    """One key per position: keys of rows [B] or [B, P], positions int [B or 1, P] -> keys [B, P]."""
    positions = jnp.broadcast_to(positions, (keys.shape[0], positions.shape[1]))
    of_row = None if keys.ndim == 1 else 0
    return jax.vmap(jax.vmap(jax.random.fold_in, (of_row, 0)))(keys, positions)


def gumbel(keys: Array, num: int) -> Array:
    """Standard Gumbel noise: keys [...] -> float32 [..., num]; the keys are consumed.

    `mode="high"` draws the upper tail too. The default float32 noise is at most 15.94, so that a
    token 16 nats below the best would never be drawn.
    """

    def draw(key: Array) -> Array:
        return jax.random.gumbel(key, (num,), jnp.float32, mode="high")

    return jax.vmap(draw)(keys.reshape(-1)).reshape(*keys.shape, num)


def position_gumbel(keys: Array, length: int) -> Array:
    """Gumbel noise, one draw per position: keys [B] -> float32 [B, L]; the keys are consumed."""
    return gumbel(position_keys(keys, jnp.arange(length)[None]), 1)[..., 0]

"""A Transformer as a Denoiser: a function of parameters and tokens, which can leave out what nobody reads."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import Transformer
from mdm_jax.typing import Array, Features, Params

TILE = {"cpu": 512}
"""Positions that a device computes at a time where rows may be left out: no fewer, or its matrix products slow down."""
TILE_ELSEWHERE = 16_384
"""The same on accelerators, where it has not been measured."""


@dataclasses.dataclass(frozen=True)
class TransformerDenoiser:
    """A Transformer as a Denoiser. Equal and of one hash for equal fields, so that jit compiles it once.

    Attributes:
      config: of the model.
      as_features: whether it gives Features instead of logits.
    """

    config: TransformerConfig
    as_features: bool = False

    def __call__(self, params: Params, tokens: Array, *, dropout_key: Array | None = None) -> Array | Features:
        """The network's output.

        Args:
          params: as from `init_params`.
          tokens: int32 [B, L].
          dropout_key: a typed key, consumed, which turns dropout on; None for none.

        Returns:
          Logits float32 [B, L, V], or Features.
        """
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return self._apply(params, tokens, deterministic=dropout_key is None, rngs=rngs)

    def at(self, params: Params, tokens: Array, is_wanted: Array, *, ways: int = 1) -> Array | Features:
        """The network's output where it is wanted, for less: see `SelectiveDenoiser`.

        Of the last layer only what is wanted is computed (not so in a causal model), and nothing at all of rows of
        which nothing is wanted, where the batch is large enough to be worked off in tiles of rows.

        Args:
          params: as from `init_params`.
          tokens: int32 [B, L].
          is_wanted: bool [B, L].
          ways: parts of the batch that lie on devices of their own.

        Returns:
          As the call, finite and no more where not wanted.

        Raises:
          InputError: as the call, or is_wanted does not fit the tokens.
        """

        def read(tokens: Array, is_wanted: Array) -> Any:
            return self._apply(params, tokens, is_wanted=None if self.config.causal else is_wanted)

        rows = rows_of_tile(tokens.shape[0], tokens.shape[1], ways)
        if rows * ways == tokens.shape[0]:
            output: Array | Features = read(tokens, is_wanted)
            return output
        if not self.as_features:
            return in_tiles(read, tokens, is_wanted, rows, ways)
        hidden = in_tiles(lambda *tile: read(*tile).hidden, tokens, is_wanted, rows, ways)
        return Features(hidden, self._head(params))

    def _head(self, params: Params) -> Array:
        """The head of Features."""
        embedding = params["token_embedding"]["embedding"]
        head: Array = embedding[: self.config.vocab_size].T if self.config.tie_head else params["head"]["kernel"]
        return head

    def _apply(self, params: Params, tokens: Array, **options: Any) -> Any:
        method = "features" if self.as_features else "__call__"
        return Transformer(self.config).apply({"params": params}, tokens, method=method, **options)


def rows_of_tile(batch: int, length: int, ways: int) -> int:
    """Rows of each way that are computed at a time: all, or a divisor of them."""
    here = batch // ways
    enough = -(-TILE.get(jax.default_backend(), TILE_ELSEWHERE) // max(length, 1))
    return next((rows for rows in range(enough, here) if here % rows == 0), here)


def in_tiles(read: Callable[[Array, Array], Array], tokens: Array, is_wanted: Array, rows: int, ways: int) -> Array:
    """`read` of the rows of which anything is wanted, some at a time, and zeros for the others.

    Args:
      read: (tokens [N, L], is_wanted [N, L]) -> [N, L, X], row by row.
      tokens: int32 [B, L].
      is_wanted: bool [B, L].
      rows: of each way at a time; divides B / ways.
      ways: equal parts of the batch, no two of which are brought together.

    Returns:
      [B, L, X].
    """

    def split(x: Array) -> Array:
        return x.reshape(ways, -1, *x.shape[1:])

    has_any = split(is_wanted.any(axis=-1))
    wanted_first = jnp.argsort(~has_any, axis=-1, stable=True).astype(jnp.int32)
    num_tiles = -(-has_any.sum(axis=-1, dtype=jnp.int32).max() // rows)

    def read_tile(i: Array, output: Array) -> Array:
        places = jax.lax.dynamic_slice_in_dim(wanted_first, i * rows, rows, axis=1)
        take = functools.partial(jnp.take_along_axis, indices=places[..., None], axis=1)
        tile = read(*(take(split(x)).reshape(ways * rows, -1) for x in (tokens, is_wanted)))
        return jax.vmap(lambda old, place, new: old.at[place].set(new))(output, places, split(tile))

    shape = jax.eval_shape(read, tokens, is_wanted)
    zeros = split(jnp.zeros(shape.shape, shape.dtype))
    return jax.lax.fori_loop(0, num_tiles, read_tile, zeros).reshape(shape.shape)


def make_denoiser(config: TransformerConfig, *, as_features: bool = False) -> TransformerDenoiser:
    """The denoiser (params, tokens) -> logits of a configuration.

    Args:
      config: of the model.
      as_features: give Features, for callers that need the logits of few positions or of a large vocabulary in pieces.

    Returns:
      A hashable callable; two of equal arguments are equal.
    """
    return TransformerDenoiser(config, as_features)

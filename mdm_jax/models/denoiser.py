"""A Transformer as a Denoiser: a function of parameters and tokens, which can leave out what nobody reads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.denoiser import check_tokens
from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import Transformer
from mdm_jax.tiles import in_tiles, pick, split
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

    @property
    def num_tokens(self) -> int:
        """Rows of the embedding: the ids that it may be given are those below."""
        return self.config.num_tokens

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
        tokens = check_tokens(tokens, "tokens")
        batch, length = tokens.shape
        if is_wanted.shape != tokens.shape or is_wanted.dtype != bool:
            raise InputError(f"is_wanted must be bool {[batch, length]}, got {is_wanted.dtype} {is_wanted.shape}")
        if ways < 1 or batch % ways:
            raise InputError(f"ways must divide the batch of {batch}, got {ways}")
        where = None if self.config.causal else is_wanted
        rows = rows_of_tile(batch // ways, length)
        num_tiles = -(-batch // ways // max(rows, 1))
        if num_tiles <= 1:
            whole: Array | Features = self._apply(params, tokens, is_wanted=where)
            return whole

        def read(x: Array, is_wanted: Array | None) -> Array:
            output = self._apply(params, x, is_wanted=is_wanted)
            return output.hidden if self.as_features else output

        def read_tile(places: Array) -> Array:
            def here(x: Array) -> Array:
                return pick(split(x, ways), places).reshape(ways * rows, length)

            return split(read(here(tokens), None if where is None else here(where)), ways)

        config = self.config
        last = (config.width, config.dtype) if self.as_features else (config.vocab_size, jnp.float32)
        like = jax.ShapeDtypeStruct((ways, batch // ways, length, last[0]), last[1])
        rows_wanted = split(is_wanted.any(axis=-1), ways)
        output: Array = jax.lax.cond(
            rows_wanted.sum(axis=-1).max() > (num_tiles - 1) * rows,  # all tiles: they cost more than all at once
            lambda: read(tokens, where),
            lambda: in_tiles(read_tile, rows_wanted, rows, like).reshape(batch, length, last[0]),
        )
        return Features(output, self._head(params)) if self.as_features else output

    def _head(self, params: Params) -> Array:
        """The head of Features."""
        embedding = params["token_embedding"]["embedding"]
        head: Array = embedding[: self.config.vocab_size].T if self.config.tie_head else params["head"]["kernel"]
        return head

    def _apply(self, params: Params, tokens: Array, **options: Any) -> Any:
        method = "features" if self.as_features else "__call__"
        return Transformer(self.config).apply({"params": params}, tokens, method=method, **options)


def rows_of_tile(batch: int, length: int) -> int:
    """Rows of a device's batch that are computed at a time: all, or enough, and such that few are computed in vain."""
    enough = -(-TILE.get(jax.default_backend(), TILE_ELSEWHERE) // max(length, 1))
    if enough >= batch:
        return batch
    return min(range(enough, min(2 * enough, batch) + 1), key=lambda rows: -batch % rows)


def make_denoiser(config: TransformerConfig, *, as_features: bool = False) -> TransformerDenoiser:
    """The denoiser (params, tokens) -> logits of a configuration.

    Args:
      config: of the model.
      as_features: give Features, for callers that need the logits of few positions or of a large vocabulary in pieces.

    Returns:
      A hashable callable; two of equal arguments are equal.
    """
    return TransformerDenoiser(config, as_features)

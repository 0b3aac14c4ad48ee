"""A Transformer that reads a sequence piece by piece, keeping the keys and values of what it has read."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import Transformer
from mdm_jax.typing import Array, Features, Params


@dataclasses.dataclass(frozen=True)
class TransformerDecoder:
    """A Transformer as a Decoder. Decoders of equal configs are equal, so that jit compiles once.

    Attributes:
      config: of the model.
    """

    network: ClassVar[type[Transformer]] = Transformer
    shortest_prompt: ClassVar[Any] = 1
    """The fewest tokens that it must be given."""

    config: TransformerConfig

    @property
    def num_tokens(self) -> int:
        """Rows of the embedding: the ids that it may be given are those below."""
        return self.config.num_tokens

    @property
    def is_causal(self) -> bool:
        """Whether a token sees only itself and those before it."""
        return self.config.causal

    def init_cache(self, batch: int, length: int) -> dict[str, Any]:
        """An empty cache.

        Args:
          batch: B.
          length: L, of the longest sequence it is to hold.

        Returns:
          The collection "cache" of Transformer: keys and values [B, Hkv, L, d] of each layer, in the config's dtype.

        Raises:
          InputError: the length exceeds max_length, or is below `shortest_prompt`.
        """
        config = self.config
        if length < self.shortest_prompt:
            raise InputError(
                f"a sequence of length {length} is shorter than the {self.shortest_prompt} tokens that it begins with: "
                "ask for a longer one"
            )
        if length > config.max_length:
            raise InputError(
                f"a sequence of length {length} exceeds max_length = {config.max_length}: ask for a shorter one, or "
                "build a model with a larger max_length"
            )
        slots = jnp.zeros((batch, config.kv_heads, config.num_vectors(length), config.head_width), config.dtype)
        return {f"layers_{i}": {"attention": {"keys": slots, "values": slots}} for i in range(config.num_layers)}

    def __call__(self, params: Params, tokens: Array, cache: Any, start: Array | np.ndarray) -> tuple[Features, Any]:
        """Reads the next piece.

        Args:
          params: as from `init_params`.
          tokens: int32 [B, T].
          cache: of the pieces read before. A causal model attends to positions before `start`; any other to all.
          start: int32 scalar, the position of the first of `tokens`; start + T is at most the cache's length. NumPy's 0
            is the first piece, which attends to itself alone, by the fused kernels of `kernels.attention`.

        Returns:
          Features of the piece, and the cache with the piece in it.
        """
        variables = {"params": params, "cache": cache}
        output: Any = self.network(self.config).apply(
            variables, tokens, start=start, mutable="cache", method="features"
        )
        features, updated = output
        return features, updated["cache"]


def make_decoder(config: TransformerConfig) -> TransformerDecoder:
    """The decoder (params, tokens, cache, start) -> (Features, cache) of a configuration.

    A causal one is for `autoregressive_sample`, any other for `cached_sample`.

    Args:
      config: of the model, whose parameters it takes.

    Returns:
      A hashable callable; two of equal arguments are equal.

    Raises:
      InputError: the model hides padding, which its positions would then skip, or shifts logits across pieces.
    """
    check_pieces(config)
    return TransformerDecoder(config)


def check_pieces(config: TransformerConfig) -> None:
    """InputError for a model that cannot read a sequence in pieces."""
    if config.shift_logits:
        raise InputError("decoding piece by piece shifts no logits; give a TransformerConfig with shift_logits = False")
    if config.pad_id is not None:
        raise InputError(f"decoding hides no padding; give a TransformerConfig with pad_id = None, not {config.pad_id}")

"""A Transformer as a Denoiser: a function of parameters and tokens."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import Transformer
from mdm_jax.typing import Array, Features, Params


@dataclasses.dataclass(frozen=True)
class TransformerDenoiser:
    """A Transformer as a Denoiser, with Features. Denoisers of equal configs are equal, so that jit compiles once.

    Attributes:
      config: of the model.
    """

    network: ClassVar[type[Transformer]] = Transformer

    config: TransformerConfig

    @property
    def num_tokens(self) -> int:
        """Rows of the embedding: the ids that it may be given are those below."""
        return self.config.num_tokens

    def __call__(self, params: Params, tokens: Array, *, dropout_key: Array | None = None) -> Array:
        """All logits.

        Args:
          params: as from `init_params`.
          tokens: int32 [B, L].
          dropout_key: a typed key, consumed, which turns dropout on; None for none.

        Returns:
          float32 [B, L, V].
        """
        logits: Array = self._apply("__call__", params, tokens, dropout_key)
        return logits

    def features(
        self, params: Params, tokens: Array, is_read: Array | None = None, *, dropout_key: Array | None = None
    ) -> Features:
        """What logits are made of. Samplers and losses call this, and make logits only where they read them.

        Args:
          params: as from `init_params`.
          tokens: int32 [B, L].
          is_read: bool [B, L], the positions that will be read. The last layer of a bidirectional model computes little
            more than these; the hidden states of other positions are finite but meaningless. None reads all.
          dropout_key: as for the call.

        Returns:
          Features: hidden [B, L, D] in the config's dtype, and the head [D, V].
        """
        is_read = None if self.config.causal else is_read
        features: Features = self._apply("features", params, tokens, dropout_key, is_read)
        return features

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _apply(
        self,
        method: str,
        params: Params,
        tokens: Array,
        dropout_key: Array | None,
        is_read: Array | None = None,
        state: Array | None = None,
    ) -> Any:
        """Under jit, so that programs that call one network in several places trace and lower it once."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        given = {"is_read": is_read, "state": state}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        options |= {"deterministic": dropout_key is None, "rngs": rngs, "method": method}
        return self.network(self.config).apply({"params": params}, tokens, **options)


def make_denoiser(config: TransformerConfig) -> TransformerDenoiser:
    """The denoiser (params, tokens) -> logits of a configuration; two of equal configurations are equal."""
    return TransformerDenoiser(config)

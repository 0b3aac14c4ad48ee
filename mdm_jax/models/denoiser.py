"""A Transformer as a Denoiser: a function of parameters and tokens, which can leave out what nobody reads."""

import dataclasses
from typing import Any

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import Transformer
from mdm_jax.typing import Array, Features, Params


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

    def at(self, params: Params, tokens: Array, is_wanted: Array) -> Array | Features:
        """The network's output where it is wanted, for less: see `SelectiveDenoiser`.

        Args:
          params: as from `init_params`.
          tokens: int32 [B, L].
          is_wanted: bool [B, L].

        Returns:
          As the call, finite and no more where not wanted; a causal model makes all.

        Raises:
          InputError: as the call, or is_wanted does not fit the tokens.
        """
        return self._apply(params, tokens, is_wanted=None if self.config.causal else is_wanted)

    def _apply(self, params: Params, tokens: Array, **options: Any) -> Any:
        method = "features" if self.as_features else "__call__"
        return Transformer(self.config).apply({"params": params}, tokens, method=method, **options)


def make_denoiser(config: TransformerConfig, *, as_features: bool = False) -> TransformerDenoiser:
    """The denoiser (params, tokens) -> logits of a configuration.

    Args:
      config: of the model.
      as_features: give Features, for callers that need the logits of few positions or of a large vocabulary in pieces.

    Returns:
      A hashable callable; two of equal arguments are equal.
    """
    return TransformerDenoiser(config, as_features)

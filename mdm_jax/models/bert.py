"""BERT as a masked model: a Transformer that normalises behind each sub-layer, with a network in front of its head.

Source: Devlin et al. 2018 (arXiv:1810.04805).
"""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import TransformerDenoiser
from mdm_jax.models.transformer import (
    Attention,
    Block,
    Linear,
    Mlp,
    Norm,
    Positions,
    RopeTables,
    Transformer,
    embedding_table,
    rows_at,
)
from mdm_jax.ranges import INT32, Range
from mdm_jax.typing import Array, Features, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(TransformerConfig):
    """A TransformerConfig with norms behind the sub-layers, which says for the rest what BERT is.

    Attributes:
      num_types: rows of the embedding of token types. All tokens are of type 0: there is one segment.
    """

    num_types: Annotated[int, Range(1, INT32)] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("norm", self.norm == "layer", '"layer" in BERT')
        self._check("positions", self.positions == "learned", '"learned" in BERT')
        for name, value in (("use_bias", True), ("tie_head", True), ("causal", False), ("shift_logits", False)):
            self._check(name, getattr(self, name) is value, f"{value} in BERT")


class PostNormBlock(Block):
    """norm(x + attention(x)), then norm(x + mlp(x)); arguments as for Block."""

    @nn.compact
    def __call__(
        self, x: Array, positions: Positions, tables: RopeTables, is_real: Array | None, indices: Array | None = None
    ) -> Array:
        """As Block."""
        config = self.config
        dropout = nn.Dropout(config.dropout, deterministic=self.deterministic)
        seen = dropout(Attention(config, name="attention")(x, positions, tables, is_real, indices))
        x = Norm(config, name="attention_norm")(seen + (x if indices is None else rows_at(x, indices)))
        return Norm(config, name="mlp_norm")(x + dropout(Mlp(config, name="mlp")(x)))


class HeadBias(nn.Module):
    """What the head adds to the logits. Parameter: bias [V]."""

    config: BertConfig

    @nn.compact
    def __call__(self) -> Array:
        """The bias [V]."""
        config = self.config
        bias: Array = self.param("bias", nn.initializers.zeros, (config.vocab_size,), config.param_dtype)
        return bias


class Bert(Transformer):
    """As Transformer, with more parameters: type_embedding, embedding_norm, transform, and the bias of the head.

    The hidden states end with a 1, and the head with a row for it, which is its bias.
    """

    block = PostNormBlock

    config: BertConfig

    def _embed(self, token_embedding: nn.Embed, tokens: Array, positions: Array | np.ndarray) -> Array:
        x = super()._embed(token_embedding, tokens, positions)
        types = embedding_table(self.config, self.config.num_types, "type_embedding")
        x += types(jnp.zeros_like(tokens)).astype(jnp.float32)
        return Norm(self.config, name="embedding_norm")(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def _finish(self, x: Array) -> Array:
        hidden = nn.gelu(Linear(self.config, self.config.width, name="transform")(x), approximate=False)
        return super()._finish(hidden)

    def _features(self, x: Array, token_embedding: nn.Embed) -> Features:
        hidden, head = super()._features(x, token_embedding)
        bias = HeadBias(self.config, name="head")()
        hidden = jnp.concatenate([hidden, jnp.ones_like(hidden[..., :1])], axis=-1)
        return Features(hidden, jnp.concatenate([head, bias[None].astype(head.dtype)]))


@dataclasses.dataclass(frozen=True)
class BertDenoiser(TransformerDenoiser):
    """Bert as a Denoiser."""

    network = Bert
    config: BertConfig


def init_params(config: BertConfig, key: Array) -> Params:
    """Freshly drawn parameters. The key is consumed."""
    return Bert(config).init(key, jnp.zeros((1, 1), dtype=jnp.int32))["params"]

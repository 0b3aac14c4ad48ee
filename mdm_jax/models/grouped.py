"""A Transformer that reads the first tokens of a sequence in groups, each as one vector.

This suits a prompt that is a set of clauses of one form, such as the clues of a puzzle: there are fewer vectors than
tokens, and the order of the clauses does not count.
"""

import dataclasses
import math
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import TransformerDecoder, check_pieces
from mdm_jax.models.denoiser import TransformerDenoiser
from mdm_jax.models.transformer import Transformer, embedding_table
from mdm_jax.ranges import INT32, Range
from mdm_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedTransformerConfig(TransformerConfig):
    """A TransformerConfig whose sequences begin with groups of tokens.

    The first num_groups · group_length tokens are pooled: each group becomes one vector, the sum of its (slot, token)
    embeddings, without a positional embedding. In a causal model a group sees those before it, so that their order
    counts. Attention hides a group that is all `pad_id`. Outputs at grouped tokens are their group's hidden state and
    no predictions, except that a causal model's last group predicts the token after it.

    Attributes:
      num_groups: groups that a sequence begins with.
      group_length: tokens of a group.
    """

    num_groups: Annotated[int, Range(1, INT32)]
    group_length: Annotated[int, Range(1, INT32)]

    def __post_init__(self) -> None:
        super().__post_init__()
        most = INT32 // self.num_tokens
        self._check("group_length", self.group_length <= most, f"at most {most}: it has an embedding row a token")
        fits = 1 < self.num_grouped < self.max_length
        wanted = f"such that num_groups · group_length is above 1 and below max_length = {self.max_length}"
        self._check("num_groups", fits, wanted)
        self._check("positions", self.positions == "learned", '"learned" in a network that reads groups')
        self._check("shift_logits", not self.shift_logits, "False in a network that reads groups")

    @property
    def num_grouped(self) -> int:
        """Tokens that are read in groups."""
        return self.num_groups * self.group_length

    @property
    def num_positions(self) -> int:
        """Rows of learned positions: groups have none."""
        return self.max_length - self.num_grouped

    def num_vectors(self, length: int) -> int:
        """How many vectors the layers compute of a sequence of this length."""
        return length - self.num_grouped + self.num_groups


class GroupedTransformer(Transformer):
    """A Transformer with one more parameter: group_embedding/embedding, in row num_tokens · slot + token.

    Of a sequence in pieces the first piece holds all groups, and the others are single tokens.
    """

    config: GroupedTransformerConfig

    def _read(
        self, token_embedding: nn.Embed, tokens: Array, start: Array | np.ndarray | None
    ) -> tuple[Array, Array | np.ndarray, Array | None]:
        config, length = self.config, tokens.shape[1]
        behind: Array | np.ndarray = np.arange(length, dtype=np.int32)[None] - config.num_grouped
        behind = behind if start is None else start + behind
        positions = config.num_groups + behind
        if start is not None and length == 1:
            return self._embed(token_embedding, tokens, behind), positions, None
        if length < config.num_grouped:
            mend = "fill up with padding" if start is None else "give all in the first piece, then single tokens"
            raise InputError(
                f"tokens of length {length} are shorter than the {config.num_groups} groups of {config.group_length} "
                f"that this model's sequences begin with: {mend}"
            )
        single = slice(config.num_grouped, None)
        x = self._embed(token_embedding, tokens[:, single], behind[:, single])
        x = jnp.concatenate([self._groups(tokens), x], axis=1)
        of_groups = jnp.arange(config.num_groups, dtype=jnp.int32)[None]
        positions = jnp.concatenate([of_groups, positions[:, single]], axis=1)
        is_real = None if config.pad_id is None else self._one_for_each_group(tokens != config.pad_id, jnp.any)
        return x, positions, is_real

    def _groups(self, tokens: Array) -> Array:
        """The vectors of the groups, float32 [B, num_groups, D], as long as a token's and its position's together."""
        config, rows = self.config, self.config.num_tokens
        table = embedding_table(config, config.group_length * rows, "group_embedding")
        tokens = tokens[:, : config.num_grouped]
        tokens = jnp.where(tokens == rows, config.group_length * rows, tokens)  # unknown: beyond this table, too
        slots = jnp.arange(config.num_grouped, dtype=jnp.int32) % config.group_length
        vectors = table(tokens + (rows * slots)[None]).astype(jnp.float32)
        return self._one_for_each_group(vectors, jnp.sum) * math.sqrt(2 / config.group_length)

    def _needed(self, is_read: Array) -> Array:
        return self._one_for_each_group(is_read, jnp.any)

    def _of_tokens(self, x: Array, tokens: Array) -> Array:
        num_groups = self.config.num_groups
        if tokens.shape[1] < self.config.num_grouped:  # a single token behind the groups
            return x
        of_groups = jnp.repeat(x[:, :num_groups], self.config.group_length, axis=1)
        return jnp.concatenate([of_groups, x[:, num_groups:]], axis=1)

    def _one_for_each_group(self, values: Array, reduce: Any) -> Array:
        """[B, L, ...] -> [B, num_groups + L - num_grouped, ...], the values of each group reduced to one."""
        config = self.config
        groups = values[:, : config.num_grouped]
        groups = groups.reshape(groups.shape[0], config.num_groups, config.group_length, *groups.shape[2:])
        return jnp.concatenate([reduce(groups, axis=2), values[:, config.num_grouped :]], axis=1)


@dataclasses.dataclass(frozen=True)
class GroupedDenoiser(TransformerDenoiser):
    """A GroupedTransformer as a Denoiser."""

    network = GroupedTransformer
    config: GroupedTransformerConfig

    @property
    def shortest_prompt(self) -> int:
        """How many tokens must be given: all groups, of which it predicts none."""
        return self.config.num_grouped


@dataclasses.dataclass(frozen=True)
class GroupedDecoder(TransformerDecoder):
    """A GroupedTransformer as a Decoder."""

    network = GroupedTransformer
    config: GroupedTransformerConfig

    @property
    def shortest_prompt(self) -> int:
        """How many tokens it must be given to begin with: all groups, and one to go on from."""
        return self.config.num_grouped + 1


def init_params(config: GroupedTransformerConfig, key: Array) -> Params:
    """Freshly drawn parameters. The key is consumed."""
    return GroupedTransformer(config).init(key, jnp.zeros((1, config.num_grouped), dtype=jnp.int32))["params"]


def make_decoder(config: GroupedTransformerConfig) -> GroupedDecoder:
    """As `decoder.make_decoder`, which says what it refuses; it must be causal, too."""
    check_pieces(config)
    if not config.causal:
        raise InputError("only a causal model decodes behind groups; give a TransformerConfig without groups")
    return GroupedDecoder(config)

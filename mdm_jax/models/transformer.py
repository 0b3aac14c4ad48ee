"""The transformer, bidirectional or causal: the library's only Flax module. It sees no time: p_theta(. | x_t)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.checks import check_tokens
from mdm_jax.errors import InputError
from mdm_jax.kernels.attention import attention, cached_attention
from mdm_jax.kernels.matmul import linear
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.rope import positions_from, rope, rope_tables
from mdm_jax.orders import inverse
from mdm_jax.typing import Array, Features, Params

_normal = nn.initializers.normal
RopeTables: TypeAlias = tuple[Array, Array] | None
"""Cosines and sines [B or 1, L, d / 2], or nothing that turns."""
Positions: TypeAlias = Array | np.ndarray
"""int32 [B or 1, L]; those of NumPy are constants, from 0 on."""


def embedding_table(config: TransformerConfig, rows: int, name: str) -> nn.Embed:
    """A table of so many vectors."""
    init, dtype = _normal(config.init_std), config.param_dtype
    return nn.Embed(rows, config.width, dtype=dtype, param_dtype=dtype, embedding_init=init, name=name)


class Linear(nn.Module):
    """x · kernel (+ bias) in float32, multiplied in the config's dtype. Parameters: kernel [in, out], bias [out]."""

    config: TransformerConfig
    features: int
    into_residual: bool = False
    of_qkv: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float [N, in] -> float32 [N, out]."""
        config = self.config
        std = config.init_std / (math.sqrt(2 * config.num_layers) if self.into_residual else 1)
        shape = (x.shape[-1], self.features)
        y = linear(x, self.param("kernel", _normal(std), shape, config.param_dtype), config.dtype)
        if config.use_bias or (self.of_qkv and config.qkv_bias):
            y += self.param("bias", nn.initializers.zeros, shape[1:], config.param_dtype).astype(y.dtype)[None]
        return y


class Norm(nn.Module):
    """RMS or layer normalisation of the last axis, in float32. Parameters: scale [D], bias [D]."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float [N, D] -> float32 [N, D]."""
        config = self.config
        x = x.astype(jnp.float32)
        if config.norm == "layer":
            x -= x.mean(axis=-1, keepdims=True)
        x *= jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + config.norm_epsilon)
        x *= self.param("scale", nn.initializers.ones, x.shape[-1:], config.param_dtype).astype(x.dtype)[None]
        if config.norm == "layer" and config.use_bias:
            x += self.param("bias", nn.initializers.zeros, x.shape[-1:], config.param_dtype).astype(x.dtype)[None]
        return x


class Attention(nn.Module):
    """Multi-head self-attention. Parameters: query, key, value, output; with qk_norm also query_norm, key_norm.

    Where the collection "cache" holds its keys and values [B, Hkv, L, d], those of x are written into them at its
    positions, and x attends to the cache.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Array,
        positions: Positions,
        tables: RopeTables,
        is_real: Array | None,
        indices: Array | None,
    ) -> Array:
        """Float32 [B · L, D] -> float32 [B · L, D], or [B · P, D] of the indices; the other arguments as Block's."""
        config = self.config

        def heads(name: str, number: int, x: Array, length: int, tables: RopeTables) -> Array:
            y = Linear(config, number * config.head_width, of_qkv=True, name=name)(x)
            if config.qk_norm and name != "value":
                y = Norm(config, name=f"{name}_norm")(y.reshape(-1, config.head_width))
            y = y.reshape(-1, length, number, config.head_width)
            if tables is not None and name != "value":
                y = rope(y, *tables)
            return (y / math.sqrt(config.head_width) if name == "query" else y).astype(config.dtype)

        length = positions.shape[1]
        k, v = (heads(name, config.kv_heads, x, length, tables) for name in ("key", "value"))
        if indices is not None:
            x, length = rows_at(x, indices), indices.shape[1]
            tables = jax.tree.map(lambda table: jnp.take_along_axis(table, indices[..., None], axis=1), tables)
        q = heads("query", config.num_heads, x, length, tables)
        if self.has_variable("cache", "keys"):
            keys, values = self._cached("keys", k, positions), self._cached("values", v, positions)
            if isinstance(positions, np.ndarray):  # constants: the first piece, before which there is nothing
                out = attention(q, k, v, causal=config.causal, is_real=is_real)
            else:
                out = cached_attention(q, keys, values, positions, causal=config.causal)
        else:
            out = attention(q, k, v, causal=config.causal, is_real=is_real)
        return Linear(config, config.width, into_residual=True, name="output")(out.reshape(x.shape[0], -1))

    def _cached(self, name: str, piece: Array, positions: Positions) -> Array:
        """Writes the piece [B, T, Hkv, d] from its first position on; the whole, [B, Hkv, L, d]."""
        whole: Array = self.get_variable("cache", name)
        whole = jax.lax.dynamic_update_slice_in_dim(whole, piece.swapaxes(1, 2), positions[0, 0], axis=2)
        self.put_variable("cache", name, whole)
        return whole


class Mlp(nn.Module):
    """The two-layer perceptron of each position. Parameters: up, down, and gate for "swiglu"."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float32 [N, D] -> float32 [N, D]."""
        config = self.config
        hidden = Linear(config, config.mlp_width, name="up")(x)
        if config.mlp == "swiglu":
            hidden *= nn.silu(Linear(config, config.mlp_width, name="gate")(x))
        else:
            hidden = nn.gelu(hidden, approximate=config.mlp == "gelu")
        return Linear(config, config.width, into_residual=True, name="down")(hidden)


class Head(nn.Module):
    """The output projection, as a matrix. Parameter: kernel [D, V]."""

    config: TransformerConfig

    @nn.compact
    def __call__(self) -> Array:
        """The kernel [D, V]."""
        config = self.config
        return self.param("kernel", _normal(config.init_std), (config.width, config.vocab_size), config.param_dtype)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on the positions of all rows as one long axis.

    Over [B · L, D] the gradients of the weights are plain matrix products, which XLA's CPU backend computes in half the
    time that it takes over [B, L, D].
    """

    mlp_type: ClassVar[type[nn.Module]] = Mlp

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x: Array,
        positions: Positions,
        tables: RopeTables,
        is_real: Array | None,
        indices: Array | None = None,
    ) -> Array:
        """What the block makes of x.

        Args:
          x: float32 [B · L, D].
          positions: int32 [B or 1, L].
          tables: RoPE's cosines and sines, as from `rope_tables`; None without RoPE.
          is_real: bool [B, L], or None if all is.
          indices: int32 [B, P], the positions of each row to compute; the others only give keys and values. None for
            all, in their order.

        Returns:
          Float32 [B · L, D], or [B · P, D].
        """
        config = self.config
        dropout = nn.Dropout(config.dropout, deterministic=self.deterministic)
        seen = Norm(config, name="attention_norm")(x)
        x = x if indices is None else rows_at(x, indices)
        x += dropout(Attention(config, name="attention")(seen, positions, tables, is_real, indices))
        return x + dropout(self.mlp_type(config, name="mlp")(Norm(config, name="mlp_norm")(x)))


def rows_at(x: Array, indices: Array) -> Array:
    """Of [B · L, D], the rows of the indices int32 [B, P]: [B · P, D]."""
    rows = x.reshape(len(indices), -1, x.shape[-1])
    return jnp.take_along_axis(rows, indices[..., None], axis=1).reshape(-1, x.shape[-1])


def _where_read(block: Block, x: Array, where: tuple[Positions, RopeTables, Array | None], is_read: Array) -> Array:
    """A block that computes few positions besides those that are read; its output is zero or right elsewhere.

    In each row it computes as many as the row with the most positions to read needs, rounded up to a quarter of the
    length. Under vmap, where each example has its own number, all four sizes are computed.

    Args:
      block: the block.
      x: float32 [B · L, D].
      where: the block's further arguments up to `indices`.
      is_read: bool [B, L].

    Returns:
      Float32 [B · L, D].
    """
    batch, length = is_read.shape
    read_first = jnp.argsort(~is_read, axis=-1, stable=True).astype(jnp.int32)
    back = inverse(read_first)
    piece = -(-length // 4)

    def few(count: int, block: Block, x: Array) -> Array:
        y = block(x, *where, read_first[:, :count]).reshape(batch, count, -1)
        y = jnp.pad(y, ((0, 0), (0, length - count), (0, 0)))
        return jnp.take_along_axis(y, back[..., None], axis=1).reshape(x.shape)

    def every(block: Block, x: Array) -> Array:
        return block(x, *where)

    branches: list[Callable[..., Array]] = [functools.partial(few, count) for count in range(piece, length, piece)]
    most = is_read.sum(axis=-1, dtype=jnp.int32).max()
    y: Array = nn.switch(jnp.maximum(most - 1, 0) // piece, [*branches, every], block, x)
    return y


class Transformer(nn.Module):
    """A pre-norm transformer over tokens.

    Parameters: token_embedding/embedding, position_embedding/embedding ("learned"), layers_{i}/..., final_norm/...,
    head/kernel (unless tied). Dropout reads the rng stream "dropout". A kind of network that reads its tokens in
    another way, or gives its outputs to others, overrides `_read`, `_needed` or `_of_tokens`; one of other layers, or
    with more behind them, `block`, `_finish` or `_features`.
    """

    block: ClassVar[type[Block]] = Block

    config: TransformerConfig

    def __call__(self, tokens: Array, *, deterministic: bool = True) -> Array:
        """The logits.

        Args:
          tokens: int32 [B, L], L at most max_length.
          deterministic: whether dropout is off.

        Returns:
          float32 [B, L, V].

        Raises:
          InputError: the tokens' rank, dtype or length does not fit.
        """
        hidden, head = self.features(tokens, deterministic=deterministic)
        return linear(hidden, head, self.config.dtype)

    @nn.compact
    def features(
        self,
        tokens: Array,
        *,
        deterministic: bool = True,
        start: Array | np.ndarray | None = None,
        is_read: Array | None = None,
        state: Array | None = None,
    ) -> Features:
        """What the logits are the product of: arguments and errors as for `__call__`.

        Args:
          tokens: int32 [B, L].
          deterministic: whether dropout is off.
          start: int32 scalar, the position of the first token, where `tokens` go on from those in the collection
            "cache"; None for 0.
          is_read: bool [B, L], the tokens whose features are asked for; those of the others are finite and no more.
            The last layer computes so many positions, besides the keys and values of all, as the row that wants most
            does, rounded up to a quarter of L. None for all; not for pieces, nor for causal models.
          state: float [B, L, D], added to the embeddings: hidden states of an earlier pass. None for none; not for
            networks that read groups.

        Returns:
          Features(hidden [B, L, D] in the config's dtype, head [D, V] in the parameters').
        """
        config = self.config
        tokens, rows = check_tokens(tokens, "tokens", config), config.num_tokens
        # Beyond the table, so that its look-up is NaN: a negative id would be counted from the end.
        tokens = jnp.where((tokens < 0) | (tokens >= rows), rows, tokens)
        if tokens.shape[1] > config.max_length:
            raise InputError(
                f"tokens of length {tokens.shape[1]} exceed max_length = {config.max_length}: shorten them, or build a "
                "model with a larger max_length"
            )
        token_embedding = embedding_table(config, rows, "token_embedding")
        x, positions, is_real = self._read(token_embedding, tokens, start)
        x = x if state is None else x + state.astype(x.dtype)
        x = nn.Dropout(config.dropout, deterministic=deterministic)(x.reshape(-1, config.width))
        block = nn.remat(self.block) if config.remat else self.block
        blocks = [block(config, deterministic, name=f"layers_{i}") for i in range(config.num_layers)]
        tables = None
        if config.positions == "rope":
            tables = rope_tables(positions, config.head_width, config.rope_theta, config.rope_scaling)
        where = (positions, tables, is_real)
        for layer in blocks[:-1]:
            x = layer(x, *where)
        last = blocks[-1]
        x = last(x, *where) if is_read is None else _where_read(last, x, where, self._needed(is_read))
        x = self._finish(x).reshape(tokens.shape[0], -1, config.width)
        x = self._of_tokens(x, tokens)
        if config.shift_logits:
            x = jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)
        return self._features(x, token_embedding)

    def _read(
        self, token_embedding: nn.Embed, tokens: Array, start: Array | np.ndarray | None
    ) -> tuple[Array, Array | np.ndarray, Array | None]:
        """What the layers begin with.

        Args:
          token_embedding: of num_tokens rows.
          tokens: int32 [B, L]; an unknown id is num_tokens.
          start: as for `features`.

        Returns:
          Vectors, float32 [B, L, D]; their positions, int32 [B or 1, L], an np.ndarray where they are constants; and
          which of them attention sees, bool [B, L], or None for all.
        """
        is_real = None if self.config.pad_id is None else tokens != self.config.pad_id
        positions: Array | np.ndarray = np.arange(tokens.shape[1], dtype=np.int32)[None]
        positions = positions if is_real is None else positions_from(is_real)
        positions = positions if start is None else start + positions
        return self._embed(token_embedding, tokens, positions), positions, is_real

    def _embed(self, token_embedding: nn.Embed, tokens: Array, positions: Positions) -> Array:
        """The sum of the embeddings of tokens [B, L] and of learned positions, float32 [B, L, D]."""
        x = token_embedding(tokens).astype(jnp.float32)
        if self.config.positions == "learned":
            table = embedding_table(self.config, self.config.num_positions, "position_embedding")
            x += table(positions).astype(jnp.float32)
        return x

    def _needed(self, is_read: Array) -> Array:
        """Which outputs of the last layer the features of the wanted tokens [B, L] are made from."""
        if self.config.shift_logits:  # token i has the output of i - 1, and the first one its own
            first, rest = is_read[:, :2].any(axis=1, keepdims=True), is_read[:, 2:]
            is_read = jnp.concatenate([first, rest, jnp.zeros_like(first)], axis=1)[:, : is_read.shape[1]]
        return is_read

    def _of_tokens(self, x: Array, tokens: Array) -> Array:
        """The outputs of the layers [B, P, D] as hidden states [B, L, D] of the tokens [B, L]."""
        del tokens
        return x

    def _finish(self, x: Array) -> Array:
        """What the layers' outputs go through, float32 [N, D] -> [N, D]."""
        return Norm(self.config, name="final_norm")(x)

    def _features(self, x: Array, token_embedding: nn.Embed) -> Features:
        """The hidden states float32 [B, L, D], in the config's dtype, and the head."""
        config = self.config
        tied = token_embedding.embedding[: config.vocab_size].T if config.tie_head else None
        return Features(x.astype(config.dtype), Head(config, name="head")() if tied is None else tied)


def init_params(config: TransformerConfig, key: Array) -> Params:
    """Freshly drawn parameters. The key is consumed.

    Args:
      config: of the model.
      key: a typed key.

    Returns:
      A nested dict of arrays in the config's param_dtype, with the names that Transformer documents.
    """
    return Transformer(config).init(key, jnp.zeros((1, 1), dtype=jnp.int32))["params"]


def param_shapes(config: TransformerConfig, init: Callable[[Any, Array], Params] = init_params) -> Params:
    """The shapes and dtypes of what `init` gives, in a moment: all layers are as the first."""
    one = dataclasses.replace(config, num_layers=1)
    shapes: dict[str, Any] = dict(jax.eval_shape(functools.partial(init, one), jax.random.key(0)))
    layer = shapes.pop("layers_0")
    return shapes | {f"layers_{i}": layer for i in range(config.num_layers)}

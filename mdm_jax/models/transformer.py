"""The transformer, bidirectional or causal: the library's only Flax module. It sees no time: p_theta(. | x_t)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdm_jax.denoiser import check_tokens
from mdm_jax.errors import InputError
from mdm_jax.models.attention import attention, contract, positions_from, rope
from mdm_jax.typing import Array, Features, Params

DType = Literal["float32", "bfloat16", "float16"]

_CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "mlp": ("swiglu", "gelu"),
    "dtype": ("float32", "bfloat16", "float16"),
    "param_dtype": ("float32", "bfloat16", "float16"),
}
_POSITIVE_INTEGERS = ("vocab_size", "max_length", "num_layers", "num_heads", "width", "mlp_width", "num_kv_heads")
_FLAGS = ("causal", "use_bias", "tie_head", "remat")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Everything that fixes a Transformer's parameters and its function. Hashable, and JSON by `to_json`.

    Attributes:
      vocab_size: V, the number of logits.
      num_extra_tokens: rows of the embedding beyond V, such as one for the mask token. They are never predicted.
      max_length: the longest sequence; the number of rows of learned positions.
      num_layers: the number of blocks.
      num_heads: query heads, each of width / num_heads.
      width: D, of the residual stream.
      mlp_width: of the MLP's hidden layer.
      num_kv_heads: heads of keys and values; None for as many as query heads.
      causal: whether a position sees only itself and those before it.
      norm: "rms" (root mean square, a scale) or "layer" (mean and variance; with use_bias also a bias).
      norm_epsilon: added to the mean square.
      positions: "rope" (rotates queries and keys) or "learned" (an embedding added to the tokens').
      rope_theta: the base of RoPE's wavelengths.
      mlp: "swiglu" (down(silu(gate) · up)) or "gelu" (down(gelu(up)), tanh approximation).
      use_bias: a bias in every linear layer but the head, and in "layer" norms.
      tie_head: the head is the transposed token embedding.
      dropout: rate after the embedding and after each sub-layer, as in GPT-2. Attention probabilities are not dropped,
        unlike GPT-2's: fused attention kernels never form them.
      pad_id: a token that attention hides; positions then count from the first token that is another. None for none.
      dtype: what matrix products multiply in; sums, norms, softmax and the residual stream are float32.
      param_dtype: what the parameters are stored in.
      remat: recompute each block in the backward pass instead of storing its activations.
      init_std: of the normal initialisation; outputs into the residual stream get init_std / √(2 · num_layers).
    """

    vocab_size: int
    num_extra_tokens: int = 0
    max_length: int
    num_layers: int
    num_heads: int
    width: int
    mlp_width: int
    num_kv_heads: int | None = None
    causal: bool = False
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = 1e-5
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    use_bias: bool = False
    tie_head: bool = False
    dropout: float = 0.0
    pad_id: int | None = None
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    remat: bool = False
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for name in _POSITIVE_INTEGERS:
            self._check(name, _is_integer(self, name, 1, optional=name == "num_kv_heads"), "an integer of at least 1")
        self._check("num_extra_tokens", _is_integer(self, "num_extra_tokens", 0), "an integer of at least 0")
        rows = self.vocab_size + self.num_extra_tokens
        is_row = _is_integer(self, "pad_id", 0, optional=True) and (self.pad_id is None or self.pad_id < rows)
        self._check("pad_id", is_row, f"None or an embedding row, 0 to {rows - 1}")
        for name in _FLAGS:
            self._check(name, isinstance(getattr(self, name), bool), "True or False")
        for name, choices in _CHOICES.items():
            self._check(name, getattr(self, name) in choices, "one of " + ", ".join(choices))
        for name in ("norm_epsilon", "rope_theta", "init_std"):
            self._check(name, _is_number(self, name) and getattr(self, name) > 0, "a number above 0")
        self._check("dropout", _is_number(self, "dropout") and 0 <= self.dropout < 1, "a rate from 0 to below 1")
        self._check("num_heads", self.width % self.num_heads == 0, f"a divisor of width = {self.width}")
        self._check("num_kv_heads", self.num_heads % self.kv_heads == 0, f"a divisor of num_heads = {self.num_heads}")
        is_even = self.positions != "rope" or self.head_width % 2 == 0
        self._check("num_heads", is_even, f"such that width / num_heads = {self.head_width} is even: RoPE turns pairs")

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise InputError(f"TransformerConfig.{name} must be {wanted}; got {getattr(self, name)!r}")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.num_heads

    def to_json(self) -> dict[str, Any]:
        """Every field, as values that `json` writes as they are."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Fields that have a default may be left out.

        Args:
          fields: name -> value.

        Raises:
          InputError: a key is no field, a field without a default is missing, or a value does not fit.
        """
        known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise InputError(f"unknown keys in a TransformerConfig: {', '.join(unknown)}; known are {', '.join(known)}")
        missing = [name for name, is_required in known.items() if is_required and name not in fields]
        if missing:
            raise InputError(f"missing keys in a TransformerConfig: {', '.join(missing)}; add them")
        return cls(**fields)


def _is_integer(config: TransformerConfig, name: str, minimum: int, *, optional: bool = False) -> bool:
    value = getattr(config, name)
    if value is None:
        return optional
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_number(config: TransformerConfig, name: str) -> bool:
    value = getattr(config, name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_normal = nn.initializers.normal


def _embedding(config: TransformerConfig, rows: int, name: str) -> nn.Embed:
    init, dtype = _normal(config.init_std), config.param_dtype
    return nn.Embed(rows, config.width, dtype=dtype, param_dtype=dtype, embedding_init=init, name=name)


class Linear(nn.Module):
    """x · kernel (+ bias) in float32, multiplied in the config's dtype. Parameters: kernel [in, out], bias [out]."""

    config: TransformerConfig
    features: int
    into_residual: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float [B, L, in] -> float32 [B, L, out]."""
        config = self.config
        std = config.init_std / (math.sqrt(2 * config.num_layers) if self.into_residual else 1)
        shape = (x.shape[-1], self.features)
        y = contract("bli,io->blo", x, self.param("kernel", _normal(std), shape, config.param_dtype), config.dtype)
        if config.use_bias:
            y += self.param("bias", nn.initializers.zeros, shape[1:], config.param_dtype).astype(y.dtype)[None, None]
        return y


class Norm(nn.Module):
    """RMS or layer normalisation of the last axis, in float32. Parameters: scale [D], bias [D]."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float [B, L, D] -> float32 [B, L, D]."""
        config = self.config
        x = x.astype(jnp.float32)
        if config.norm == "layer":
            x -= x.mean(axis=-1, keepdims=True)
        x *= jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + config.norm_epsilon)
        x *= self.param("scale", nn.initializers.ones, x.shape[-1:], config.param_dtype).astype(x.dtype)[None, None]
        if config.norm == "layer" and config.use_bias:
            x += self.param("bias", nn.initializers.zeros, x.shape[-1:], config.param_dtype).astype(x.dtype)[None, None]
        return x


class Attention(nn.Module):
    """Multi-head self-attention. Parameters: query, key, value, output."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, positions: Array, is_real: Array | None) -> Array:
        """Float32 [B, L, D] -> float32 [B, L, D]; positions int32 [B or 1, L], is_real bool [B, L] or None."""
        config = self.config

        def heads(name: str, number: int) -> Array:
            y = Linear(config, number * config.head_width, name=name)(x)
            y = y.reshape(*y.shape[:2], number, config.head_width)
            if config.positions == "rope" and name != "value":
                y = rope(y, positions, config.rope_theta)
            return y.astype(config.dtype)

        q, k, v = heads("query", config.num_heads), heads("key", config.kv_heads), heads("value", config.kv_heads)
        out = attention(q, k, v, causal=config.causal, is_real=is_real)
        return Linear(config, config.width, into_residual=True, name="output")(out.reshape(x.shape))


class Mlp(nn.Module):
    """The two-layer perceptron of each position. Parameters: up, down, and gate for "swiglu"."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float32 [B, L, D] -> float32 [B, L, D]."""
        config = self.config
        hidden = Linear(config, config.mlp_width, name="up")(x)
        if config.mlp == "swiglu":
            hidden *= nn.silu(Linear(config, config.mlp_width, name="gate")(x))
        else:
            hidden = nn.gelu(hidden, approximate=True)
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
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x: Array, positions: Array, is_real: Array | None) -> Array:
        """Float32 [B, L, D] -> float32 [B, L, D]; positions int32 [B or 1, L], is_real bool [B, L] or None."""
        config = self.config
        dropout = nn.Dropout(config.dropout, deterministic=self.deterministic)
        x += dropout(Attention(config, name="attention")(Norm(config, name="attention_norm")(x), positions, is_real))
        return x + dropout(Mlp(config, name="mlp")(Norm(config, name="mlp_norm")(x)))


class Transformer(nn.Module):
    """A pre-norm transformer over tokens.

    Parameters: token_embedding/embedding, position_embedding/embedding ("learned"), layers_{i}/..., final_norm/...,
    head/kernel (unless tied). Dropout reads the rng stream "dropout".
    """

    config: TransformerConfig

    def __call__(self, tokens: Array, *, deterministic: bool = True) -> Array:
        """The logits.

        Args:
          tokens: int32 [B, L], L at most max_length.
          deterministic: whether dropout is off.

        Returns:
          float32 [B, L, V].

        Raises:
          InputError: the tokens' rank, dtype or length.
        """
        hidden, head = self.features(tokens, deterministic=deterministic)
        return contract("bld,dv->blv", hidden, head, self.config.dtype)

    @nn.compact
    def features(self, tokens: Array, *, deterministic: bool = True) -> Features:
        """What the logits are the product of: arguments and errors as for `__call__`.

        Returns:
          Features(hidden [B, L, D], head [D, V]), both in the config's dtype.
        """
        config = self.config
        tokens = check_tokens(tokens, "tokens")
        if tokens.shape[1] > config.max_length:
            raise InputError(
                f"tokens of length {tokens.shape[1]} exceed max_length = {config.max_length}: shorten them, or build a "
                "model with a larger max_length"
            )
        is_real = None if config.pad_id is None else tokens != config.pad_id
        length = tokens.shape[1]
        positions = jnp.arange(length, dtype=jnp.int32)[None] if is_real is None else positions_from(is_real)

        token_embedding = _embedding(config, config.vocab_size + config.num_extra_tokens, "token_embedding")
        x = token_embedding(tokens).astype(jnp.float32)
        if config.positions == "learned":
            x += _embedding(config, config.max_length, "position_embedding")(positions).astype(jnp.float32)
        x = nn.Dropout(config.dropout, deterministic=deterministic)(x)
        block = nn.remat(Block) if config.remat else Block
        for i in range(config.num_layers):
            x = block(config, deterministic, name=f"layers_{i}")(x, positions, is_real)
        x = Norm(config, name="final_norm")(x)
        tied = token_embedding.embedding[: config.vocab_size].T if config.tie_head else None
        head = Head(config, name="head")() if tied is None else tied
        return Features(x.astype(config.dtype), head.astype(config.dtype))


def init_params(config: TransformerConfig, key: Array) -> Params:
    """Freshly drawn parameters. The key is consumed.

    Args:
      config: of the model.
      key: a typed key.

    Returns:
      A nested dict of arrays in the config's param_dtype, with the names that Transformer documents.
    """
    return Transformer(config).init(key, jnp.zeros((1, 1), dtype=jnp.int32))["params"]


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
        output: Any = Transformer(self.config).apply(
            {"params": params},
            tokens,
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
            method="features" if self.as_features else "__call__",
        )
        return output


def make_denoiser(config: TransformerConfig, *, as_features: bool = False) -> TransformerDenoiser:
    """The denoiser (params, tokens) -> logits of a configuration.

    Args:
      config: of the model.
      as_features: give Features, for callers that need the logits of few positions or of a large vocabulary in pieces.

    Returns:
      A hashable callable; two of equal arguments are equal.
    """
    return TransformerDenoiser(config, as_features)


def num_params(params_or_config: Params | TransformerConfig, *, embedding: bool = True) -> int:
    """Number of parameters, exact; for a configuration without making any.

    Args:
      params_or_config: parameters as from `init_params`, or the configuration.
      embedding: whether the embeddings and the untied head count, which scaling laws leave out.
    """
    params = params_or_config
    if isinstance(params, TransformerConfig):
        params = jax.eval_shape(lambda: init_params(params_or_config, jax.random.key(0)))
    outside = () if embedding else ("token_embedding", "position_embedding", "head")
    counted = {name: subtree for name, subtree in params.items() if name not in outside}
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(counted))

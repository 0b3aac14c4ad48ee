"""A Transformer whose MLPs are a few of many experts, others for each token."""

import dataclasses
import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdm_jax.kernels.experts import swiglu_experts
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.decoder import TransformerDecoder, check_pieces
from mdm_jax.models.denoiser import TransformerDenoiser
from mdm_jax.models.transformer import Block, Linear, Transformer
from mdm_jax.ranges import Range
from mdm_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutedTransformerConfig(TransformerConfig):
    """A TransformerConfig whose `mlp_width` is that of one expert.

    A router gives each token a probability for each expert. Those of the highest ones are computed, and their outputs
    are added up with these probabilities as weights.

    Attributes:
      num_experts: E, of each layer.
      num_experts_per_token: k, how many of them a token goes through.
      is_normalised: whether the weights of the k are divided by their sum.
    """

    num_experts: Annotated[int, Range(1, 1 << 16)]
    num_experts_per_token: Annotated[int, Range(1, 1 << 16)]
    is_normalised: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.num_experts_per_token <= self.num_experts
        self._check("num_experts_per_token", fits, f"at most num_experts = {self.num_experts}")
        self._check("is_normalised", isinstance(self.is_normalised, bool), "True or False")
        self._check("mlp", self.mlp == "swiglu", '"swiglu" in a network with experts')
        self._check("use_bias", not self.use_bias, "False in a network with experts")

    @property
    def mlp_products(self) -> int:
        """Multiplications of the experts of one position, and of the router."""
        return self.num_experts_per_token * super().mlp_products + self.width * self.num_experts


class Kernels(nn.Module):
    """The kernels of one layer of all experts. Parameter: kernel [E, in, out]."""

    config: RoutedTransformerConfig
    shape: tuple[int, int]
    into_residual: bool = False

    @nn.compact
    def __call__(self) -> Array:
        """The kernels."""
        config = self.config
        std = config.init_std / (math.sqrt(2 * config.num_layers) if self.into_residual else 1)
        shape = (config.num_experts, *self.shape)
        kernel: Array = self.param("kernel", nn.initializers.normal(std), shape, config.param_dtype)
        return kernel


class RoutedMlp(nn.Module):
    """The experts. Parameters: router, and gate, up, down of all experts."""

    config: RoutedTransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Float32 [N, D] -> float32 [N, D]."""
        config = self.config
        probs = jax.nn.softmax(Linear(config, config.num_experts, name="router")(x), axis=-1)
        shares, chosen = jax.lax.top_k(probs, config.num_experts_per_token)
        if config.is_normalised:
            shares /= shares.sum(axis=-1, keepdims=True)
        wide, narrow = (config.width, config.mlp_width), (config.mlp_width, config.width)
        gate, up = (Kernels(config, wide, name=name)() for name in ("gate", "up"))
        down = Kernels(config, narrow, into_residual=True, name="down")()
        return swiglu_experts(x, chosen, shares, gate, up, down, config.dtype)


class RoutedBlock(Block):
    """A Block with experts."""

    mlp_type = RoutedMlp


class RoutedTransformer(Transformer):
    """A Transformer with experts: its parameters mlp/{gate, up, down}/kernel have an axis E in front."""

    block = RoutedBlock

    config: RoutedTransformerConfig


@dataclasses.dataclass(frozen=True)
class RoutedDenoiser(TransformerDenoiser):
    """A RoutedTransformer as a Denoiser."""

    network = RoutedTransformer
    config: RoutedTransformerConfig


@dataclasses.dataclass(frozen=True)
class RoutedDecoder(TransformerDecoder):
    """A RoutedTransformer as a Decoder."""

    network = RoutedTransformer
    config: RoutedTransformerConfig


def init_params(config: RoutedTransformerConfig, key: Array) -> Params:
    """Freshly drawn parameters. The key is consumed."""
    return RoutedTransformer(config).init(key, jnp.zeros((1, 1), dtype=jnp.int32))["params"]


def make_decoder(config: RoutedTransformerConfig) -> RoutedDecoder:
    """As `decoder.make_decoder`."""
    check_pieces(config)
    return RoutedDecoder(config)

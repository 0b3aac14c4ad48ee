"""A Transformer whose parameters hold a quality head beside the network's own: `judges.Quality` reads it.

The network computes what it would without the head, a vector [D] and a bias on its last hidden state.
"""

import dataclasses

import jax.numpy as jnp

from mdm_jax.judges import HEAD
from mdm_jax.models import transformer
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.denoiser import TransformerDenoiser
from mdm_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedTransformerConfig(TransformerConfig):
    """A TransformerConfig of parameters with a quality head."""


@dataclasses.dataclass(frozen=True)
class JudgedDenoiser(TransformerDenoiser):
    """The Transformer as a Denoiser; the head is left to the judge."""

    config: JudgedTransformerConfig


def init_params(config: JudgedTransformerConfig, key: Array) -> Params:
    """Freshly drawn parameters. The key is consumed."""
    return with_head(config, transformer.init_params(config, key))


def with_head(config: JudgedTransformerConfig, params: Params) -> Params:
    """The parameters, with a head that gives every token 1/2 if they have none."""
    dtype = config.param_dtype
    return {HEAD: {"kernel": jnp.zeros(config.width, dtype), "bias": jnp.zeros(1, dtype)}, **params}

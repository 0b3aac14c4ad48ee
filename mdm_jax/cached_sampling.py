"""Sampling block by block with cached keys and values of the positions outside the block.

This is an approximation: the cached keys and values were computed when the block was opened, and do
not depend on what was revealed in it since. Source: Wu et al. 2025 (Fast-dLLM, arXiv:2505.22618).
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.autoregressive import FIRST, Decoder, check_decoder, read
from mdm_jax.blocks import window_start
from mdm_jax.errors import InputError
from mdm_jax.loop import Loop, Reading, State
from mdm_jax.oracles import margin
from mdm_jax.sampling import SampleResult, check_arguments, check_block_length, decode
from mdm_jax.selection import PerStep
from mdm_jax.typing import Array, Features, Oracle, Params, Selector


def cached_sample(
    decoder: Decoder,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    block_length: int,
    oracle: Oracle = margin,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    temperature: Array | float = 1.0,
) -> SampleResult:
    """Samples block by block like `sample`, but reads whole sequences once per block only.

    The first step of a block reads all L tokens and caches the keys and values of all positions,
    before and after the block. The next steps read the block alone, which is faster. The result is
    approximate. It is that of `sample` in two cases: for a network of one layer, since its keys and
    values depend on no other token, and for a block as long as the sequence.

    Rows are independent. Static are the decoder, an oracle that is a plain function, the class and
    the schedule of the selector, `mask_id`, `block_length`, and whether the temperature is 0.
    Source: Wu et al. 2025 (arXiv:2505.22618), the dual cache.

    Args:
      decoder: a bidirectional network, as from `models.decoder.make_decoder`; the same or an equal
        object in every call.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], with `mask_id` at every position to fill in; the rest is the prompt and
        does not change.
      mask_id: id of the mask token, a Python int >= 0; if it is below V, it is never predicted.
      block_length: positions of a block, a Python int, at least 1. Blocks are counted from the
        left, and only the leftmost one in which any row has a mask is open.
      oracle: scores the positions; see `oracles`. Outside the block it sees zeros.
      selector: chooses how many positions a step reveals; see `selection`.
      temperature: of the tokens drawn, at least 0; 0 takes the likeliest. The oracle always sees
        temperature 1.

    Returns:
      SampleResult; `nfe` counts every call, of whole sequences and of blocks alike.

    Raises:
      InputError: a shape, a dtype or an option is invalid, or the output of the decoder is.

    Example:
      from mdm_jax.models.config import TransformerConfig
      from mdm_jax.models.decoder import make_decoder
      from mdm_jax.models.transformer import init_params

      config = TransformerConfig(
          vocab_size=5, max_length=8, num_layers=1, num_heads=1, width=8, mlp_width=16
      )
      params = init_params(config, jax.random.key(0))
      x_init = jnp.zeros((2, 8), jnp.int32)
      result = mdm_jax.cached_sample(
          make_decoder(config), params, jax.random.key(1), x_init, mask_id=0, block_length=4
      )
      assert (result.tokens > 0).all() and int(result.nfe) == 8
    """
    check_decoder(decoder, causal=False)
    tokens, keys, mask_id = check_arguments(decoder, key, x_init, mask_id, oracle)
    if block_length is None:
        raise InputError("block_length must be a whole number of at least 1, got None")
    block_length = check_block_length(block_length, tokens.shape[1])
    return decode(
        Loop(Cached(decoder, block_length), mask_id, block_length), params, keys, tokens, oracle, selector, temperature
    )


@dataclasses.dataclass(frozen=True)
class Cached:
    """The network of `cached_sample`: a block's first call reads all tokens, the others the block."""

    decoder: Decoder
    block_length: int
    together: ClassVar[bool] = True

    @property
    def num_tokens(self) -> int | None:
        """The decoder takes the ids 0 to num_tokens - 1; None if it does not say."""
        return getattr(self.decoder, "num_tokens", None)

    def init(self, batch: int, length: int) -> Any:
        """The cache of the decoder for all L positions, and the block for which it was filled."""
        return self.decoder.init_cache(batch, length), jnp.full((), -1, jnp.int32)

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Calls the decoder on the open block, or on the whole sequence if the block is new."""
        length, block = state.tokens.shape[1], state.block[0]
        start = window_start(block, length, self.block_length)

        def window(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, start, self.block_length, axis=1)

        def whole() -> tuple[Array | Features, Any]:
            output, cache = read(self.decoder, params, state.tokens, state.memory[0], FIRST)
            if isinstance(output, Features):
                return Features(window(output.hidden), output.head), cache
            return window(output), cache

        def block_alone() -> tuple[Array | Features, Any]:
            return read(self.decoder, params, window(state.tokens), state.memory[0], start)

        output, cache = jax.lax.cond(state.memory[1] == block, block_alone, whole)
        return Reading(output, (cache, block))

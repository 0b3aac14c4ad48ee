"""Sampling block by block, with the keys and values of what lies outside the block kept from step to step.

An approximation: what is kept was computed when the block was opened, and does not see what was revealed in it since.
Source: Wu et al. 2025 (Fast-dLLM, arXiv:2505.22618).
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.autoregressive import Decoder, check_decoder, read
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
    """`sample` in blocks, where only a block's first step reads whole sequences: faster, and not exact.

    The first step of a block reads all L tokens and keeps their keys and values, of what stands before the block and
    behind it. Its further steps read the block alone. A network of one layer gives what `sample` gives, since its keys
    and values depend on no other token; so does any network if the block is the sequence.

    Rows are independent. Static are decoder, the oracle's and the selector's class, mask_id, block_length and whether
    the temperature is 0.

    Args:
      decoder: a bidirectional network, as from `models.decoder.make_decoder`; the same object (or an equal one) in
        every call.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted; the rest is the prompt and comes back untouched.
      mask_id: the mask token's id, a Python int >= 0; if it is below V, it is never predicted.
      block_length: a Python int, of the blocks, counted from the left; only the leftmost one that holds a mask is open.
      oracle: scores of positions; see `oracles`. Outside the block it is shown zeros.
      selector: how many to reveal in a step; see `selection`.
      temperature: of the tokens drawn; 0 takes the likeliest. The oracle sees temperature 1 whatever it is.

    Returns:
      SampleResult; `nfe` counts calls, whatever they read.

    Raises:
      InputError: a shape, a dtype or an option is off, or the decoder's output is.
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
        """Ids that the decoder may be given, if it says."""
        return getattr(self.decoder, "num_tokens", None)

    def init(self, batch: int, length: int) -> Any:
        """The decoder's cache, of all L positions, and the block that it was filled for."""
        return self.decoder.init_cache(batch, length), jnp.full((), -1, jnp.int32)

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """The block; the last one may reach back."""
        length, block = state.tokens.shape[1], state.block[0]
        start = window_start(block, length, self.block_length)

        def window(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, start, self.block_length, axis=1)

        def whole() -> tuple[Array | Features, Any]:
            output, cache = read(self.decoder, params, state.tokens, state.memory[0], jnp.zeros((), jnp.int32))
            if isinstance(output, Features):
                return Features(window(output.hidden), output.head), cache
            return window(output), cache

        def block_alone() -> tuple[Array | Features, Any]:
            return read(self.decoder, params, window(state.tokens), state.memory[0], start)

        output, cache = jax.lax.cond(state.memory[1] == block, block_alone, whole)
        return Reading(output, (cache, block))

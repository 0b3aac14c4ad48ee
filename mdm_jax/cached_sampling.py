"""Sampling block by block, with the keys and values of what lies outside the block kept from step to step.

An approximation: what is kept was computed when the block was opened, and does not see what was revealed in it since.
Source: Wu et al. 2025 (Fast-dLLM, arXiv:2505.22618).
"""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.autoregressive import Decoder, check_decoder, read
from mdm_jax.confidence import is_greedy
from mdm_jax.errors import InputError, shown
from mdm_jax.loop import Loop, Reading, State, init, run
from mdm_jax.oracles import margin
from mdm_jax.sampling import SampleResult, check_arguments, check_block_length, sampled
from mdm_jax.selection import PerStep, check_selector, classes_in
from mdm_jax.tiles import ways_of
from mdm_jax.typing import Array, Features, Oracle, Params, Selector


def cached_sample(
    decoder: Decoder,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    block_length: int,
    keep: Literal["dual", "prefix"] = "dual",
    oracle: Oracle = margin,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    temperature: Array | float = 1.0,
) -> SampleResult:
    """`sample` in blocks, where only a block's first step reads whole sequences: faster, and not exact.

    The first step of a block reads all L tokens and keeps their keys and values. "dual": its further steps read the
    block alone. "prefix": they read the shortest of the last L, L/2, L/4, ... tokens that hold the block, so that only
    what stands before is kept. A network of one layer gives what `sample` gives, since its keys and values depend on no
    other token; so does any network if the block is the sequence.

    Rows are independent. Static are decoder, oracle, the selector's class and schedule, mask_id, block_length, keep and
    whether the temperature is 0.

    Args:
      decoder: a bidirectional network, as from `models.decoder.make_decoder`; the same object (or an equal one) in
        every call.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted; the rest is the prompt and comes back untouched.
      mask_id: the mask token's id, a Python int >= 0; if it is below V, it is never predicted.
      block_length: a Python int, of the blocks, counted from the left; only the leftmost one that holds a mask is open.
      keep: what is kept.
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
    check_selector(selector)
    if block_length is None:
        raise InputError("block_length must be a whole number of at least 1, got None")
    if not isinstance(keep, str) or keep not in ("dual", "prefix"):
        raise InputError(f"keep must be 'dual' or 'prefix', got {shown(keep)}")
    greedy = is_greedy(temperature)
    return _cached_sample(
        decoder,
        params,
        keys,
        tokens,
        selector,
        jnp.asarray(temperature, jnp.float32),
        mask_id=mask_id,
        oracle=oracle,
        classes=classes_in(selector),
        block_length=check_block_length(block_length, tokens.shape[1]),
        keep=keep,
        greedy=greedy,
        ways=ways_of(tokens),
    )


def widths(length: int, block_length: int, keep: str) -> list[int]:
    """How many tokens a call may read, the first being all; the last of them, or the block, if that is as many."""
    if keep == "dual":
        return [length, block_length]
    found = [length]
    while -(-found[-1] // 2) >= block_length and found[-1] > 1:
        found.append(-(-found[-1] // 2))
    return found


@dataclasses.dataclass(frozen=True)
class Cached:
    """The network of `cached_sample`: a block's first call reads all tokens, the others some that hold the block."""

    decoder: Decoder
    block_length: int
    keep: str
    together: ClassVar[bool] = True

    def init(self, batch: int, length: int) -> Any:
        """The decoder's cache, of all L positions, and the block that it was filled for."""
        return self.decoder.init_cache(batch, length), jnp.full((), -1, jnp.int32)

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """The block; the last one may reach back."""
        length, block = state.tokens.shape[1], state.block[0]
        start = jnp.minimum(block * self.block_length, length - self.block_length)
        sizes = widths(length, self.block_length, self.keep)
        fitting = sum(((length - size <= start).astype(jnp.int32) for size in sizes[1:]), jnp.zeros((), jnp.int32))
        further = jnp.ones((), jnp.int32) if self.keep == "dual" else fitting
        which = jnp.where(state.memory[1] == block, further, 0)
        branches = [functools.partial(self._call, params, size=size) for size in sizes]
        output, cache = jax.lax.switch(which, branches, state, start)
        return Reading(output, start, (cache, block))

    def _call(self, params: Params, state: State, start: Array, *, size: int) -> tuple[Array | Features, Any]:
        """Reads `size` tokens that hold the block at `start`; what it says of the block, and the cache."""
        first = jnp.minimum(start, state.tokens.shape[1] - size)
        tokens = jax.lax.dynamic_slice_in_dim(state.tokens, first, size, axis=1)
        output, cache = read(self.decoder, params, tokens, state.memory[0], first)

        def of_block(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, start - first, self.block_length, axis=1)

        if isinstance(output, Features):
            return Features(of_block(output.hidden), output.head), cache
        return of_block(output), cache


@functools.partial(
    jax.jit, static_argnames=("decoder", "mask_id", "oracle", "classes", "block_length", "keep", "greedy", "ways")
)
def _cached_sample(
    decoder: Decoder,
    params: Params,
    keys: Array,
    x_init: Array,
    selector: Selector,
    temperature: Array,
    *,
    mask_id: int,
    oracle: Oracle,
    classes: Any,
    block_length: int,
    keep: str,
    greedy: bool,
    ways: int,
) -> SampleResult:
    del classes  # as in `sample`
    loop = Loop(Cached(decoder, block_length, keep), oracle, mask_id, block_length, ways)
    end = run(loop, params, selector, keys, init(loop, x_init), None if greedy else temperature)
    return sampled(end, x_init, decoder)

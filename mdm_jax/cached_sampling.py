"""Sampling block by block, with the keys and values of what lies outside the block kept from step to step.

An approximation: what is kept was computed when the block was opened, and does not see what was revealed in it since.
Source: Wu et al. 2025 (Fast-dLLM, arXiv:2505.22618).
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.autoregressive import Decoder, check_decoder, read
from mdm_jax.confidence import is_greedy, read_confidence
from mdm_jax.errors import InputError
from mdm_jax.oracles import margin
from mdm_jax.randomness import split_rows
from mdm_jax.sampling import (
    LoopState,
    SampleResult,
    check_arguments,
    check_selector,
    open_block,
    reveal_tokens,
    row_scores,
    rows_that_reveal,
    start_state,
)
from mdm_jax.selection import PerStep, classes_in
from mdm_jax.tiles import ways_of
from mdm_jax.typing import Array, Features, Oracle, Params, Selector


class CachedState(NamedTuple):
    """The carry of the loop."""

    loop: LoopState
    """as in `sample`, but all rows are in the same block: those that hold no mask in it wait"""
    cache: Any
    """the decoder's, of all L positions"""
    is_cached: Array
    """bool scalar, whether it was filled since the block was opened"""
    steps: Array
    """int32 [B], steps that the row took part in: what its draws are keyed by"""


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
    tokens, keys, mask_id = check_arguments(key, x_init, mask_id, oracle)
    check_selector(selector)
    check_decoder(decoder, causal=False)
    if not (isinstance(block_length, int) and block_length >= 1):
        raise InputError(f"block_length must be a whole number of at least 1, got {block_length!r}")
    if keep not in ("dual", "prefix"):
        raise InputError(f"keep must be 'dual' or 'prefix', got {keep!r}")
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
        block_length=min(block_length, tokens.shape[1]),
        keep=keep,
        greedy=is_greedy(temperature),
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
    draw_at = None if greedy else temperature
    batch, length = x_init.shape
    sizes = widths(length, block_length, keep)

    def cond_fun(state: CachedState) -> Array:
        return jnp.any(state.loop.tokens == mask_id)

    def body_fun(state: CachedState) -> CachedState:
        step_keys = jax.vmap(jax.random.fold_in)(keys, state.steps)
        plan_keys, token_keys, score_keys = split_rows(step_keys, 3)
        loop, is_open = open_block(state.loop, mask_id, block_length, together=True)
        state = state._replace(loop=loop, is_cached=state.is_cached & (loop.block[0] == state.loop.block[0]))
        num_reveal = selector.plan(plan_keys, loop.j, loop.n_0, is_open.sum(axis=-1, dtype=jnp.int32))
        start = jnp.minimum(loop.block[0] * block_length, length - block_length)  # the last block may reach back

        def reveal(state: CachedState) -> CachedState:
            fitting = sum(((length - size <= start).astype(jnp.int32) for size in sizes[1:]), jnp.zeros((), jnp.int32))
            which = jnp.where(state.is_cached, 1 if keep == "dual" else fitting, 0)
            branches = [functools.partial(call, size=size) for size in sizes]
            output, cache = jax.lax.switch(which, branches, state, start)
            is_read = rows_that_reveal(is_open, num_reveal)
            here = jax.lax.dynamic_slice_in_dim(is_read, start, block_length, axis=1)
            of_block = read_confidence(token_keys, output, draw_at, mask_id, here, first=start, ways=ways)
            confidence = jax.tree.map(
                lambda field: jax.lax.dynamic_update_slice_in_dim(
                    jnp.zeros((batch, length), field.dtype), field, start, axis=1
                ),
                of_block,
            )
            scores = row_scores(oracle, score_keys, confidence)
            is_chosen = selector.choose(scores, confidence, is_read, num_reveal) & is_read
            return state._replace(
                loop=reveal_tokens(state.loop, is_chosen, confidence), cache=cache, is_cached=jnp.asarray(True)
            )

        if num_reveal is None:
            state = reveal(state)
        else:
            state = jax.lax.cond(jnp.any(num_reveal > 0), reveal, lambda state: state, state)
        return state._replace(steps=state.steps + jnp.any(is_open, axis=-1))

    def call(state: CachedState, start: Array, *, size: int) -> tuple[Array | Features, Any]:
        """Reads `size` tokens that hold the block at `start`; what it says of the block, and the cache."""
        first = jnp.minimum(start, length - size)
        tokens = jax.lax.dynamic_slice_in_dim(state.loop.tokens, first, size, axis=1)
        output, cache = read(decoder, params, tokens, state.cache, first)

        def of_block(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, start - first, block_length, axis=1)

        if isinstance(output, Features):
            return Features(of_block(output.hidden), output.head), cache
        return of_block(output), cache

    begin = CachedState(
        loop=start_state(x_init),
        cache=decoder.init_cache(batch, length),
        is_cached=jnp.asarray(False),
        steps=jnp.zeros(batch, jnp.int32),
    )
    end = jax.lax.while_loop(cond_fun, body_fun, begin).loop
    return SampleResult(end.tokens, end.reveal_step, end.log_prob, end.nfe)

"""Sampling from a masked diffusion model: one jitted loop, in which an oracle orders and a selector counts.

Each step: the selector plans how many positions of the open block to reveal; the network is called if any row reveals
one; the oracle scores the open positions; the best of them take their tokens. Source: Kim et al. 2025, section 2.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.confidence import is_greedy, read_confidence
from mdm_jax.denoiser import call, check_mask_id, check_tokens
from mdm_jax.errors import InputError
from mdm_jax.oracles import margin, random
from mdm_jax.randomness import fold_rows, row_keys, split_rows
from mdm_jax.schedules import Schedule
from mdm_jax.selection import Binomial, PerStep, classes_in
from mdm_jax.tiles import ways_of
from mdm_jax.typing import Array, Confidence, Denoiser, Oracle, Params, Selector


class SampleResult(NamedTuple):
    """What a sampler gives back."""

    tokens: Array
    """int32 [B, L], without masks; given tokens as they came"""
    reveal_step: Array
    """int32 [B, L]: index of the network call that revealed the position, from 0; -1 where given"""
    log_prob: Array
    """float32 [B], nats: sum of log p_theta (temperature 1) of the tokens at the moment they were revealed"""
    nfe: Array
    """int32 scalar: network calls made for the batch"""


class LoopState(NamedTuple):
    """The carry of the loop. A row that holds no mask any more keeps its tokens, reveal_step and log_prob."""

    tokens: Array
    """int32 [B, L], the mask token where not yet revealed"""
    reveal_step: Array
    """int32 [B, L]"""
    log_prob: Array
    """float32 [B]"""
    nfe: Array
    """int32 scalar, network calls so far"""
    iteration: Array
    """int32 scalar, steps so far, with those that called no network: the step of every unfinished row"""
    block: Array
    """int32 [B], the block that is open; -1 before the first step"""
    j: Array
    """int32 [B], steps since it was opened"""
    n_0: Array
    """int32 [B], masks it held then"""


def sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    oracle: Oracle = margin,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    temperature: Array | float = 1.0,
    block_length: int | None = None,
) -> SampleResult:
    """Fills in every mask of `x_init`, in the order that `oracle` and `selector` choose.

    What is unmasked in `x_init` is the prompt and comes back untouched. Rows are independent: neither the other rows
    nor padding on the right change a row's tokens, but for ties within the rounding of the network's products. The
    first call of a shape compiles; denoiser, oracle, the selector's class and schedule, mask_id, block_length and
    whether the temperature is 0 are static, all else is traced.

    Args:
      denoiser: the network; hashable, and the same object (or an equal one) in every call. If it has a method `at`
        (`typing.SelectiveDenoiser`), it is told which positions will be read.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted.
      mask_id: the mask token's id, a Python int >= 0; if it is below V, it is never predicted.
      oracle: scores of positions; see `oracles`.
      selector: how many to reveal in a step; see `selection`.
      temperature: of the tokens drawn; 0 takes the likeliest. The oracle sees temperature 1 whatever it is.
      block_length: semi-autoregressive: only the leftmost block of this length that holds a mask is open.
        None opens the whole sequence.

    Returns:
      SampleResult.

    Raises:
      InputError: a shape, a dtype or an option is off, or the denoiser's output is.
    """
    tokens, keys, mask_id = check_arguments(key, x_init, mask_id, oracle)
    if block_length is not None and not (isinstance(block_length, int) and block_length >= 1):
        raise InputError(f"block_length must be a whole number of at least 1, or None; got {block_length!r}")
    check_selector(selector)
    return _sample(
        denoiser,
        params,
        keys,
        tokens,
        selector,
        jnp.asarray(temperature, jnp.float32),
        mask_id=mask_id,
        oracle=oracle,
        classes=classes_in(selector),
        block_length=block_length or tokens.shape[1],
        greedy=is_greedy(temperature),
        ways=ways_of(tokens),
    )


def vanilla_sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    schedule: Schedule,
    num_steps: int,
) -> SampleResult:
    """The reverse process itself: each mask is revealed with probability (α_s - α_t) / (1 - α_t), its token drawn.

    Step j = 1..T goes from t = 1 - (j - 1)/T to s = 1 - j/T. It is `sample` with the random oracle and a binomial
    number of positions, which has the same law; steps that choose no position call no network.
    Source: Kim et al. 2025, section 2.

    Args:
      denoiser: the network.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted.
      mask_id: the mask token's id.
      schedule: α_t.
      num_steps: T.

    Returns:
      SampleResult.

    Raises:
      InputError: as `sample`.
    """
    selector = Binomial(num_steps, schedule)
    return sample(denoiser, params, key, x_init, mask_id=mask_id, oracle=random, selector=selector)


@functools.partial(
    jax.jit, static_argnames=("denoiser", "mask_id", "oracle", "classes", "block_length", "greedy", "ways")
)
def _sample(
    denoiser: Denoiser,
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
    greedy: bool,
    ways: int,
) -> SampleResult:
    del classes  # part of the program's identity, and no more
    draw_at = None if greedy else temperature

    def cond_fun(state: LoopState) -> Array:
        return jnp.any(state.tokens == mask_id)

    def body_fun(state: LoopState) -> LoopState:
        plan_keys, token_keys, score_keys = split_rows(fold_rows(keys, state.iteration), 3)
        state, is_open = open_block(state, mask_id, block_length)
        num_reveal = selector.plan(plan_keys, state.j, state.n_0, is_open.sum(axis=-1, dtype=jnp.int32))
        is_open = rows_that_reveal(is_open, num_reveal)

        def reveal(state: LoopState) -> LoopState:
            output = call(denoiser, params, state.tokens, is_open, ways=ways)
            confidence = read_confidence(token_keys, output, draw_at, mask_id, is_open, ways=ways)
            scores = row_scores(oracle, score_keys, confidence)
            is_chosen = selector.choose(scores, confidence, is_open, num_reveal) & is_open
            return reveal_tokens(state, is_chosen, confidence)

        if num_reveal is None:
            state = reveal(state)
        else:
            state = jax.lax.cond(jnp.any(num_reveal > 0), reveal, lambda state: state, state)
        return state._replace(iteration=state.iteration + 1)

    end = jax.lax.while_loop(cond_fun, body_fun, start_state(x_init))
    return SampleResult(end.tokens, end.reveal_step, end.log_prob, end.nfe)


def start_state(x_init: Array) -> LoopState:
    """Before the first step, for int32 [B, L]."""
    rows, zero = jnp.zeros(x_init.shape[0], jnp.int32), jnp.zeros((), jnp.int32)
    return LoopState(
        tokens=x_init,
        reveal_step=jnp.full_like(x_init, -1),
        log_prob=jnp.zeros(x_init.shape[0]),
        nfe=zero,
        iteration=zero,
        block=rows - 1,
        j=rows,
        n_0=rows,
    )


def check_arguments(key: Array, x_init: ArrayLike, mask_id: int, oracle: Oracle) -> tuple[Array, Array, int]:
    """What every sampler is given, as tokens int32 [B, L], keys [B] and the mask's id; InputError if it is unusable."""
    tokens = check_tokens(x_init, "x_init")
    if 0 in tokens.shape:
        raise InputError(f"x_init must hold at least one row of at least one position, got shape {tokens.shape}")
    if not callable(oracle):
        raise InputError(
            f"oracle must be a function (key, confidence) -> scores, such as oracles.margin; got {oracle!r}"
        )
    return tokens, row_keys(key, tokens.shape[0]), check_mask_id(mask_id)


def check_selector(selector: Selector) -> None:
    """InputError unless it has the two methods and is a pytree."""
    if isinstance(selector, type) or not (hasattr(selector, "plan") and hasattr(selector, "choose")):
        raise InputError(f"selector must be an object with plan and choose, such as PerStep(1); got {selector!r}")
    if jax.tree_util.all_leaves([selector]):
        raise InputError(f"{type(selector).__name__} is no pytree; decorate it with jax.tree_util.register_dataclass")


def open_block(state: LoopState, mask_id: int, block_length: int, *, together: bool = False) -> tuple[LoopState, Array]:
    """Moves each row to its leftmost block with masks and counts its step there; with it the open positions [B, L].

    `together` moves all rows to the leftmost block in which any of them has masks.
    """
    is_masked = state.tokens == mask_id
    block_of = jnp.arange(state.tokens.shape[1], dtype=jnp.int32) // block_length
    to_fill = jnp.broadcast_to(is_masked.any(axis=0), is_masked.shape) if together else is_masked
    block = block_of[jnp.argmax(to_fill, axis=-1)]
    is_open = is_masked & (block_of[None] == block[:, None])
    is_new = block != state.block
    j = jnp.where(is_new, 1, state.j + 1)
    n_0 = jnp.where(is_new, is_open.sum(axis=-1, dtype=jnp.int32), state.n_0)
    return state._replace(block=block, j=j, n_0=n_0), is_open


def rows_that_reveal(is_open: Array, num_reveal: Array | None) -> Array:
    """The open positions [B, L], but none of rows that this step reveals nothing of."""
    return is_open if num_reveal is None else is_open & (num_reveal > 0)[:, None]


def row_scores(oracle: Oracle, keys: Array, confidence: Confidence) -> Array:
    """The oracle's scores, float32 [B, L], asked row by row with fields [1, L] and the row's key."""
    shape = confidence.top_prob.shape

    def score(index: Array, key: Array, row: Confidence) -> Array:
        scores = oracle(key, jax.tree.map(lambda field: field[None], row))
        got = getattr(scores, "shape", type(scores).__name__)
        if got not in ((1, shape[1]), shape):
            raise InputError(f"the oracle must give scores of its fields' shape (1, {shape[1]}), got {got}")
        return scores[index if got == shape else 0].astype(jnp.float32)

    return jax.vmap(score)(jnp.arange(shape[0]), keys, confidence)


def reveal_tokens(state: LoopState, is_chosen: Array, confidence: Confidence) -> LoopState:
    """Writes the tokens of the chosen positions, and counts one network call."""
    assert confidence.token_log_prob is not None
    return state._replace(
        tokens=jnp.where(is_chosen, confidence.token, state.tokens),
        reveal_step=jnp.where(is_chosen, state.nfe, state.reveal_step),
        log_prob=state.log_prob + jnp.where(is_chosen, confidence.token_log_prob, 0).sum(axis=-1),
        nfe=state.nfe + 1,
    )

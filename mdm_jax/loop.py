"""The loop that unmasks: `init`, then `step` until no mask is left, or `run`, which is one `lax.while_loop`.

A step plans how many positions of each row's open block to reveal; asks the network if any row reveals one; scores the
open positions; chooses; writes. Samplers differ in the network that they hand in. The loop ends whatever the network,
the oracle and the selector give. A block is done by the selector's `num_steps`; if it has none, each step from the
1,025th on reveals at least one position. What is written is never the mask. (`selection.plan_step`,
`selection.choose_step`, `confidence.confidence_given_noise`.) Source: Kim et al. 2025, section 2.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mdm_jax.confidence import read_confidence
from mdm_jax.errors import InputError
from mdm_jax.randomness import split_rows
from mdm_jax.selection import choose_step, plan_step, waits_at
from mdm_jax.typing import Array, Confidence, Features, Oracle, Params, Selector

AHEAD = 1024
"""Plans that are made at once, steps times rows, to find the next step that reveals anything,"""
LEAST_AHEAD = 16
"""and for so many steps at least."""


class State(NamedTuple):
    """The carry of the loop. A row that holds no mask any more stays as it is."""

    tokens: Array
    """int32 [B, L], the mask token where not yet revealed"""
    reveal_step: Array
    """int32 [B, L]: index of the network call that revealed the position, -1 where none did"""
    log_prob: Array
    """float32 [B, L], nats: of each token at the moment it was revealed; 0 where none was"""
    nfe: Array
    """int32 scalar: network calls so far"""
    step: Array
    """int32 [B]: steps the row took part in, with those that called no network; its draws are keyed by it"""
    block: Array
    """int32 [B]: the block that is open; -1 before the first step"""
    j: Array
    """int32 [B]: steps since it was opened"""
    n_0: Array
    """int32 [B]: masks it held then"""
    memory: Any
    """the network's, from call to call: a pytree of arrays"""


class Reading(NamedTuple):
    """What a network says of W neighbouring positions."""

    output: Array | Features
    """logits float [B, W, V], or Features"""
    first: Array | int
    """int32 scalar, the first of the positions"""
    memory: Any
    """the next call's"""


class Network(Protocol):
    """How a step asks a network."""

    @property
    def together(self) -> bool:
        """Whether all rows work on one block, the leftmost in which any has a mask; the others wait."""
        ...

    def init(self, batch: int, length: int) -> Any:
        """The memory before the first call."""
        ...

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Calls it on `state.tokens`; bool [B, L] says which positions will be read, all of them in the reading."""
        ...


@dataclasses.dataclass(frozen=True)
class Loop:
    """What is static of a loop.

    Attributes:
      network: how a step asks.
      oracle: scores of positions.
      mask_id: the mask token's id.
      block_length: of the blocks, from the left; that of the sequence, if it has no blocks.
      ways: as from `tiles.ways_of`.
    """

    network: Network
    oracle: Oracle
    mask_id: int
    block_length: int
    ways: int = 1


def init(loop: Loop, x_init: Array) -> State:
    """The state before the first step, for int32 [B, L]."""
    batch, length = x_init.shape
    rows, zero = jnp.zeros(batch, jnp.int32), jnp.zeros((), jnp.int32)
    return State(
        tokens=x_init,
        reveal_step=jnp.full_like(x_init, -1),
        log_prob=jnp.zeros(x_init.shape, jnp.float32),
        nfe=zero,
        step=rows,
        block=rows - 1,
        j=rows,
        n_0=rows,
        memory=loop.network.init(batch, length),
    )


def run(
    loop: Loop, params: Params, selector: Selector, keys: Array, state: State, temperature: Array | None = None
) -> State:
    """Steps until no row holds a mask. Arguments as for `step`."""
    return jax.lax.while_loop(
        lambda state: jnp.any(state.tokens == loop.mask_id),
        lambda state: step(loop, params, selector, keys, state, temperature),
        state,
    )


def step(
    loop: Loop, params: Params, selector: Selector, keys: Array, state: State, temperature: Array | None = None
) -> State:
    """One step, or where it reveals nothing in any row, that and the next ones that are known to reveal nothing.

    Args:
      loop: the static settings.
      params: the network's parameters.
      selector: how many positions are revealed.
      keys: typed keys [B], the same in every step.
      state: from `init` or the step before.
      temperature: of the tokens drawn, float32 scalar; None takes the likeliest.

    Returns:
      The state after it.
    """
    state, is_open = _open_block(loop, state)
    is_due, left = is_open.any(axis=-1), is_open.sum(axis=-1, dtype=jnp.int32)
    plan_keys, token_keys, score_keys = _step_keys(keys, state.step)
    num_reveal = plan_step(selector, plan_keys, state.j, state.n_0, left)

    def reveal(state: State) -> State:
        is_read = is_open if num_reveal is None else is_open & (num_reveal > 0)[:, None]
        reading = loop.network.read(params, state, is_read)
        confidence = _confidence(loop, reading, token_keys, temperature, is_read)
        scores = row_scores(loop.oracle, score_keys, confidence)
        is_chosen = choose_step(selector, scores, confidence, is_read, num_reveal)
        return _write(state, is_chosen, scores, confidence)._replace(memory=reading.memory)

    def wait(state: State) -> State:
        def waits(steps: Array) -> Array:
            plan_keys, _, _ = _step_keys(keys, state.step + steps)
            return waits_at(selector, plan_keys, state.j + steps, state.n_0, left)

        idle = idle_steps(waits, len(left))
        return state._replace(j=state.j + idle, step=state.step + jnp.where(is_due, idle, 0))

    state = reveal(state) if num_reveal is None else jax.lax.cond(jnp.any(num_reveal > 0), reveal, wait, state)
    return state._replace(step=state.step + is_due.astype(jnp.int32))


def idle_steps(waits: Callable[[Array], Array], batch: int) -> Array:
    """How many of the next steps, one after the other, reveal nothing in any row, as far as is looked ahead.

    Args:
      waits: whether each row reveals nothing so many steps ahead: int32 scalar -> bool [B].
      batch: B.

    Returns:
      int32 scalar.
    """
    num = max(AHEAD // batch, LEAST_AHEAD)
    all_wait = jax.vmap(waits)(jnp.arange(1, num + 1, dtype=jnp.int32)).all(axis=-1)
    return jnp.where(all_wait.all(), num, jnp.argmin(all_wait).astype(jnp.int32))


def _step_keys(keys: Array, step: Array) -> tuple[Array, ...]:
    """The keys of a step, [B] each: for the plan, the tokens, the scores."""
    return split_rows(jax.vmap(jax.random.fold_in)(keys, step), 3)


def _open_block(loop: Loop, state: State) -> tuple[State, Array]:
    """The state with each row moved to its leftmost block that has masks, and that block's masks, bool [B, L]."""
    is_masked = state.tokens == loop.mask_id
    block_of = jnp.arange(state.tokens.shape[1], dtype=jnp.int32) // loop.block_length
    to_fill = is_masked
    if loop.network.together:
        to_fill = jnp.broadcast_to(is_masked.any(axis=0, keepdims=True), is_masked.shape)
    block = block_of[jnp.argmax(to_fill, axis=-1)]
    is_open = is_masked & (block_of[None] == block[:, None])
    is_new = block != state.block
    j = jnp.where(is_new, 1, state.j + 1)
    n_0 = jnp.where(is_new, is_open.sum(axis=-1, dtype=jnp.int32), state.n_0)
    return state._replace(block=block, j=j, n_0=n_0), is_open


def _confidence(loop: Loop, reading: Reading, keys: Array, temperature: Array | None, is_read: Array) -> Confidence:
    """Confidence [B, L] from a reading of W positions; zeros elsewhere."""
    output, first, _ = reading
    width = (output.hidden if isinstance(output, Features) else output).shape[1]
    if width == is_read.shape[1]:
        return read_confidence(keys, output, temperature, loop.mask_id, is_read, ways=loop.ways)
    here = jax.lax.dynamic_slice_in_dim(is_read, first, width, axis=1)
    read = read_confidence(keys, output, temperature, loop.mask_id, here, first=first, ways=loop.ways)

    def put(field: Array) -> Array:
        zeros = jnp.zeros(is_read.shape, field.dtype)
        return jax.lax.dynamic_update_slice_in_dim(zeros, field, first, axis=1)

    return jax.tree.map(put, read)


def row_scores(oracle: Oracle, keys: Array, confidence: Confidence) -> Array:
    """The oracle's scores, float32 [B, L], asked row by row with fields [1, L] and the row's key."""
    shape = confidence.top_prob.shape

    def score(index: Array, key: Array, row: Confidence) -> Array:
        scores = oracle(key, jax.tree.map(lambda field: field[None], row))
        got = getattr(scores, "shape", type(scores).__name__)
        if got not in ((1, shape[1]), shape):
            raise InputError(f"the oracle must give scores of its fields' shape (1, {shape[1]}), got {got}")
        if jnp.issubdtype(scores.dtype, jnp.complexfloating) or not jnp.issubdtype(scores.dtype, jnp.number):
            raise InputError(f"the oracle must give scores that are real numbers, got dtype {scores.dtype}")
        return scores[index if got == shape else 0].astype(jnp.float32)

    return jax.vmap(score)(jnp.arange(shape[0]), keys, confidence)


def written_log_prob(scores: Array, confidence: Confidence) -> Array:
    """The tokens' log p_theta, float32 [B, L]; not-a-number where the score is, so that it can be seen."""
    assert confidence.token_log_prob is not None
    return jnp.where(jnp.isnan(scores), jnp.nan, confidence.token_log_prob)


def _write(state: State, is_chosen: Array, scores: Array, confidence: Confidence) -> State:
    """Writes the tokens of the chosen positions, and counts one network call."""
    return state._replace(
        tokens=jnp.where(is_chosen, confidence.token, state.tokens),
        reveal_step=jnp.where(is_chosen, state.nfe, state.reveal_step),
        log_prob=jnp.where(is_chosen, written_log_prob(scores, confidence), state.log_prob),
        nfe=state.nfe + 1,
    )

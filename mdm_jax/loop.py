"""The loop that unmasks: `init`, then `step` until it is finished, or `run`, which is one `lax.while_loop`.

A step plans how many positions of each row's open block to reveal; asks the network if any row reveals one; scores the
open positions; chooses; writes. Samplers differ in the network and the selector that they hand in. A selector that
corrects (`typing.Corrector`) has all targets open, and its steps may mask again what they do not choose.

The loop ends whatever the network, the oracle and the selector give. A block is done by the selector's `num_steps`; if
it has none, each step from the 1,025th on reveals at least one position. The mask is never written as a token. Source:
Kim et al. 2025, section 2.
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
from mdm_jax.typing import Array, Confidence, Corrector, Features, Oracle, Params, Selector

NEAR = 16
"""Steps that are looked ahead first, to find the next one that reveals anything;"""
FAR = 1 << 12
"""then so many plans at once, steps times rows,"""
FARTHEST = 1 << 20
"""and so many steps at most."""


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
    """What a network says: of all L positions, or of those of each row's open block."""

    output: Array | Features
    """logits float [B, L or block_length, V], or Features"""
    memory: Any
    """the next call's"""


class Network(Protocol):
    """How a step asks a network."""

    @property
    def num_tokens(self) -> int | None:
        """Ids that it may be given, from 0; None if it does not say."""
        ...

    @property
    def together(self) -> bool:
        """Whether all rows work on one block, the leftmost in which any has a mask; the others wait."""
        ...

    def init(self, batch: int, length: int) -> Any:
        """The memory before the first call."""
        ...

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Calls it on `state.tokens`. `is_read`, bool [B, L], says which positions will be read."""
        ...


@dataclasses.dataclass(frozen=True)
class Loop:
    """What is static of a loop.

    Attributes:
      network: how a step asks.
      mask_id: the mask token's id.
      block_length: of the blocks, from the left; that of the sequence, if it has no blocks.
      from_target: whether each row's blocks begin at the first position that it is to fill in, not at its left end.
      edit: hashable; changes the logits that are read, float32 [B, P, V] to the same; see `edits`.
    """

    network: Network
    mask_id: int
    block_length: int
    from_target: bool = False
    edit: Callable[[Array], Array] | None = None


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
    loop: Loop,
    params: Params,
    selector: Selector,
    oracle: Oracle,
    keys: Array,
    state: State,
    temperature: Array | None = None,
) -> State:
    """Steps until every row is finished. Arguments as for `step`."""
    return jax.lax.while_loop(
        lambda state: jnp.any(is_unfinished(loop, selector, state)),
        lambda state: step(loop, params, selector, oracle, keys, state, temperature),
        state,
    )


def is_unfinished(loop: Loop, selector: Selector, state: State) -> Array:
    """Which rows have anything left to do, bool [B]: a mask, or for a corrector a target and a step."""
    is_masked = state.tokens == loop.mask_id
    if not isinstance(selector, Corrector):
        return is_masked.any(axis=-1)
    is_target = is_masked | (state.reveal_step >= 0)
    return is_target.any(axis=-1) & (state.j < jnp.maximum(selector.num_steps, 1))


def step(
    loop: Loop,
    params: Params,
    selector: Selector,
    oracle: Oracle,
    keys: Array,
    state: State,
    temperature: Array | None = None,
) -> State:
    """One step, or where it reveals nothing in any row, that and the next ones that are known to reveal nothing.

    Args:
      loop: the static settings.
      params: the network's parameters.
      selector: how many positions are revealed.
      oracle: scores of positions.
      keys: typed keys [B], the same in every step.
      state: from `init` or the step before.
      temperature: of the tokens drawn, float32 scalar; None takes the likeliest.

    Returns:
      The state after it.
    """
    corrects = isinstance(selector, Corrector)
    state, is_open = _open_block(loop, state, corrects=corrects)
    is_due, left = is_open.any(axis=-1), is_open.sum(axis=-1, dtype=jnp.int32)
    plan_keys, token_keys, score_keys, noise_keys = _step_keys(keys, state.step)
    num_reveal = plan_step(selector, plan_keys, state.j, state.n_0, left)

    def reveal(state: State) -> State:
        is_read = is_open if num_reveal is None else is_open & (num_reveal > 0)[:, None]
        reading = loop.network.read(params, state, is_read)
        confidence, hidden = _confidence(loop, reading, state, token_keys, temperature, is_read)
        scores = row_scores(oracle, score_keys, confidence, hidden)
        if hasattr(selector, "perturb"):
            scores = selector.perturb(noise_keys, scores, state.j)
        is_chosen = choose_step(selector, scores, confidence, is_read, num_reveal)
        taken_back = None
        if isinstance(selector, Corrector):
            taken_back = selector.take_back(scores, confidence, is_open, is_chosen) & is_open & ~is_chosen
        return _write(loop, state, is_chosen, taken_back, scores, confidence)._replace(memory=reading.memory)

    def wait(state: State) -> State:
        def waits(steps: Array) -> Array:
            plan_keys, *_ = _step_keys(keys, state.step + steps)
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
    far = max(FAR // batch, NEAR)

    def idle_from(first: Array | int, num: int) -> Array:
        all_wait = jax.vmap(waits)(first + jnp.arange(num, dtype=jnp.int32)).all(axis=-1)
        return jnp.where(all_wait.all(), num, jnp.argmin(all_wait).astype(jnp.int32))

    def go_on(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        idle, _ = carry
        further = idle_from(idle + 1, far)
        return idle + further, (further == far) & (idle < FARTHEST)

    near = idle_from(1, NEAR)
    return jax.lax.while_loop(lambda carry: carry[1], go_on, (near, near == NEAR))[0]


def _step_keys(keys: Array, step: Array) -> tuple[Array, ...]:
    """The keys of a step, [B] each: for the plan, the tokens, the scores, and noise on the scores."""
    return split_rows(jax.vmap(jax.random.fold_in)(keys, step), 4)


def _open_block(loop: Loop, state: State, *, corrects: bool) -> tuple[State, Array]:
    """Moves each row to its leftmost block with open positions: the state, and those of that block, bool [B, L].

    Open is what is masked; for a corrector, whatever was masked at the start.
    """
    is_open = state.tokens == loop.mask_id
    if corrects:
        is_open |= state.reveal_step >= 0
    block_of = (jnp.arange(state.tokens.shape[1], dtype=jnp.int32)[None] - _left_end(loop, state)) // loop.block_length
    to_fill = is_open
    if loop.network.together:
        to_fill = jnp.broadcast_to(is_open.any(axis=0, keepdims=True), is_open.shape)
    leftmost = jnp.argmax(to_fill, axis=-1, keepdims=True)
    block = jnp.take_along_axis(jnp.broadcast_to(block_of, is_open.shape), leftmost, axis=1)[:, 0]
    is_open &= block_of == block[:, None]
    is_new = block != state.block
    j = jnp.where(is_new, 1, state.j + 1)
    n_0 = jnp.where(is_new, is_open.sum(axis=-1, dtype=jnp.int32), state.n_0)
    return state._replace(block=block, j=j, n_0=n_0), is_open


def block_start(loop: Loop, state: State) -> Array:
    """Where each row's open block begins, int32 [B]; the last one reaches back to be as long as the others."""
    start = _left_end(loop, state)[:, 0] + state.block * loop.block_length
    return jnp.clip(start, 0, state.tokens.shape[1] - loop.block_length)


def _left_end(loop: Loop, state: State) -> Array:
    """Where the blocks of each row begin, int32 [B or 1, 1]. The first target stays it, whatever was revealed."""
    if not loop.from_target:
        return jnp.zeros((1, 1), jnp.int32)
    is_target = (state.tokens == loop.mask_id) | (state.reveal_step >= 0)
    return jnp.argmax(is_target, axis=-1, keepdims=True).astype(jnp.int32)


def _confidence(
    loop: Loop, reading: Reading, state: State, keys: Array, temperature: Array | None, is_read: Array
) -> tuple[Confidence, Array | None]:
    """Confidence [B, L], and the hidden states [B, L, D] if there are any, of the positions that are read.

    With blocks only the window of the open one is read, a static number of positions; all else is zeros.
    """
    output, length, width = reading.output, is_read.shape[1], loop.block_length
    if width == length:
        read = read_confidence(keys, output, temperature, loop.mask_id, is_read, edit=loop.edit)
        return read, output.hidden if isinstance(output, Features) else None
    first = block_start(loop, state)
    columns = first[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
    if (output.hidden if isinstance(output, Features) else output).shape[1] == length:
        output = _take(output, columns)
    here = jnp.take_along_axis(is_read, columns, axis=1)
    read = read_confidence(keys, output, temperature, loop.mask_id, here, first=first, edit=loop.edit)
    index = jnp.arange(length, dtype=jnp.int32)[None] - first[:, None]
    is_here, index = (index >= 0) & (index < width), jnp.clip(index, 0, width - 1)
    read = jax.tree.map(lambda field: jnp.where(is_here, jnp.take_along_axis(field, index, axis=1), 0), read)
    if not isinstance(output, Features):
        return read, None
    return read, jnp.where(is_here[..., None], jnp.take_along_axis(output.hidden, index[..., None], axis=1), 0)


def _take(output: Array | Features, columns: Array) -> Array | Features:
    """The output at int32 [B, W] of its positions."""
    if isinstance(output, Features):
        return output._replace(hidden=jnp.take_along_axis(output.hidden, columns[..., None], axis=1))
    return jnp.take_along_axis(output, columns[..., None], axis=1)


def row_scores(oracle: Oracle, keys: Array, confidence: Confidence, hidden: Array | None = None) -> Array:
    """The oracle's scores, float32 [B, L], asked row by row with fields [1, L] and the row's key.

    One with a true `wants_hidden` gets the row's hidden states [1, L, D] too.
    """
    wants_hidden = getattr(oracle, "wants_hidden", False)
    if wants_hidden and hidden is None:
        raise InputError("the oracle asks for hidden states, and the network gives logits; have it give Features")

    def score(key: Array, row: Confidence, hidden: Array | None) -> Array:
        fields = jax.tree.map(lambda field: field[None], row)
        extra = () if hidden is None else (hidden[None],)
        scores = oracle(key, fields, *extra)
        got = getattr(scores, "shape", type(scores).__name__)
        if got != (1, row.top_prob.shape[0]):
            raise InputError(
                f"the oracle must give scores of its fields' shape (1, {row.top_prob.shape[0]}), got {got}"
            )
        if jnp.issubdtype(scores.dtype, jnp.complexfloating) or not jnp.issubdtype(scores.dtype, jnp.number):
            raise InputError(f"the oracle must give scores that are real numbers, got dtype {scores.dtype}")
        return scores[0].astype(jnp.float32)

    return jax.vmap(score)(keys, confidence, hidden if wants_hidden else None)


def written_log_prob(scores: Array, confidence: Confidence) -> Array:
    """The tokens' log p_theta, float32 [B, L]; not-a-number where the score is, so that it can be seen."""
    assert confidence.token_log_prob is not None
    return jnp.where(jnp.isnan(scores), jnp.nan, confidence.token_log_prob)


def _write(
    loop: Loop, state: State, is_chosen: Array, taken_back: Array | None, scores: Array, confidence: Confidence
) -> State:
    """Writes the tokens of the chosen positions, masks what is taken back, and counts one network call."""
    kept = state.tokens if taken_back is None else jnp.where(taken_back, loop.mask_id, state.tokens)
    is_revealed = is_chosen & (state.tokens == loop.mask_id)
    return state._replace(
        tokens=jnp.where(is_chosen, confidence.token, kept),
        reveal_step=jnp.where(is_revealed, state.nfe, state.reveal_step),
        log_prob=jnp.where(is_chosen, written_log_prob(scores, confidence), state.log_prob),
        nfe=state.nfe + 1,
    )

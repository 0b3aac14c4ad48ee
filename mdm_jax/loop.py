"""The loop that unmasks: `init`, then `step` until every row is finished, or `run`.

A step plans how many positions of each row's open block to reveal. If any row reveals one, it calls
the network, scores the open positions, chooses among them and writes their tokens. Samplers differ
in the network and the selector that they pass. With a selector that corrects (`typing.Corrector`)
all targets stay open, and a step may mask again what it does not choose. With one that doubts
(`typing.Doubter`) masks alone are open, and a step that reveals c tokens may mask c - 1 others again.

The loop ends whatever the network, the oracle and the selector return. A block is finished after
the selector's `num_steps` steps. Without that number each step of a block from the 1,025th on
reveals at least one position. The mask token is never written. Source: Kim et al. 2025, section 2.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mdm_jax.blocks import behind_end, leftmost_block, put_window, take_positions, window_positions, window_start
from mdm_jax.confidence import read_confidence
from mdm_jax.errors import InputError
from mdm_jax.oracles import score_rows
from mdm_jax.randomness import split_rows
from mdm_jax.selection import best, choose_step, plan_step, waits_at
from mdm_jax.typing import Array, Confidence, Corrector, Doubter, Features, Oracle, Params, Selector
from mdm_jax.waiting import idle_steps


class State(NamedTuple):
    """The carry of the loop. A finished row does not change any more."""

    tokens: Array
    """int32 [B, L], with the mask token where nothing is revealed yet"""
    reveal_step: Array
    """int32 [B, L]: index of the network call that revealed the position, -1 if none did"""
    log_prob: Array
    """float32 [B, L], nats: log p_theta of each token when it was revealed; 0 if none was"""
    nfe: Array
    """int32 scalar: network calls so far"""
    step: Array
    """int32 [B]: steps of the row so far, with or without a network call; keys its draws"""
    block: Array
    """int32 [B]: index of the open block; -1 before the first step"""
    j: Array
    """int32 [B]: steps since this block was opened"""
    n_0: Array
    """int32 [B]: open positions of this block when it was opened"""
    memory: Any
    """a pytree of arrays that the network keeps from call to call"""
    kept: tuple[Any, ...]
    """what a selector that remembers keeps from call to call, else empty"""


class Reading(NamedTuple):
    """What a network returns: for all L positions, or for the window of each row's open block."""

    output: Array | Features
    """logits float [B, L or W, V], or Features; W is the block length"""
    memory: Any
    """the memory for the next call"""
    quality: Array | None = None
    """float32 [B, L]: at revealed positions that are read, a probability that the token is right; None if the network
    does not judge"""
    calls: Array | int = 1
    """network calls that this took, each on the whole batch"""


class Network(Protocol):
    """How a step calls a network."""

    @property
    def num_tokens(self) -> int | None:
        """The network takes the ids 0 to num_tokens - 1; None if it does not say."""
        ...

    @property
    def together(self) -> bool:
        """Whether all rows work on one block, the leftmost in which any row has a mask."""
        ...

    def init(self, batch: int, length: int) -> Any:
        """The memory before the first call."""
        ...

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Calls the network on `state.tokens`.

        `is_read`, bool [B, L], marks the masks to predict and, with a Doubter, the tokens to judge.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Loop:
    """The static settings of a loop.

    Attributes:
      network: how a step calls the network.
      mask_id: id of the mask token.
      block_length: positions of a block; the length of the sequence if there are no blocks.
      from_target: whether the blocks of a row begin at its first target, not at its left end.
      edit: hashable; maps the logits that are read, float32 [B, P, V], to others (`edits`). None for no change.
      ends: ids that end a text. Once one of them is the first of its gap, with no mask before it, the masks behind it
        are filled with `ends[0]`, without a call: their `reveal_step` stays -1. Not with a corrector.
    """

    network: Network
    mask_id: int
    block_length: int
    from_target: bool = False
    edit: Callable[[Array], Array] | None = None
    ends: tuple[int, ...] = ()


def init(loop: Loop, x_init: Array, selector: Selector | None = None) -> State:
    """The state before the first step, from tokens int32 [B, L] with masks; a selector that remembers is wanted."""
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
        kept=(selector.begin(batch, length),) if selector is not None and hasattr(selector, "begin") else (),
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
    """Steps until every row is finished, in one `lax.while_loop`; arguments as for `step`."""
    return jax.lax.while_loop(
        lambda state: jnp.any(is_unfinished(loop, selector, state)),
        lambda state: step(loop, params, selector, oracle, keys, state, temperature),
        state,
    )


def is_unfinished(loop: Loop, selector: Selector, state: State) -> Array:
    """Rows that are not finished, bool [B].

    A row has masks left or, with a corrector, targets and steps left.
    """
    is_masked = state.tokens == loop.mask_id
    if not isinstance(selector, Corrector):
        return is_masked.any(axis=-1)
    is_fillable = is_masked | (state.reveal_step >= 0)
    return is_fillable.any(axis=-1) & (state.j < jnp.maximum(selector.num_steps, 1))


def step(
    loop: Loop,
    params: Params,
    selector: Selector,
    oracle: Oracle,
    keys: Array,
    state: State,
    temperature: Array | None = None,
) -> State:
    """Takes one step of every row that is not finished.

    If no row reveals a position in this step, the network is not called, and the following steps
    that reveal none either are passed over at once (see `idle_steps`).

    Args:
      loop: the static settings.
      params: parameters of the network.
      selector: chooses how many positions each row reveals.
      oracle: scores the positions.
      keys: typed keys [B], the same in every step.
      state: from `init` or from the last step.
      temperature: of the tokens drawn, float32 scalar; None takes the likeliest tokens.

    Returns:
      The state after the step.
    """
    if hasattr(selector, "begin") and not state.kept:
        raise InputError(f"{type(selector).__name__} remembers: make the state with init(loop, x_init, selector)")
    corrects = isinstance(selector, Corrector)
    state, is_open = _open_block(loop, state, corrects=corrects)
    has_open, left = is_open.any(axis=-1), is_open.sum(axis=-1, dtype=jnp.int32)
    plan_keys, token_keys, score_keys, noise_keys = step_keys(keys, state.step)
    num_reveal = plan_step(selector, plan_keys, state.j, state.n_0, left)

    def reveal(state: State) -> State:
        is_read = is_open if num_reveal is None else is_open & (num_reveal > 0)[:, None]
        is_judged = jnp.zeros_like(is_read)
        if isinstance(selector, Doubter):
            judges = has_open & selector.judges(left if num_reveal is None else num_reveal)
            is_judged = judges[:, None] & (state.reveal_step >= 0) & (state.tokens != loop.mask_id)
        reading = loop.network.read(params, state, is_read | is_judged)
        confidence, hidden = _confidence(loop, reading, state, token_keys, temperature, is_read)
        scores = score_rows(oracle, score_keys, confidence, hidden)
        if hasattr(selector, "perturb"):
            scores = selector.perturb(noise_keys, scores, state.j)
        kept = tuple(selector.remember(memory, confidence, is_read) for memory in state.kept)  # type: ignore[attr-defined]
        is_chosen = choose_step(selector, scores, confidence, is_read, num_reveal, *kept)
        taken_back = None
        if isinstance(selector, Corrector):
            taken_back = selector.take_back(scores, confidence, is_open, is_chosen) & is_open & ~is_chosen
        elif isinstance(selector, Doubter):
            taken_back = _worst(selector, reading.quality, is_judged, is_chosen)
        return _write(loop, state, is_chosen, taken_back, scores, confidence, reading)._replace(kept=kept)

    def wait(state: State) -> State:
        def waits(ahead: Array) -> Array:
            plan_keys, *_ = step_keys(keys, state.step + ahead)
            return waits_at(selector, plan_keys, state.j + ahead, state.n_0, left)

        idle = idle_steps(waits, len(left))
        return state._replace(j=state.j + idle, step=state.step + jnp.where(has_open, idle, 0))

    state = reveal(state) if num_reveal is None else jax.lax.cond(jnp.any(num_reveal > 0), reveal, wait, state)
    if loop.ends and not isinstance(selector, Corrector | Doubter):
        state = state._replace(tokens=_ended(loop, state))
    return state._replace(step=state.step + has_open.astype(jnp.int32))


def _ended(loop: Loop, state: State) -> Array:
    """The tokens, with the masks behind the end of a text filled, int32 [B, L]."""
    is_masked, is_revealed = state.tokens == loop.mask_id, state.reveal_step >= 0
    is_end = is_revealed & jnp.isin(state.tokens, jnp.array(loop.ends))
    return jnp.where(behind_end(is_masked, is_end, is_masked | is_revealed), loop.ends[0], state.tokens)


def step_keys(keys: Array, step: Array) -> tuple[Array, ...]:
    """Four keys [B] of a step: for its plan, tokens, scores, and noise on the scores."""
    return split_rows(jax.vmap(jax.random.fold_in)(keys, step), 4)


def _open_block(loop: Loop, state: State, *, corrects: bool) -> tuple[State, Array]:
    """Moves each row to its leftmost block with open positions.

    Masked positions are open; with a corrector, all positions that were masked at the start.

    Returns:
      The state with `block`, `j` and `n_0` of this step, and the open positions, bool [B, L].
    """
    is_open = state.tokens == loop.mask_id
    if corrects:
        is_open |= state.reveal_step >= 0
    left = _left_end(loop, state)
    block, is_open = leftmost_block(is_open, loop.block_length, together=loop.network.together, left=left)
    is_new_block = block != state.block
    j = jnp.where(is_new_block, 1, state.j + 1)
    n_0 = jnp.where(is_new_block, is_open.sum(axis=-1, dtype=jnp.int32), state.n_0)
    return state._replace(block=block, j=j, n_0=n_0), is_open


def block_start(loop: Loop, state: State) -> Array:
    """The first position of the window of each row's open block, int32 [B]."""
    return window_start(state.block, state.tokens.shape[1], loop.block_length, left=_left_end(loop, state))


def _left_end(loop: Loop, state: State) -> Array | int:
    """Where the blocks of each row begin, int32 [B]: at its first target, revealed or not, or at 0."""
    if not loop.from_target:
        return 0
    is_target = (state.tokens == loop.mask_id) | (state.reveal_step >= 0)
    return jnp.argmax(is_target, axis=-1).astype(jnp.int32)


def _confidence(
    loop: Loop, reading: Reading, state: State, keys: Array, temperature: Array | None, is_read: Array
) -> tuple[Confidence, Array | None]:
    """Reads the confidence [B, L] at the positions `is_read`, with zeros elsewhere.

    With blocks only the window of each row's open block is read, a static number of positions.

    Returns:
      The confidence, and the hidden states [B, L, D] if the network gives Features, else None.
    """
    output, length = reading.output, is_read.shape[1]
    hidden = output.hidden if isinstance(output, Features) else None
    num_read = jax.tree.leaves(output)[0].shape[1]
    if loop.block_length == length:
        return read_confidence(keys, output, temperature, loop.mask_id, is_read, edit=loop.edit), hidden
    start = block_start(loop, state)
    positions = window_positions(start, loop.block_length)
    if num_read == length:
        output = take_positions(output, positions)
    is_read = jnp.take_along_axis(is_read, positions, axis=1)
    confidence = read_confidence(keys, output, temperature, loop.mask_id, is_read, first=start, edit=loop.edit)
    hidden = output.hidden if isinstance(output, Features) else None
    fields: tuple[Confidence, Array | None] = put_window((confidence, hidden), start, length)
    return fields


def written_log_prob(scores: Array, confidence: Confidence) -> Array:
    """Log p_theta of the tokens, float32 [B, L]; NaN where the score is NaN, to show the fault."""
    assert confidence.token_log_prob is not None
    return jnp.where(jnp.isnan(scores), jnp.nan, confidence.token_log_prob)


def _worst(selector: Doubter, quality: Array | None, is_judged: Array, is_chosen: Array) -> Array:
    """Of the judged tokens that are doubted those of lowest quality, fewer than are chosen: bool [B, L]."""
    if quality is None:
        raise InputError(f"{type(selector).__name__} wants a network that judges tokens: use correcting_sample")
    return best(-quality, selector.doubts(quality) & is_judged, is_chosen.sum(axis=-1, dtype=jnp.int32) - 1)


def _write(
    loop: Loop,
    state: State,
    is_chosen: Array,
    taken_back: Array | None,
    scores: Array,
    confidence: Confidence,
    reading: Reading,
) -> State:
    """Writes the chosen tokens, masks what is taken back, and counts the network calls."""
    others = state.tokens if taken_back is None else jnp.where(taken_back, loop.mask_id, state.tokens)
    is_revealed = is_chosen & (state.tokens == loop.mask_id)
    return state._replace(
        tokens=jnp.where(is_chosen, confidence.token, others),
        reveal_step=jnp.where(is_revealed, state.nfe, state.reveal_step),
        log_prob=jnp.where(is_chosen, written_log_prob(scores, confidence), state.log_prob),
        nfe=state.nfe + reading.calls,
        memory=reading.memory,
    )

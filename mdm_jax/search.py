"""Beam search over the order that a sampler takes: several partial fillings of each row at a time.

A filling takes the position that the oracle scores best and branches on its two likeliest tokens.
Of all branches of a row the `width` with the highest log p_theta live on. No rule of a task is used.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.blocks import take_positions
from mdm_jax.checks import call, has_unknown_ids, is_tree
from mdm_jax.confidence import read_confidence
from mdm_jax.edits import Edit
from mdm_jax.errors import InputError, shown
from mdm_jax.loop import step_keys, written_log_prob
from mdm_jax.oracles import margin, score_rows
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import SampleResult, check_arguments
from mdm_jax.selection import best, classes_in
from mdm_jax.typing import Array, Denoiser, Oracle, Params

DOUBT = 0.01
"""A second token is tried where its probability is at least this."""
LOWEST = -1e30
"""Ranks a filling whose log-probability is NaN or -inf behind all others, but before no filling."""


class Beam(NamedTuple):
    """The carry of the search: W fillings of each row, the best first."""

    tokens: Array
    """int32 [B, W, L]"""
    reveal_step: Array
    """int32 [B, W, L]: the step that revealed the position, -1 if none did"""
    log_prob: Array
    """float32 [B, W, L], nats: log p_theta of each token when it was revealed; 0 if none was"""
    is_alive: Array
    """bool [B, W]: whether there is a filling"""
    nfe: Array
    """int32 scalar: network calls so far, each on [B, L]"""
    step: Array
    """int32 scalar: steps so far"""


def search_sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    width: int,
    oracle: Oracle = margin,
    doubt: Array | float = DOUBT,
) -> SampleResult:
    """Fills in every mask of `x_init` with the likeliest of many fillings, found by a beam search.

    In each step a filling reveals its best-scored position, once with the likeliest token and, where
    the second-likeliest has a probability of at least `doubt`, once with that. The `width` fillings
    with the highest log p_theta live on, and the highest of them is returned. With width 1 this is
    `sample` with temperature 0, one position in a step.

    Equal fillings never arise, and a step computes no more fillings than the row with the most has,
    rounded up to a power of two. So without doubt it costs what `sample` costs. `nfe` counts
    calls of the size of the batch: a step with up to 4 fillings to a row counts as 4.

    Args:
      denoiser: the network, as in `sample`.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed. Only random oracles use it.
      x_init: int [B, L], with `mask_id` at every position to fill in.
      mask_id: id of the mask token.
      width: W, the most fillings of a row, at least 1.
      oracle: scores the positions of each filling; see `oracles`.
      doubt: the least probability of a second token to try, from 0 to 1; 0 tries all.

    Returns:
      SampleResult; `reveal_step` counts steps.

    Raises:
      InputError: as `sample`, or a width or a doubt that is no number in its range.

    Example:
      def denoiser(params, tokens):  # at first token 0 is a little likelier, but behind token 1 all is clear
          first = jnp.tile(params, (len(tokens), 1, 1))
          then = jnp.where((tokens[:, :1] == 1)[..., None], jnp.array([[[0.0, 0.0, 0.0, 9.0]]]), 0.0)
          return jnp.concatenate([first, then], axis=1)

      found = mdm_jax.search_sample(
          denoiser, jnp.array([[[0.6, 0.5, -9.0, -9.0]]]), jax.random.key(0), jnp.full((1, 2), 4),
          mask_id=4, width=2, oracle=mdm_jax.oracles.left_to_right,
      )
      assert found.tokens.tolist() == [[1, 3]]
    """
    tokens, keys, mask_id = check_arguments(denoiser, key, x_init, mask_id, oracle)
    check_number("width", width, Range(1, INT32), whole=True)
    if not isinstance(doubt, jax.core.Tracer) and not 0 <= float(doubt) <= 1:
        raise InputError(f"doubt must be a probability, from 0 to 1; got {shown(doubt)}")
    return search_tokens(denoiser, params, keys, tokens, oracle, doubt, mask_id=mask_id, width=width)[0]


def search_tokens(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    x_init: Array,
    oracle: Oracle,
    doubt: Array | float = DOUBT,
    *,
    mask_id: int,
    width: int,
    edit: Edit | None = None,
) -> tuple[SampleResult, Array]:
    """`search_sample` of checked arguments, with log p_theta of every token that was revealed, float32 [B, L].

    `edit` changes the logits that are read, as in `loop.Loop`.
    """
    tree = oracle if is_tree(oracle) else jax.tree_util.Partial(oracle)
    doubt = jnp.asarray(doubt, jnp.float32)
    return _search(
        denoiser, params, keys, x_init, tree, doubt, mask_id=mask_id, width=width, edit=edit, classes=classes_in(oracle)
    )


@functools.partial(jax.jit, static_argnames=("denoiser", "mask_id", "width", "edit", "classes"))
def _search(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    x_init: Array,
    oracle: Any,
    doubt: Array,
    *,
    mask_id: int,
    width: int,
    edit: Edit | None,
    classes: Any,
) -> tuple[SampleResult, Array]:
    del classes  # part of jit's cache key only
    plain = oracle.func if isinstance(oracle, jax.tree_util.Partial) else oracle
    sizes = sorted({min(1 << i, width) for i in range(width.bit_length() + 1)})

    def step(beam: Beam) -> Beam:
        most = beam.is_alive.sum(axis=-1, dtype=jnp.int32).max()
        forms = [functools.partial(_step, denoiser, params, keys, plain, doubt, mask_id, edit, size) for size in sizes]
        return jax.lax.switch(jnp.searchsorted(jnp.array(sizes), most), forms, beam)

    batch, length = x_init.shape
    beam = Beam(
        tokens=jnp.broadcast_to(x_init[:, None], (batch, width, length)),
        reveal_step=jnp.full((batch, width, length), -1, jnp.int32),
        log_prob=jnp.zeros((batch, width, length), jnp.float32),
        is_alive=jnp.broadcast_to(jnp.arange(width) == 0, (batch, width)),
        nfe=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(lambda beam: (beam.tokens[:, 0] == mask_id).any(), step, beam)
    log_prob = jnp.where(has_unknown_ids(x_init, denoiser), jnp.nan, end.log_prob[:, 0].sum(axis=-1))
    return SampleResult(end.tokens[:, 0], end.reveal_step[:, 0], log_prob, end.nfe), end.log_prob[:, 0]


def _step(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    oracle: Oracle,
    doubt: Array,
    mask_id: int,
    edit: Edit | None,
    size: int,
    beam: Beam,
) -> Beam:
    """One step of the first `size` fillings of each row; no other is alive."""
    batch, width, _ = beam.tokens.shape
    tokens, reveal_step, log_prob, is_alive = (
        field[:, :size].reshape(batch * size, *field.shape[2:])
        for field in (beam.tokens, beam.reveal_step, beam.log_prob, beam.is_alive)
    )
    _, token_keys, score_keys, _ = step_keys(jnp.repeat(keys, size), jnp.full(batch * size, beam.step))
    is_open = tokens == mask_id
    is_read = is_open & is_alive[:, None]
    output = call(denoiser, params, tokens, is_read)
    confidence = read_confidence(token_keys, output, None, mask_id, is_read, edit=edit)
    hidden = getattr(output, "hidden", None)
    scores = score_rows(oracle, score_keys, confidence, hidden)
    is_chosen = best(scores, is_read, jnp.ones(batch * size, jnp.int32))

    def chosen(field: Array) -> Array:
        return jnp.take_along_axis(field, jnp.argmax(is_chosen, axis=-1)[:, None], axis=-1)

    def but_first(logits: Array) -> Array:
        logits = logits if edit is None else edit(logits)
        return jnp.where(jax.nn.one_hot(chosen(confidence.token), logits.shape[-1], dtype=bool), -jnp.inf, logits)

    position = jnp.argmax(is_chosen, axis=-1).astype(jnp.int32)[:, None]
    second = read_confidence(token_keys, take_positions(output, position), None, mask_id, None, edit=but_first).token
    second_prob = chosen(confidence.second_prob)[:, 0]
    is_tried = is_alive & is_chosen.any(axis=-1) & (second_prob >= doubt) & (second_prob > 0)
    branches = [
        (confidence.token, written_log_prob(scores, confidence), is_alive),
        (second, jnp.log(second_prob)[:, None], is_tried),
    ]
    found = Beam(
        tokens=_by_row([jnp.where(is_chosen, token, tokens) for token, _, _ in branches], batch),
        reveal_step=_by_row([jnp.where(is_chosen, beam.step, reveal_step)] * 2, batch),
        log_prob=_by_row([jnp.where(is_chosen, its, log_prob) for _, its, _ in branches], batch),
        is_alive=_by_row([alive for _, _, alive in branches], batch),
        nfe=beam.nfe + size,
        step=beam.step + 1,
    )
    total = found.log_prob.sum(axis=-1)
    rank = jnp.where(found.is_alive, jnp.maximum(jnp.nan_to_num(total, nan=LOWEST), LOWEST), -jnp.inf)
    kept = jax.lax.top_k(rank, min(width, 2 * size))[1]

    def keep(field: Array) -> Array:
        field = jnp.take_along_axis(field, kept.reshape(*kept.shape, *[1] * (field.ndim - 2)), axis=1)
        return jnp.pad(field, [(0, 0), (0, width - kept.shape[1])] + [(0, 0)] * (field.ndim - 2))

    return found._replace(**{name: keep(getattr(found, name)) for name in Beam._fields[:4]})


def _by_row(branches: list[Array], batch: int) -> Array:
    """The branches of each row side by side: arrays [B · S, ...] -> [B, branches · S, ...]."""
    return jnp.concatenate([branch.reshape(batch, -1, *branch.shape[1:]) for branch in branches], axis=1)

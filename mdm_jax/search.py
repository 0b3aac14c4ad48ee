"""Beam search over the order that a sampler takes: several partial fillings of each row at a time.

A filling reveals what the selector chooses, and branches on the two likeliest tokens where it is most
in doubt. Of all branches of a row the `width` with the highest log p_theta live on. Behind a wrong
token a model often goes on without doubt, so that log p_theta does not tell the right filling; given
nearly all others, each token of a wrong one does. `check` ranks by that (`pseudo_likelihood`). No rule
of a task is used.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.blocks import take_positions
from mdm_jax.checks import call, check_scalar, has_unknown_ids
from mdm_jax.confidence import read_confidence
from mdm_jax.edits import Edit
from mdm_jax.errors import InputError
from mdm_jax.loop import step_keys, written_log_prob
from mdm_jax.oracles import as_tree, margin, score_rows
from mdm_jax.pseudo_likelihood import pseudo_log_likelihood
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import SampleResult, check_arguments
from mdm_jax.selection import PerStep, check_selector, choose_step, classes_in, plan_step
from mdm_jax.typing import Array, Corrector, Denoiser, Doubter, Oracle, Params, Selector

DOUBT = 0.01
"""A second token is tried where its probability is at least this."""
LOWEST = -1e30
"""Ranks a filling whose log-probability is NaN or -inf behind all others, but before no filling."""


class Beam(NamedTuple):
    """The carry of the search: of each row W fillings with masks left, then W finished ones, the best first."""

    tokens: Array
    """int32 [B, 2W, L]"""
    reveal_step: Array
    """int32 [B, 2W, L]: the step that revealed the position, -1 if none did"""
    log_prob: Array
    """float32 [B, 2W, L], nats: log p_theta of each token when it was revealed; 0 if none was"""
    is_alive: Array
    """bool [B, 2W]: whether there is a filling"""
    nfe: Array
    """int32 scalar: network calls so far, each on [B, L]"""
    step: Array
    """int32 scalar: steps so far"""


FILLING = ("tokens", "reveal_step", "log_prob", "is_alive")
"""The fields of a Beam that hold its fillings."""


def search_sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    width: int,
    oracle: Oracle = margin,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    doubt: Array | float = DOUBT,
    check: int = 0,
) -> SampleResult:
    """Fills in every mask of `x_init` with the best of many fillings, found by a beam search.

    In each step a filling reveals what the selector chooses, at least one position. Where the
    second-likeliest token of these positions is likeliest, and its probability at least `doubt`, a
    copy reveals that one. The `width` fillings with the highest log p_theta live on; so do the
    `width` finished ones. With width 1 this is `sample` with temperature 0, if the selector reveals
    something in every step.

    The finished filling of highest log p_theta is returned. With `check` it is that of highest
    `pseudo_log_likelihood` in so many calls: a model that goes on without doubt behind a wrong token
    still doubts that token, or those around it, when they are masked again.

    No filling arises twice. A step computes as many fillings of each row as the row with the most open
    ones has, rounded up to a power of two, at most `width`. Where nothing is in doubt nothing branches, and it costs
    what `sample` costs; where much is, up to `width` calls a step, and `width` times `check` in the
    end. Without `check`, a filling that is not above a finished one is dropped. `nfe` counts calls
    of the size of the batch: a step with up to 4 fillings to a row counts as 4, and so does each
    call of the check.

    Args:
      denoiser: the network, as in `sample`.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed. Only what draws uses it.
      x_init: int [B, L], with `mask_id` at every position to fill in.
      mask_id: id of the mask token.
      width: W, the most fillings of a row, at least 1.
      oracle: scores the positions of each filling; see `oracles`.
      selector: chooses the positions of a step; see `selection`. None that remembers or takes back.
        `Threshold` reveals at once what is sure.
      doubt: the least probability of a second token to try, from 0 to 1; 0 tries all.
      check: network calls for each filling in the end, to rank them by; 0 ranks by log p_theta.

    Returns:
      SampleResult; `reveal_step` counts steps.

    Raises:
      InputError: as `sample`, or a width, a doubt or a check that is no number in its range.

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
    check_number("check", check, Range(0, INT32), whole=True)
    width, check = operator.index(width), operator.index(check)
    check_scalar("doubt", doubt, Range(0, 1))
    settings: dict[str, Any] = {"width": width, "selector": selector, "doubt": doubt, "check": check}
    return search_tokens(denoiser, params, keys, tokens, oracle, mask_id=mask_id, **settings)[0]


def search_tokens(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    x_init: Array,
    oracle: Oracle,
    *,
    mask_id: int,
    width: int,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    doubt: Array | float = DOUBT,
    check: int = 0,
    edit: Edit | None = None,
) -> tuple[SampleResult, Array]:
    """`search_sample` of checked arguments, with log p_theta of every token that was revealed, float32 [B, L].

    The selector is checked here. `edit` changes the logits that are read, as in `loop.Loop`; the check sees no edit.
    """
    check_selector(selector)
    if isinstance(selector, Corrector | Doubter) or hasattr(selector, "begin"):
        raise InputError(f"{type(selector).__name__} takes back or remembers: a search wants one that does neither")
    given = (denoiser, params, keys, x_init, as_tree(oracle), selector, jnp.asarray(doubt, jnp.float32))
    classes = classes_in((oracle, selector))
    return _search(*given, mask_id=mask_id, width=width, check=check, edit=edit, classes=classes)


@functools.partial(jax.jit, static_argnames=("denoiser", "mask_id", "width", "check", "edit", "classes"))
def _search(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    x_init: Array,
    oracle: Any,
    selector: Selector,
    doubt: Array,
    *,
    mask_id: int,
    width: int,
    check: int,
    edit: Edit | None,
    classes: Any,
) -> tuple[SampleResult, Array]:
    del classes  # part of jit's cache key only
    sizes = sorted({min(1 << i, width) for i in range(width.bit_length() + 1)})

    def smallest(number: Array) -> Array:
        """Which of the sizes holds so many fillings of each row, [B]."""
        return jnp.searchsorted(jnp.array(sizes), number.max())

    def step(beam: Beam) -> Beam:
        settings = (denoiser, params, keys, oracle, selector, doubt, mask_id, edit, check > 0)
        forms = [functools.partial(_step, *settings, size) for size in sizes]
        return jax.lax.switch(smallest(_is_open(beam, mask_id).sum(axis=-1)), forms, beam)

    batch, length = x_init.shape
    shape, has_masks = (batch, 2 * width, length), (x_init == mask_id).any(axis=-1, keepdims=True)
    beam = Beam(
        tokens=jnp.broadcast_to(x_init[:, None], shape),
        reveal_step=jnp.full(shape, -1, jnp.int32),
        log_prob=jnp.zeros(shape, jnp.float32),
        is_alive=jnp.arange(2 * width)[None] == jnp.where(has_masks, 0, width),
        nfe=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(lambda beam: _is_open(beam, mask_id).any(), step, beam)
    nfe = end.nfe
    end = end._replace(**{name: getattr(end, name)[:, width:] for name in FILLING})
    rank = _rank(end)
    if check:

        def checked(size: int) -> tuple[Array, Array]:
            if size == 1:
                return rank, nfe
            tokens, reveal_step = (field[:, :size].reshape(-1, length) for field in (end.tokens, end.reveal_step))
            found = pseudo_log_likelihood(denoiser, params, tokens, reveal_step >= 0, mask_id=mask_id, num_calls=check)
            fit = jnp.where(end.is_alive[:, :size], _finite(found.log_prob.reshape(batch, size)), -jnp.inf)
            return jnp.pad(fit, [(0, 0), (0, width - size)], constant_values=-jnp.inf), nfe + size * found.nfe

        forms = [functools.partial(checked, size) for size in sizes]
        rank, nfe = jax.lax.switch(smallest(end.is_alive.sum(axis=-1)), forms)
    kept, rows = jnp.argmax(rank, axis=-1), jnp.arange(batch)
    tokens, reveal_step, log_prob = (field[rows, kept] for field in (end.tokens, end.reveal_step, end.log_prob))
    total = jnp.where(has_unknown_ids(x_init, denoiser), jnp.nan, log_prob.sum(axis=-1))
    return SampleResult(tokens, reveal_step, total, nfe), log_prob


def _finite(log_prob: Array) -> Array:
    """The values, with NaN and -inf as `LOWEST`."""
    return jnp.maximum(jnp.nan_to_num(log_prob, nan=LOWEST), LOWEST)


def _rank(beam: Beam) -> Array:
    """Log p_theta of each filling, float32 [B, W]; -inf where there is none."""
    return jnp.where(beam.is_alive, _finite(beam.log_prob.sum(axis=-1)), -jnp.inf)


def _is_open(beam: Beam, mask_id: int) -> Array:
    """Fillings that have masks left, bool [B, W]."""
    return beam.is_alive & (beam.tokens == mask_id).any(axis=-1)


def _step(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    oracle: Oracle,
    selector: Selector,
    doubt: Array,
    mask_id: int,
    edit: Edit | None,
    keeps_all: bool,
    size: int,
    beam: Beam,
) -> Beam:
    """One step of the first `size` fillings of each row; no other has masks left."""
    batch, both, length = beam.tokens.shape
    width = both // 2
    tokens, reveal_step, log_prob, is_alive = (
        field[:, :size].reshape(batch * size, *field.shape[2:])
        for field in (beam.tokens, beam.reveal_step, beam.log_prob, beam.is_alive)
    )
    step = jnp.full(batch * size, beam.step)
    plan_keys, token_keys, score_keys, _ = step_keys(jnp.repeat(keys, size), step)
    is_read = (tokens == mask_id) & is_alive[:, None]
    output = call(denoiser, params, tokens, is_read)
    confidence = read_confidence(token_keys, output, None, mask_id, is_read, edit=edit)
    scores = score_rows(oracle, score_keys, confidence, getattr(output, "hidden", None))
    left = is_read.sum(axis=-1, dtype=jnp.int32)
    n_0 = left + (reveal_step >= 0).sum(axis=-1, dtype=jnp.int32)
    planned = plan_step(selector, plan_keys, step + 1, n_0, left)
    is_chosen = choose_step(selector, scores, confidence, is_read, planned)
    second_prob = jnp.where(is_chosen, confidence.second_prob, -1)
    position = jnp.argmax(second_prob, axis=-1).astype(jnp.int32)[:, None]
    is_there = jnp.arange(length, dtype=jnp.int32)[None] == position
    first = jnp.take_along_axis(confidence.token, position, axis=1)

    def but_first(logits: Array) -> Array:
        logits = logits if edit is None else edit(logits)
        return jnp.where(jax.nn.one_hot(first, logits.shape[-1], dtype=bool), -jnp.inf, logits)

    second = read_confidence(token_keys, take_positions(output, position), None, mask_id, None, edit=but_first).token
    second_prob = jnp.take_along_axis(second_prob, position, axis=1)
    token, written = confidence.token, written_log_prob(scores, confidence)
    is_sound = ~jnp.isnan(jnp.where(is_chosen, written, 0)).any(axis=-1)
    is_tried = is_alive & is_sound & ((second_prob >= doubt) & (second_prob > 0))[:, 0]
    branches = [
        (token, written, is_alive),
        (jnp.where(is_there, second, token), jnp.where(is_there, jnp.log(second_prob), written), is_tried),
    ]

    def side_by_side(fields: list[Array], rest: Array) -> Array:
        """The branches of each row, and its finished fillings."""
        fields = [field.reshape(batch, size, *field.shape[1:]) for field in fields]
        return jnp.concatenate([*fields, rest[:, width:]], axis=1)

    found = Beam(
        tokens=side_by_side([jnp.where(is_chosen, one, tokens) for one, _, _ in branches], beam.tokens),
        reveal_step=side_by_side([jnp.where(is_chosen, beam.step, reveal_step)] * 2, beam.reveal_step),
        log_prob=side_by_side([jnp.where(is_chosen, its, log_prob) for _, its, _ in branches], beam.log_prob),
        is_alive=side_by_side([alive for _, _, alive in branches], beam.is_alive),
        nfe=beam.nfe + size,
        step=beam.step + 1,
    )
    is_open = _is_open(found, mask_id)
    open_rank, done_rank = (jnp.where(is_its, _rank(found), -jnp.inf) for is_its in (is_open, ~is_open))
    if not keeps_all:  # log p_theta only falls
        open_rank = jnp.where(open_rank > done_rank.max(axis=-1, keepdims=True), open_rank, -jnp.inf)
    best_open, best_done = (_highest(rank, width) for rank in (open_rank, done_rank))
    kept = jnp.concatenate([best_open[1], best_done[1]], axis=1)

    def keep(field: Array) -> Array:
        return jnp.take_along_axis(field, kept.reshape(*kept.shape, *[1] * (field.ndim - 2)), axis=1)

    is_alive = jnp.concatenate([best_open[0], best_done[0]], axis=1) > -jnp.inf
    return found._replace(**{name: keep(getattr(found, name)) for name in FILLING})._replace(is_alive=is_alive)


def _highest(rank: Array, width: int) -> tuple[Array, Array]:
    """The `width` highest of each row and where they are; -inf and 0 where there are no more."""
    found = jax.lax.top_k(rank, min(width, rank.shape[1]))
    missing = [(0, 0), (0, width - found[0].shape[1])]
    return jnp.pad(found[0], missing, constant_values=-jnp.inf), jnp.pad(found[1], missing)

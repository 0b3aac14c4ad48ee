"""Several answers to each row, of which one is kept: planning with more network calls.

No rule of a task is used. `symmetric.symmetric_sample` uses a task's symmetries.

The answers come from a decoder, any sampler as a function (keys [B], x_init [B, L]) -> SampleResult. All
proposals of a batch are decoded together, as a batch of B · N rows. Proposal 0 has the row's own key, so
that one proposal is what the decoder gives. So these samplers do not nest: as the decoder of another, one gives
some of its proposals the keys of others, and these are the same draws.

`nfe` counts calls of the size of the batch: a call on B · N rows counts as N. `reveal_step` and `log_prob`
are those of the proposal that is kept, in its own decoding.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.checks import check_tokens
from mdm_jax.errors import InputError
from mdm_jax.pseudo_likelihood import PseudoLikelihood
from mdm_jax.randomness import fold_rows, position_keys, row_keys, split_rows, uniform_rows
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.selection import best
from mdm_jax.typing import Array

OTHERS, AGAIN = 2**32 - 1, 2**32 - 2
"""Folded into a row's key for its other proposals, and to solve one again; no step of a decoder has these numbers."""

Propose: TypeAlias = Callable[[Array, int, int], SampleResult]
"""The proposals numbered from the first to before the end to each row of tokens int32 [B, L], as [B, N, ...]."""
Rank: TypeAlias = Callable[[Array, Array], PseudoLikelihood]
"""Ranks answers, tokens int32 [N, L] and where they were filled in, bool [N, L]: the highest first."""


def best_sample(
    decode: Decode,
    key: Array,
    x_init: ArrayLike,
    *,
    num: int,
    rank: Rank | None = None,
    enough: float | None = None,
) -> SampleResult:
    """The best of N answers to each row: the likeliest by the decoder's log_prob, or the highest by `rank`.

    It costs N times what the decoder costs, and what `rank` costs. The answers have to differ: with a
    decoder that draws nothing, at temperature 0 and without noise on the scores, all are the same.
    With `enough` the proposals are decoded one after another, until each row has an answer that is
    good enough.

    Args:
      decode: fills in a batch: (keys [B], x_init int32 [B, L]) -> SampleResult.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], as for the decoder.
      num: N, proposals for each row, at least 1.
      rank: `pseudo_log_likelihood` with all but the answers given; ties go to the higher log_prob.
      enough: keep the first answer that `rank` puts at least here, nats, and propose no more to that
        row. It reads the answers as they come, so it is not for a function under `jax.jit`.

    Returns:
      SampleResult.

    Raises:
      InputError: the key, the tokens or `num` cannot be used; `enough` without `rank`, or under
        `jax.jit`; or what the decoder raises.

    Example:
      def denoiser(params, tokens):
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      def decode(keys, x_init):
          return mdm_jax.sample(denoiser, params, keys, x_init, mask_id=5)

      params, x_init = jax.random.normal(jax.random.key(0), (6, 5)), jnp.full((2, 8), 5)
      one, best = (mdm_jax.best_sample(decode, jax.random.key(1), x_init, num=num) for num in (1, 8))
      assert (best.log_prob >= one.log_prob).all() and best.nfe == 8 * one.nfe
    """
    tokens, keys = checked(key, x_init, num)

    def propose(tokens: Array, first: int, end: int) -> SampleResult:
        return decode_all(decode, keys[:, first:end], jnp.repeat(tokens[:, None], end - first, axis=1))

    check_enough(enough, rank)
    return keep(propose(tokens, 0, num)) if rank is None else highest(propose, tokens, num, rank, enough)


def stable_sample(decode: Decode, key: Array, x_init: ArrayLike, *, num: int, share: float = 0.5) -> SampleResult:
    """The most stable of N answers to each row: the one that comes back when a part of it is solved again.

    Of each proposal's filled positions a random share is masked again, ⌈share · n⌉ of n, and decoded
    anew. Kept is the proposal of which most tokens come back; ties go to the higher log_prob, then to
    the first. An answer that contradicts itself does not lead back to itself. It costs N times what
    the decoder costs, and N times what it costs on `share` of the masks. With one proposal there is
    nothing to choose, and nothing is solved again. The answers have to differ, as for `best_sample`.

    Source: Helbling et al. 2026 (arXiv:2606.29150), who add noise to an answer and solve it again,
    with a flow model; each proposal is solved again once here.

    Args:
      decode: fills in a batch, as for `best_sample`. Positions with a `reveal_step` count as filled.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], as for the decoder.
      num: N, proposals for each row, at least 1.
      share: of the filled positions that is masked again, above 0, at most 1.

    Returns:
      SampleResult.

    Raises:
      InputError: as `best_sample`, or `share` is out of its range.

    Example:
      def denoiser(params, tokens):
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      def decode(keys, x_init):
          return mdm_jax.sample(denoiser, params, keys, x_init, mask_id=5)

      params, x_init = jax.random.normal(jax.random.key(0), (6, 5)), jnp.full((2, 8), 5)
      result = mdm_jax.stable_sample(decode, jax.random.key(1), x_init, num=4)
      assert (result.tokens < 5).all() and result.nfe == 4 * 8 + 4 * 4
    """
    tokens, keys = checked(key, x_init, num)
    check_number("share", share, Range(above=0, most=1))
    proposed = decode_all(decode, keys, jnp.repeat(tokens[:, None], num, axis=1))
    if num == 1:
        return keep(proposed)
    batch, length = tokens.shape
    draw_keys, again_keys = split_rows(fold_rows(keys.reshape(-1), AGAIN), 2)
    is_filled = (proposed.reveal_step >= 0).reshape(-1, length)
    num_filled = is_filled.sum(axis=-1).astype(jnp.float32)
    slack = 1e-4 + 1e-6 * num_filled  # float32 rounding could give one too many
    num_again = jnp.maximum(jnp.ceil(share * num_filled - slack), 1).astype(jnp.int32)
    is_again = best(uniform_rows(draw_keys, length), is_filled, num_again).reshape(batch, num, length)
    again = decode_all(decode, again_keys.reshape(batch, num), jnp.where(is_again, tokens[:, None], proposed.tokens))
    came_back = -(again.tokens != proposed.tokens).sum(axis=-1)
    return keep(proposed._replace(nfe=proposed.nfe + again.nfe), came_back)


def checked(key: Array, x_init: ArrayLike, num: int) -> tuple[Array, Array]:
    """The tokens int32 [B, L], and a key for each proposal [B, N], the row's own first."""
    check_number("num", num, Range(1, INT32), whole=True)
    tokens = check_tokens(x_init, "x_init")
    own = row_keys(key, len(tokens))
    others = position_keys(fold_rows(own, OTHERS), jnp.arange(1, num)[None])
    return tokens, jnp.concatenate([own[:, None], others], axis=1)


def check_enough(enough: float | None, rank: Rank | None) -> None:
    """InputError if `enough` has nothing to compare with."""
    if enough is not None and rank is None:
        raise InputError("enough is a value of rank: give rank too, such as pseudo_log_likelihood")


def decode_all(decode: Decode, keys: Array, x_init: Array) -> SampleResult:
    """Decodes proposals, keys [B, N] and tokens [B, N, L], as one batch; `nfe` in calls on B rows."""
    batch, num, length = x_init.shape
    found = decode(keys.reshape(-1), x_init.reshape(-1, length))
    tokens, reveal_step, log_prob = (field.reshape(batch, num, *field.shape[1:]) for field in found[:3])
    return SampleResult(tokens, reveal_step, log_prob, num * found.nfe)


def highest(propose: Propose, tokens: Array, num: int, rank: Rank, enough: float | None) -> SampleResult:
    """Of N proposals to each row, [B, L], the one that ranks highest, or of each row the first that is good enough."""
    if enough is None:
        proposed = propose(tokens, 0, num)
        return keep(*_ranked(proposed, rank)) if num > 1 else keep(proposed)
    check_number("enough", enough, Range())
    proposed, ranks = _ranked(propose(tokens, 0, 1), rank)
    for number in range(1, num):
        is_done, kept = ranks.max(axis=1) >= enough, keep(proposed, ranks)
        if isinstance(is_done, jax.core.Tracer):
            raise InputError("enough reads the answers as they come: call this outside jax.jit")
        if is_done.all():
            break
        left = jnp.where(is_done[:, None], kept.tokens, tokens)  # without masks, so that it takes no step
        another, its = _ranked(propose(left, number, number + 1), rank)
        ranks = jnp.stack([ranks.max(axis=1), jnp.where(is_done, -jnp.inf, its[:, 0])], axis=1)
        pairs = zip(kept[:3], another[:3], strict=True)
        both, steps, log_prob = (jnp.stack([old, new[:, 0]], axis=1) for old, new in pairs)
        proposed = SampleResult(both, steps, log_prob, kept.nfe + another.nfe)
    return keep(proposed, ranks)


def _ranked(proposed: SampleResult, rank: Rank) -> tuple[SampleResult, Array]:
    """The proposals with the calls of `rank`, and their ranks [B, N], not-a-number last."""
    batch, num, length = proposed.tokens.shape
    found = rank(proposed.tokens.reshape(-1, length), (proposed.reveal_step >= 0).reshape(-1, length))
    ranks = jnp.nan_to_num(found.log_prob.reshape(batch, num), nan=-jnp.inf)
    return proposed._replace(nfe=proposed.nfe + num * found.nfe), ranks


def keep(proposed: SampleResult, rank: Array | None = None) -> SampleResult:
    """Of each row the proposal of highest rank [B, N], then of highest log_prob, not-a-number last, then the first."""
    lowest = jnp.finfo(jnp.float32).min
    likely = jnp.maximum(jnp.nan_to_num(proposed.log_prob, nan=lowest), lowest)
    is_first = True if rank is None else rank == rank.max(axis=1, keepdims=True)
    kept = jnp.argmax(jnp.where(is_first, likely, -jnp.inf), axis=1)
    rows = jnp.arange(len(kept))
    tokens, reveal_step, log_prob = (field[rows, kept] for field in proposed[:3])
    return SampleResult(tokens, reveal_step, log_prob, proposed.nfe)

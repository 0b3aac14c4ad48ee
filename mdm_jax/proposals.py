"""Several answers to each row, of which one is kept: planning with more network calls.

No rule of a task is used. `symmetric.symmetric_sample` uses a task's symmetries.

The answers come from a decoder, any sampler as a function (keys [B], x_init [B, L]) -> SampleResult. All
proposals of a batch are decoded together, as a batch of B · N rows, or with `enough` one after another. Proposal 0
has the row's own key, so that one proposal is what the decoder gives. Do not nest these samplers: the inner one would
fold the same numbers into the same keys, so that some proposals would be equal.

`nfe` counts calls of the size of the batch: a call on B · N rows counts as N. `reveal_step` and `log_prob`
are those of the proposal that is kept, in its own decoding.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.choosing import Rank, best_ranked, check_enough, decode_all, keep, proposal_keys
from mdm_jax.randomness import fold_rows, split_rows, uniform_rows
from mdm_jax.ranges import Range, check_number
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.selection import best
from mdm_jax.typing import Array

AGAIN = 2**32 - 2
"""Folded into a row's key to solve a proposal again; no step of a decoder has this number."""


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
      enough: stop a row at its first answer that `rank` puts at least here, nats; a row without one
        keeps its highest. Finished rows leave the batch, whose size is then rounded up to a power of
        two (times the parts on devices); a call on fewer rows counts as one on all. Answers are read
        on the host, so not under `jax.jit`.

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
    check_enough(enough, rank)
    tokens, keys = proposal_keys(key, x_init, num)

    def propose(rows: Array, keys: Array, numbers: slice) -> SampleResult:
        chosen = keys[:, numbers]
        return decode_all(decode, chosen, jnp.repeat(rows[:, None], chosen.shape[1], axis=1))

    return keep(propose(tokens, keys, slice(num))) if rank is None else best_ranked(propose, tokens, keys, rank, enough)


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
    tokens, keys = proposal_keys(key, x_init, num)
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

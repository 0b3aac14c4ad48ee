"""Several answers to each row, of which one is kept: planning with more network calls.

No rule of a task is used but, by `symmetric_sample`, its symmetries.

The answers come from a decoder, any sampler as a function (keys [B], x_init [B, L]) -> SampleResult. All
proposals of a batch are decoded together, as a batch of B · N rows. Proposal 0 has the row's own key, so
that one proposal is what the decoder gives. So these samplers do not nest: as the decoder of another, one gives
some of its proposals the keys of others, and these are the same draws.

`nfe` counts calls of the size of the batch: a call on B · N rows counts as N. `reveal_step` and `log_prob`
are those of the proposal that is kept, in its own decoding.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mdm_jax.checks import check_tokens, known_values
from mdm_jax.errors import InputError
from mdm_jax.pseudo_likelihood import PseudoLikelihood
from mdm_jax.randomness import fold_rows, position_keys, row_keys, split_rows, uniform_rows
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.selection import best
from mdm_jax.typing import Array

OTHERS, AGAIN = 2**32 - 1, 2**32 - 2
"""Folded into a row's key for its other proposals, and to solve one again; no step of a decoder has these numbers."""

Rank: TypeAlias = Callable[[Array, Array], PseudoLikelihood]
"""Ranks answers, tokens int32 [N, L] and where they were filled in, bool [N, L]: the highest first."""


def best_sample(decode: Decode, key: Array, x_init: ArrayLike, *, num: int, rank: Rank | None = None) -> SampleResult:
    """The best of N answers to each row: the likeliest by the decoder's log_prob, or the highest by `rank`.

    It costs N times what the decoder costs, and what `rank` costs. The answers have to differ: with a
    decoder that draws nothing, at temperature 0 and without noise on the scores, all are the same.

    Args:
      decode: fills in a batch: (keys [B], x_init int32 [B, L]) -> SampleResult.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], as for the decoder.
      num: N, proposals for each row, at least 1.
      rank: `pseudo_log_likelihood` with all but the answers given; ties go to the higher log_prob.

    Returns:
      SampleResult.

    Raises:
      InputError: the key, the tokens or `num` cannot be used; or what the decoder raises.

    Example:
      def denoiser(params, tokens):
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      def decode(keys, x_init):
          return mdm_jax.sample(denoiser, params, keys, x_init, mask_id=5)

      params, x_init = jax.random.normal(jax.random.key(0), (6, 5)), jnp.full((2, 8), 5)
      one, best = (mdm_jax.best_sample(decode, jax.random.key(1), x_init, num=num) for num in (1, 8))
      assert (best.log_prob >= one.log_prob).all() and best.nfe == 8 * one.nfe
    """
    tokens, keys = _checked(key, x_init, num)
    proposed = _decode(decode, keys, jnp.repeat(tokens[:, None], num, axis=1))
    if rank is not None and num > 1:
        return _keep(*_ranked(proposed, rank))
    return _keep(proposed, jnp.zeros_like(proposed.log_prob))


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
    tokens, keys = _checked(key, x_init, num)
    check_number("share", share, Range(above=0, most=1))
    proposed = _decode(decode, keys, jnp.repeat(tokens[:, None], num, axis=1))
    if num == 1:
        return _keep(proposed, jnp.zeros_like(proposed.log_prob))
    batch, length = tokens.shape
    draw_keys, again_keys = split_rows(fold_rows(keys.reshape(-1), AGAIN), 2)
    is_filled = (proposed.reveal_step >= 0).reshape(-1, length)
    num_filled = is_filled.sum(axis=-1).astype(jnp.float32)
    slack = 1e-4 + 1e-6 * num_filled  # float32 rounding could give one too many
    num_again = jnp.maximum(jnp.ceil(share * num_filled - slack), 1).astype(jnp.int32)
    is_again = best(uniform_rows(draw_keys, length), is_filled, num_again).reshape(batch, num, length)
    again = _decode(decode, again_keys.reshape(batch, num), jnp.where(is_again, tokens[:, None], proposed.tokens))
    came_back = -(again.tokens != proposed.tokens).sum(axis=-1)
    return _keep(proposed._replace(nfe=proposed.nfe + again.nfe), came_back)


def symmetric_sample(
    decode: Decode,
    key: Array,
    x_init: ArrayLike,
    *,
    positions: ArrayLike,
    tokens: ArrayLike,
    rank: Rank | None = None,
) -> SampleResult:
    """The answer that most symmetric forms of a row lead to: a vote over whole answers.

    Form s of a row x is y with y[i] = tokens[s, x[positions[s, i]]]. Every form is decoded, its answer
    is taken back to the row's own form, and the answer that most forms agree on is kept; ties go to
    the higher log_prob, then to the first form. A vote, not an average of predictions: what is kept is
    an answer that the model gave, and any decoder will do. With `rank` there is no vote: the answer
    that it ranks highest is kept, even one that a single form leads to. It costs S times what the
    decoder costs, and the decoder may be without chance, since the forms differ.

    Args:
      decode: fills in a batch, as for `best_sample`.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], as for the decoder.
      positions: int [S, L], S permutations of the positions. A task with symmetries gives them, such as
        `tasks.sudoku.layouts.Masked.symmetries`.
      tokens: int [S, T], as many permutations of the ids 0 to T - 1, among them all ids in `x_init` and
        all that the decoder writes. The mask has to keep its id.
      rank: as for `best_sample`; of the answers in the row's own form.

    Returns:
      SampleResult.

    Raises:
      InputError: as `best_sample`, or the arrays hold no permutations, or an id is known that `tokens` lack.

    Example:
      def denoiser(params, tokens):
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      def decode(keys, x_init):
          return mdm_jax.sample(denoiser, params, keys, x_init, mask_id=5, temperature=0)

      params, x_init = jax.random.normal(jax.random.key(0), (6, 5)), jnp.full((2, 3), 5)
      mirrored = jnp.array([[0, 1, 2], [2, 1, 0]])
      result = mdm_jax.symmetric_sample(
          decode, jax.random.key(1), x_init, positions=mirrored, tokens=jnp.tile(jnp.arange(6), (2, 1))
      )
      assert (result.tokens < 5).all() and result.nfe == 2 * 3
    """
    num = _check_permutations("positions", positions)
    if _check_permutations("tokens", tokens) != num:
        raise InputError(f"positions hold {num} forms and tokens {len(np.asarray(tokens))}: give as many")
    given, keys = _checked(key, x_init, num)
    moved, renamed = jnp.asarray(positions, jnp.int32), jnp.asarray(tokens, jnp.int32)
    if moved.shape[1] != given.shape[1]:
        raise InputError(f"positions are for {moved.shape[1]} tokens, and x_init has {given.shape[1]}")
    _check_renamed("x_init holds", given, renamed.shape[1])
    rows = jnp.arange(num)[:, None]
    forms = renamed[rows[None], given[:, moved]]
    found = _decode(decode, keys, forms)
    _check_renamed("the decoder wrote", found.tokens, renamed.shape[1])
    back, names = jnp.argsort(moved, axis=1)[None], jnp.argsort(renamed, axis=1)
    answers = jnp.take_along_axis(names[rows[None], found.tokens], back, axis=2)
    steps = jnp.take_along_axis(found.reveal_step, back, axis=2)
    found = found._replace(tokens=answers, reveal_step=steps)
    if rank is not None and num > 1:
        return _keep(*_ranked(found, rank))
    return _keep(found, (answers[:, :, None] == answers[:, None]).all(axis=-1).sum(axis=-1))


def _checked(key: Array, x_init: ArrayLike, num: int) -> tuple[Array, Array]:
    """The tokens int32 [B, L], and a key for each proposal [B, N], the row's own first."""
    check_number("num", num, Range(1, INT32), whole=True)
    tokens = check_tokens(x_init, "x_init")
    own = row_keys(key, len(tokens))
    others = position_keys(fold_rows(own, OTHERS), jnp.arange(1, num)[None])
    return tokens, jnp.concatenate([own[:, None], others], axis=1)


def _check_permutations(name: str, array: ArrayLike) -> int:
    """The number of permutations [S, n] in the array; InputError if it holds something else."""
    values = np.asarray(array)
    if values.ndim != 2 or 0 in values.shape or (np.sort(values, axis=1) != np.arange(values.shape[1])).any():
        raise InputError(f"{name} must be permutations of 0 to n - 1, [forms, n]; got an array of shape {values.shape}")
    return len(values)


def _check_renamed(who: str, ids: Array, num: int) -> None:
    """InputError for an id from `num` on, if the ids are known: jit would take the last in its place."""
    values = known_values(ids)
    if values is not None and values.max() >= num:
        raise InputError(f"{who} the id {values.max()}, and tokens are permutations of the ids 0 to {num - 1} alone")


def _decode(decode: Decode, keys: Array, x_init: Array) -> SampleResult:
    """Decodes proposals, keys [B, N] and tokens [B, N, L], as one batch; `nfe` in calls on B rows."""
    batch, num, length = x_init.shape
    found = decode(keys.reshape(-1), x_init.reshape(-1, length))
    tokens, reveal_step, log_prob = (field.reshape(batch, num, *field.shape[1:]) for field in found[:3])
    return SampleResult(tokens, reveal_step, log_prob, num * found.nfe)


def _ranked(proposed: SampleResult, rank: Rank) -> tuple[SampleResult, Array]:
    """The proposals with the calls of `rank`, and their ranks [B, N], not-a-number last."""
    batch, num, length = proposed.tokens.shape
    found = rank(proposed.tokens.reshape(-1, length), (proposed.reveal_step >= 0).reshape(-1, length))
    ranks = jnp.nan_to_num(found.log_prob.reshape(batch, num), nan=-jnp.inf)
    return proposed._replace(nfe=proposed.nfe + num * found.nfe), ranks


def _keep(proposed: SampleResult, rank: Array) -> SampleResult:
    """Of each row the proposal of highest rank [B, N], then of highest log_prob, not-a-number last, then the first."""
    lowest = jnp.finfo(jnp.float32).min
    likely = jnp.maximum(jnp.nan_to_num(proposed.log_prob, nan=lowest), lowest)
    is_first = rank == rank.max(axis=1, keepdims=True)
    kept = jnp.argmax(jnp.where(is_first, likely, -jnp.inf), axis=1)
    rows = jnp.arange(len(kept))
    tokens, reveal_step, log_prob = (field[rows, kept] for field in proposed[:3])
    return SampleResult(tokens, reveal_step, log_prob, proposed.nfe)

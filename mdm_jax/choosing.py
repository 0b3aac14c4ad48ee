"""How one of several answers to each row is kept. `proposals` and `symmetric` make the answers."""

import functools
import operator
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.checks import check_tokens
from mdm_jax.errors import InputError
from mdm_jax.pseudo_likelihood import PseudoLikelihood
from mdm_jax.randomness import fold_rows, position_keys, row_keys
from mdm_jax.ranges import FLOAT32, INT32, Range, check_number
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.typing import Array

OTHERS = 2**32 - 1
"""Folded into a row's key for its other proposals; no step of a decoder has this number."""

Propose: TypeAlias = Callable[[Array, Array, slice], SampleResult]
"""(rows int32 [B, L], keys [B, N], numbers) -> the n proposals of these numbers; fields are [B, n, ...]."""
Rank: TypeAlias = Callable[[Array, Array], PseudoLikelihood]
"""Ranks answers, tokens int32 [N, L] and where they were filled in, bool [N, L]: the highest first."""


def proposal_keys(key: Array, x_init: ArrayLike, num: int) -> tuple[Array, Array]:
    """The checked tokens int32 [B, L], and a key for each proposal [B, N], the row's own first."""
    check_number("num", num, Range(1, INT32), whole=True)
    tokens = check_tokens(x_init, "x_init")
    own = row_keys(key, len(tokens))
    others = position_keys(fold_rows(own, OTHERS), jnp.arange(1, num)[None])
    return tokens, jnp.concatenate([own[:, None], others], axis=1)


def check_enough(enough: float | None, rank: Rank | None) -> None:
    """InputError if `enough` is no number, or has nothing to compare with."""
    if enough is None:
        return
    if rank is None:
        raise InputError("enough is a value of rank: give rank too, such as pseudo_log_likelihood")
    check_number("enough", enough, Range(-FLOAT32, FLOAT32))


def decode_all(decode: Decode, keys: Array, x_init: Array) -> SampleResult:
    """Decodes proposals, keys [B, N] and tokens [B, N, L], as one batch; `nfe` in calls on B rows."""
    batch, num, length = x_init.shape
    found = decode(keys.reshape(-1), x_init.reshape(-1, length))
    tokens, reveal_step, log_prob = (field.reshape(batch, num, *field.shape[1:]) for field in found[:3])
    return SampleResult(tokens, reveal_step, log_prob, num * found.nfe)


def best_ranked(propose: Propose, rows: Array, keys: Array, rank: Rank, enough: float | None) -> SampleResult:
    """Of N proposals to each row, [B, L], the one that ranks highest, or of each row the first that is good enough.

    With `enough` the rows that have no such answer yet are moved together, so that later proposals
    are decoded in smaller batches. Their sizes are those of few programs: the number of devices that
    hold the rows, times a power of two.
    """
    num = keys.shape[1]
    if num == 1:
        return keep(propose(rows, keys, slice(1)))
    if enough is None:
        return keep(*_ranked(propose(rows, keys, slice(num)), rank))
    proposed, its = _ranked(propose(rows, keys, slice(1)), rank)
    best, ranks = keep(proposed), its[:, 0]
    for number in range(1, num):
        is_done = ranks >= enough
        if isinstance(is_done, jax.core.Tracer):
            raise InputError("enough reads the answers as they come: call this outside jax.jit")
        num_left = int((~is_done).sum())
        if not num_left:
            break
        size = _size(num_left, rows)
        where = jnp.argsort(is_done, stable=True)[:size] if size < len(rows) else jnp.arange(size)
        fields = (rows, keys, best.tokens, is_done)
        some, their_keys, answers, are_done = (_rows_as(_layout(field))(field, where) for field in fields)
        left = jnp.where(are_done[:, None], answers, some)  # any whole answer would do: it takes no step
        another = _ranked(propose(left, their_keys, slice(number, number + 1)), rank)
        best, ranks = _better(best, ranks, *another, are_done, where)
    return best


def _size(num_left: int, rows: Array) -> int:
    """The size of a batch for so many of the rows: at most all, and a multiple of the parts that devices hold."""
    parts = len(rows) // rows.sharding.shard_shape(rows.shape)[0]
    size = parts
    while size < num_left:
        size *= 2
    return min(size, len(rows))


def _layout(field: Array) -> jax.sharding.Sharding | None:
    """How the field lies on the devices; None if it may move to those of others."""
    return field.sharding if field.committed else None


@functools.cache
def _rows_as(sharding: jax.sharding.Sharding | None) -> Callable[[Array, Array], Array]:
    """(field, numbers) -> its rows of these numbers, laid out over the devices in this way."""
    return jax.jit(operator.getitem, out_shardings=sharding)


@jax.jit
def _better(
    best: SampleResult, ranks: Array, another: SampleResult, its: Array, is_done: Array, where: Array
) -> tuple[SampleResult, Array]:
    """The better of two answers to each row of `where` that is not done; `another` and `its` are [N, 1, ...]."""
    tokens, reveal_step, log_prob = (
        jnp.stack([old[where], new[:, 0]], axis=1) for old, new in zip(best[:3], another[:3], strict=True)
    )
    both_ranks = jnp.stack([ranks[where], jnp.where(is_done, -jnp.inf, its[:, 0])], axis=1)
    kept = keep(SampleResult(tokens, reveal_step, log_prob, best.nfe + another.nfe), both_ranks)
    tokens, reveal_step, log_prob = (old.at[where].set(new) for old, new in zip(best[:3], kept[:3], strict=True))
    return SampleResult(tokens, reveal_step, log_prob, kept.nfe), ranks.at[where].set(both_ranks.max(axis=1))


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

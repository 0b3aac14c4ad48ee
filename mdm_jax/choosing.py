"""How one of several answers to each row is kept. `proposals` and `symmetric` make the answers."""

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

Propose: TypeAlias = Callable[[Array, slice], SampleResult]
"""The proposals of these numbers to each row of tokens, int32 [B, L]; their fields are [B, N, ...]."""
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


def best_ranked(propose: Propose, rows: Array, num: int, rank: Rank, enough: float | None) -> SampleResult:
    """Of N proposals to each row, [B, L], the one that ranks highest, or of each row the first that is good enough."""
    if num == 1:
        return keep(propose(rows, slice(1)))
    if enough is None:
        return keep(*_ranked(propose(rows, slice(num)), rank))
    proposed, its = _ranked(propose(rows, slice(1)), rank)
    best, ranks = keep(proposed), its[:, 0]
    for number in range(1, num):
        is_done = ranks >= enough
        if isinstance(is_done, jax.core.Tracer):
            raise InputError("enough reads the answers as they come: call this outside jax.jit")
        if is_done.all():
            break
        left = jnp.where(is_done[:, None], best.tokens, rows)  # any whole answer would do: it takes no step
        another = _ranked(propose(left, slice(number, number + 1)), rank)
        best, ranks = _better(best, ranks, *another, is_done)
    return best


@jax.jit
def _better(
    best: SampleResult, ranks: Array, another: SampleResult, its: Array, is_done: Array
) -> tuple[SampleResult, Array]:
    """The better of two answers to each row that is not done, and its rank; `another` and `its` are [B, 1, ...]."""
    tokens, reveal_step, log_prob = (
        jnp.stack([old, new[:, 0]], axis=1) for old, new in zip(best[:3], another[:3], strict=True)
    )
    ranks = jnp.stack([ranks, jnp.where(is_done, -jnp.inf, its[:, 0])], axis=1)
    both = SampleResult(tokens, reveal_step, log_prob, best.nfe + another.nfe)
    return keep(both, ranks), ranks.max(axis=1)


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

"""Order-aligned training: sequences are masked as a planned order would have left them, not at random.

A pool of B sequences is unmasked bit by bit. Each step trains on the pool as it stands, and then reveals the true
tokens at the positions that the network, in that same pass, scores best. A sequence that went through all phases makes
room for a fresh one of the batch. No network call is added. Source: Kim et al. 2026 (PUMA, arXiv:2602.10314).

It does not estimate a bound on the likelihood: subsets that the order leaves are drawn more often than others.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax import oracles
from mdm_jax.draws import Masked
from mdm_jax.masking import free_positions, mask_last
from mdm_jax.orders import uniform_order
from mdm_jax.randomness import one_key
from mdm_jax.selection import best
from mdm_jax.typing import Array, Confidence, Oracle


class Pool(NamedTuple):
    """Sequences that are being unmasked. Every field is [B, ...]."""

    x_0: Array
    """int32 [B, L]"""
    is_prompt: Array
    """bool [B, L]"""
    is_masked: Array
    """bool [B, L]"""
    phase: Array
    """int32 [B], from 0; `num_phases` and above: to be replaced"""


@dataclasses.dataclass(frozen=True)
class Aligned:
    """A draw with a state. In phase k of K the share of free tokens that is revealed is uniform on [k, k + 1) / K.

    Example: `make_train_step(..., masked_loss(mask_id, Aligned()), ...)`, or `--loss aligned`.

    Attributes:
      num_phases: K, as many training steps as a sequence stays. The source takes 8 for Sudoku.
      oracle: scores what to reveal; the source takes the largest probability.
    """

    num_phases: int = 8
    oracle: Oracle = oracles.top_prob

    def init(self, x_0: Array, is_prompt: Array) -> Pool:
        """A pool to be replaced, which begins with sequences in all phases: in the same one they would stay in step."""
        return Pool(x_0, is_prompt, jnp.zeros(x_0.shape, bool), jnp.full(len(x_0), self.num_phases + 1, jnp.int32))

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None, pool: Pool) -> tuple[Masked, Pool]:
        """What the step trains on: the mean over a row's masked tokens, times L', and the pool that it came from.

        Args:
          key: consumed.
          x_0: int32 [B, L], fresh sequences; those in the places of unfinished ones are not used.
          is_prompt: bool [B, L].
          pool: as it stands.
        """
        key_phase, key_share, key_order = jax.random.split(one_key(key), 3)
        is_done = (pool.phase >= self.num_phases) | ~pool.is_masked.any(axis=-1)
        any_phase = jax.random.randint(key_phase, pool.phase.shape, 0, self.num_phases, jnp.int32)
        phase = jnp.where(pool.phase > self.num_phases, any_phase, 0)
        is_free = free_positions(x_0, is_prompt)
        order = uniform_order(key_order, *x_0.shape)
        num_revealed = self._num_revealed(key_share, is_free, phase)
        _, is_masked = mask_last(x_0, order, num_revealed, mask_id=0, is_prompt=is_prompt)
        fresh = Pool(x_0, ~is_free, is_masked, phase)

        def replaced(new: Array, old: Array) -> Array:
            return jnp.where(is_done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        pool = jax.tree.map(replaced, fresh, pool)
        num_free = (~pool.is_prompt).sum(axis=-1)
        weight = num_free / jnp.maximum(pool.is_masked.sum(axis=-1), 1)
        rows = jnp.arange(len(x_0), dtype=jnp.int32)
        return Masked(pool.x_0, pool.is_masked, pool.is_masked, weight, rows), pool

    def advance(self, key: Array, pool: Pool, confidence: Confidence) -> Pool:
        """The pool one phase on.

        Args:
          key: consumed.
          pool: as trained on.
          confidence: of its masked positions; fields [B, L].
        """
        key_scores, key_share = jax.random.split(one_key(key))
        scores = self.oracle(key_scores, confidence)
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        phase = pool.phase + 1
        num_revealed = self._num_revealed(key_share, ~pool.is_prompt, phase)
        num_more = num_revealed - (~pool.is_prompt & ~pool.is_masked).sum(axis=-1, dtype=jnp.int32)
        chosen = best(scores, pool.is_masked, num_more)
        return pool._replace(is_masked=pool.is_masked & ~chosen, phase=phase)

    def _num_revealed(self, key: Array, is_free: Array, phase: Array) -> Array:
        """How many free tokens [B] are revealed in a phase; one at least stays masked."""
        num_free = is_free.sum(axis=-1, dtype=jnp.int32)
        share = (phase + jax.random.uniform(key, phase.shape)) / self.num_phases
        return jnp.clip(jnp.round(share * num_free).astype(jnp.int32), 0, jnp.maximum(num_free - 1, 0))

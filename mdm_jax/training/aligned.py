"""Order-aligned training: sequences are masked as a planned order leaves them, not at random.

A pool holds B sequences. Each step trains on their masked tokens, and then reveals the true tokens at the positions
that the network scored best in the same forward pass. After its last phase a sequence is replaced by one of the batch.
No network call is added. Source: Kim et al. 2026 (PUMA, arXiv:2602.10314).

The loss is no bound on the likelihood: it favours the subsets that the order leaves masked.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax import oracles
from mdm_jax.checks import call
from mdm_jax.confidence import read_confidence
from mdm_jax.draws import Masked
from mdm_jax.losses import nll_of
from mdm_jax.masking import free_positions, mask_last, mask_where
from mdm_jax.orders import uniform_order
from mdm_jax.randomness import one_key, row_keys
from mdm_jax.selection import best
from mdm_jax.typing import Array, Confidence, Denoiser, Oracle, Params


class Pool(NamedTuple):
    """B sequences that are being unmasked. Every field is [B, ...]."""

    x_0: Array
    """int32 [B, L]"""
    is_prompt: Array
    """bool [B, L]"""
    is_masked: Array
    """bool [B, L]"""
    phase: Array
    """int32 [B], from 0; a sequence in phase `num_phases` or above is replaced"""


@dataclasses.dataclass(frozen=True)
class Aligned:
    """A draw with a state. In phase k of K the share of free tokens that is revealed is uniform on [k, k + 1) / K.

    Example: `make_train_step(..., masked_loss(mask_id, Aligned()), ...)`, or `--loss aligned`.

    Attributes:
      num_phases: K, the number of training steps that a sequence stays in the pool. The source has 8 for Sudoku.
      oracle: scores the positions to reveal. The source has the largest probability.
    """

    num_phases: int = 8
    oracle: Oracle = oracles.top_prob

    def init(self, x_0: Array, is_prompt: Array) -> Pool:
        """An empty pool. Its first sequences start in random phases; later ones start in phase 0."""
        return Pool(x_0, is_prompt, jnp.zeros(x_0.shape, bool), jnp.full(len(x_0), self.num_phases + 1, jnp.int32))

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None, pool: Pool) -> tuple[Masked, Pool]:
        """Replaces finished sequences; the weight makes the loss L' times the mean over a row's masked tokens.

        Args:
          key: consumed.
          x_0: int32 [B, L], fresh sequences; row i is used if sequence i of the pool is finished.
          is_prompt: bool [B, L].
          pool: the current pool.

        Returns:
          What the step trains on, and the pool with the same sequences.
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

    def nll(
        self, denoiser: Denoiser, params: Params, masked: Masked, *, mask_id: int, paired: bool
    ) -> tuple[Array, Confidence]:
        """The loss of drawn rows, float32 [B], nats; and the confidence at masked positions, which `advance` reads."""
        del paired
        output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
        keys = row_keys(jax.random.key(0), len(masked.x_0))  # not used: tokens are the likeliest
        confidence = read_confidence(keys, jax.lax.stop_gradient(output), None, mask_id, masked.is_masked)
        return nll_of(output, masked, mask_id=mask_id), confidence

    def advance(self, key: Array, pool: Pool, confidence: Confidence) -> Pool:
        """Reveals the best-scored positions and advances every sequence to its next phase.

        Args:
          key: consumed.
          pool: the pool that the step trained on.
          confidence: fields [B, L]; read at masked positions only.
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
        """The number of revealed free tokens [B] in a phase; at least one stays masked."""
        num_free = is_free.sum(axis=-1, dtype=jnp.int32)
        share = (phase + jax.random.uniform(key, phase.shape)) / self.num_phases
        return jnp.clip(jnp.round(share * num_free).astype(jnp.int32), 0, jnp.maximum(num_free - 1, 0))

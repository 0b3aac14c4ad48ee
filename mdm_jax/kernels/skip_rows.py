"""A wrapper that skips rows without a position that is read, which saves time on a CPU.

Such rows are finished, or the selector plans nothing for them in a step. On a CPU the time follows
the number of rows that are computed. On accelerators a smaller batch is hardly faster (not
measured).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array, FeatureDenoiser, Features, Params


@dataclasses.dataclass(frozen=True)
class SkipRows:
    """A FeatureDenoiser that computes only as many chunks of rows as hold the rows that are read.

    A batch on several devices is computed whole, since a chunk would gather rows of all of them.

    Attributes:
      denoiser: a denoiser that gives Features.
      positions: minimum number of tokens in a chunk; with fewer, matrix products slow down.
    """

    denoiser: FeatureDenoiser
    positions: int = 512

    @property
    def num_tokens(self) -> Any:
        """The denoiser takes the ids 0 to num_tokens - 1; None if it does not say."""
        return getattr(self.denoiser, "num_tokens", None)

    def __call__(self, params: Params, tokens: Array) -> Array | Features:
        """The output of the denoiser for all rows."""
        return self.denoiser(params, tokens)

    def features(self, params: Params, tokens: Array, is_read: Array | None = None) -> Features:
        """The Features of the denoiser, with zeros in rows that are skipped."""
        batch, length = tokens.shape
        size = chunk_rows(batch, length, self.positions)
        num_chunks = -(-batch // size)
        if is_read is None or num_chunks == 1 or jax.device_count() > 1:
            return self.denoiser.features(params, tokens, is_read)
        like = jax.eval_shape(self.denoiser.features, params, tokens[:size], is_read[:size])
        row_is_read = is_read.any(axis=-1)
        read_first = jnp.argsort(~row_is_read, stable=True).astype(jnp.int32)
        indices = jnp.pad(read_first, (0, num_chunks * size - batch), constant_values=batch)

        def compute(i: Array, hidden: Array) -> Array:
            rows = jax.lax.dynamic_slice_in_dim(indices, i * size, size)
            valid_rows = jnp.minimum(rows, batch - 1)
            features = self.denoiser.features(params, tokens[valid_rows], is_read[valid_rows])
            return hidden.at[rows].set(features.hidden, mode="drop")

        def some() -> Array:
            zeros = jnp.zeros((batch, *like.hidden.shape[1:]), like.hidden.dtype)
            return jax.lax.fori_loop(0, -(-row_is_read.sum(dtype=jnp.int32) // size), compute, zeros)

        def every() -> Array:
            return self.denoiser.features(params, tokens, is_read).hidden

        hidden = jax.lax.cond(row_is_read.sum() > (num_chunks - 1) * size, every, some)
        return Features(hidden, self._head(params, tokens))

    def _head(self, params: Params, tokens: Array) -> Array:
        """The head, which does not depend on tokens. XLA removes the rest of the computation."""
        return self.denoiser.features(params, tokens[:1]).head


def chunk_rows(batch: int, length: int, positions: int) -> int:
    """Rows in a chunk: all, or enough for `positions` tokens with little padding in the last one."""
    enough = -(-positions // max(length, 1))
    if enough >= batch:
        return max(batch, 1)
    return min(range(enough, min(2 * enough, batch) + 1), key=lambda rows: -batch % rows)

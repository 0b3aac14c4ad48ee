"""Leaving out the rows of a batch of which nothing is read: worth it on a CPU, where time follows the work.

Opt in by wrapping a denoiser. Rows that are finished, or for which a selector plans nothing in a step, are then not
computed. On an accelerator a smaller batch is hardly faster; that has not been measured.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array, FeatureDenoiser, Features, Params


@dataclasses.dataclass(frozen=True)
class SkipRows:
    """A FeatureDenoiser that computes rows in chunks, those that are read first, and as many chunks as that takes.

    A batch over several devices is computed whole: chunks would bring rows of all of them together.

    Attributes:
      denoiser: gives Features.
      positions: tokens of a chunk, at least; with fewer, matrix products slow down.
    """

    denoiser: FeatureDenoiser
    positions: int = 512

    @property
    def num_tokens(self) -> Any:
        """Ids that the denoiser may be given, if it says."""
        return getattr(self.denoiser, "num_tokens", None)

    def __call__(self, params: Params, tokens: Array) -> Array | Features:
        """As the denoiser."""
        return self.denoiser(params, tokens)

    def features(self, params: Params, tokens: Array, is_read: Array | None = None) -> Features:
        """As the denoiser's; zeros in rows that are left out."""
        batch, length = tokens.shape
        size = chunk_rows(batch, length, self.positions)
        num_chunks = -(-batch // size)
        if is_read is None or num_chunks == 1 or jax.device_count() > 1:
            return self.denoiser.features(params, tokens, is_read)
        like = jax.eval_shape(self.denoiser.features, params, tokens[:size], is_read[:size])
        is_wanted = is_read.any(axis=-1)
        wanted_first = jnp.argsort(~is_wanted, stable=True).astype(jnp.int32)
        indices = jnp.pad(wanted_first, (0, num_chunks * size - batch), constant_values=batch)

        def compute(i: Array, hidden: Array) -> Array:
            rows = jax.lax.dynamic_slice_in_dim(indices, i * size, size)
            here = jnp.minimum(rows, batch - 1)
            made = self.denoiser.features(params, tokens[here], is_read[here])
            return hidden.at[rows].set(made.hidden, mode="drop")

        def some() -> Array:
            zeros = jnp.zeros((batch, *like.hidden.shape[1:]), like.hidden.dtype)
            return jax.lax.fori_loop(0, -(-is_wanted.sum(dtype=jnp.int32) // size), compute, zeros)

        def every() -> Array:
            return self.denoiser.features(params, tokens, is_read).hidden

        hidden = jax.lax.cond(is_wanted.sum() > (num_chunks - 1) * size, every, some)
        return Features(hidden, self._head(params, tokens))

    def _head(self, params: Params, tokens: Array) -> Array:
        """The head, which depends on no token; what else is computed with it is not used, and so is left out."""
        return self.denoiser.features(params, tokens[:1]).head


def chunk_rows(batch: int, length: int, positions: int) -> int:
    """Rows of a chunk: all, or enough for so many positions, and such that few are computed in vain."""
    enough = -(-positions // max(length, 1))
    if enough >= batch:
        return max(batch, 1)
    return min(range(enough, min(2 * enough, batch) + 1), key=lambda rows: -batch % rows)

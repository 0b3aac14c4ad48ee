"""KLASS: reveals what the network is sure of and has been saying for some steps.

A selector that remembers: it keeps the last reading of each position (`begin`, `remember` in `typing.Selector`).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax.ranges import Range
from mdm_jax.selection import check_setting, rank_by_score
from mdm_jax.typing import Array, Confidence

CALLS = 2
"""Network calls in a row that must say nearly the same."""
LEAST = float(jnp.finfo(jnp.float32).eps)
"""The smallest distance of a probability from 1 that counts, since float32 knows none below."""


class Seen(NamedTuple):
    """The last reading of each position, [B, L]."""

    token: Array
    """int32: the token; -1 before the first reading"""
    top_prob: Array
    """float32: the largest probability"""
    calm: Array
    """int32: readings up to this one in a row that changed little"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Klass:
    """Reveals every open position that is sure and calm, and always the best-scored one.

    Sure is a position whose largest probability p is above `confidence`; calm is one whose prediction
    changed by less than `change` in each of the last two network calls. The change of p from q is

        p log(p / q) + (1 - p) log((1 - p) / (1 - q))

    and infinite if the token is another.

    Source: Kim et al. 2025, "KLASS" (arXiv:2511.05664), with thresholds from 0.6 to 0.9 and from 0.001
    to 0.015, and two calls. Deviations: KLASS takes the KL divergence of the whole distribution from the
    last one, which would have to be kept for each position and token. Here it is that between "the
    likeliest token" and "any other", which is at most as large, so that at equal thresholds as much or
    more is revealed; and a change of token always counts. Where nothing is sure and calm, KLASS
    reveals the most confident positions; here it is the one that the oracle scores best, also beside
    others that are sure and calm, as with `Threshold`. At a temperature above 0 the token is the one
    that was drawn, so that positions that are still undecided are rarely calm.

    Attributes:
      confidence: from 0 to 1.
      change: nats, at least 0; may be infinite.

    Example:
      def denoiser(params, tokens):  # always the same prediction
          return jnp.broadcast_to(params, (*tokens.shape, 2))

      x_init = jnp.full((1, 9), 2)
      result = mdm_jax.sample(
          denoiser, jnp.array([5.0, 0.0]), jax.random.key(0), x_init, mask_id=2,
          selector=mdm_jax.Klass(confidence=0.9), temperature=0,
      )
      assert int(result.nfe) == 3  # one, one, and then all that have been calm twice
    """

    confidence: float = 0.9
    change: float = 0.01

    def __post_init__(self) -> None:
        check_setting("confidence", self.confidence, Range(0, 1))
        check_setting("change", self.change, Range(0, infinite=True))

    def begin(self, batch: int, length: int) -> Seen:
        """Nothing seen yet."""
        zeros = jnp.zeros((batch, length), jnp.int32)
        return Seen(zeros - 1, jnp.zeros((batch, length), jnp.float32), zeros)

    def remember(self, memory: Seen, confidence: Confidence, is_open: Array) -> Seen:
        """The new reading of open positions, and the last one of others."""
        p, q = confidence.top_prob, memory.top_prob
        others = (jnp.maximum(1 - prob, LEAST) for prob in (p, q))
        change = jax.scipy.special.rel_entr(p, q) + jax.scipy.special.rel_entr(*others)
        is_calm = (confidence.token == memory.token) & (change < self.change)
        now = Seen(confidence.token, p, jnp.where(is_calm, memory.calm + 1, 0))
        return Seen(*(jnp.where(is_open, new, old) for new, old in zip(now, memory, strict=True)))

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> None:
        """None: the number is known only after the network call."""

    def choose(
        self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: None, memory: Seen | None = None
    ) -> Array:
        """Positions that are sure and calm, and the best-scored one: bool [B, L]. Without a memory none is calm."""
        del num_reveal
        is_best = rank_by_score(scores, is_open) == 0
        if memory is None:
            return is_open & is_best
        return is_open & (is_best | ((confidence.top_prob > self.confidence) & (memory.calm >= CALLS)))

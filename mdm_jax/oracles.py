"""Oracles F(theta, x_t): scores that say which masked positions to reveal first.

An oracle is any function `(key, confidence) -> scores`, the higher the sooner. `sample` calls it row by row, with
fields of shape [1, L] and a key of the row's own, so that no row can look at another. Your own is three lines:

    def peaked(key, confidence):
        return confidence.top_prob**2 - confidence.entropy

An oracle may be a pytree with numbers, such as a learned one: these are traced, as those of selectors are. One with an
attribute `wants_hidden = True` is called with the hidden states [1, L, D] too.

Source: Kim et al. 2025, section 2 (random, top probability, top probability margin) and D.1.2 (with noise). What the
scores are, beyond the order they give, matters where noise is added to them or a threshold is set.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.checks import check_callable, check_mask_id, is_tree
from mdm_jax.ranges import Range, check_number
from mdm_jax.typing import Array, Confidence, Oracle


def random(key: Array, confidence: Confidence) -> Array:
    """A uniform score per position: the order of the vanilla reverse process."""
    return jax.random.uniform(key, confidence.top_prob.shape)


def left_to_right(key: Array, confidence: Confidence) -> Array:
    """-position: the order of an autoregressive model."""
    del key
    length = confidence.top_prob.shape[-1]
    return jnp.broadcast_to(-jnp.arange(length, dtype=jnp.float32), confidence.top_prob.shape)


def top_prob(key: Array, confidence: Confidence) -> Array:
    """max_j p_theta(x^i = j | x_t): the paper's "top probability"."""
    del key
    return confidence.top_prob


def margin(key: Array, confidence: Confidence) -> Array:
    """p_theta(x^i = j_1 | x_t) - p_theta(x^i = j_2 | x_t), j_1 and j_2 the likeliest: "top probability margin"."""
    del key
    return confidence.top_prob - confidence.second_prob


def top_log_prob(key: Array, confidence: Confidence) -> Array:
    """The log of `top_prob`, nats: the same order on another scale, to which Ye et al. 2024 (trainer.py) add noise."""
    del key
    return _finite_log(confidence.top_prob)


def log_margin(key: Array, confidence: Confidence) -> Array:
    """The margin of the two best logits: log p_theta(x^i = j_1 | x_t) - log p_theta(x^i = j_2 | x_t), nats.

    At most 87.3: probabilities below float32's smallest normal number count as that number.
    """
    del key
    return _finite_log(confidence.top_prob) - _finite_log(confidence.second_prob)


def neg_entropy(key: Array, confidence: Confidence) -> Array:
    """-H(p_theta(x^i | x_t)): the most certain position first."""
    del key
    return -confidence.entropy


def token_prob(key: Array, confidence: Confidence) -> Array:
    """p_theta of the token that was drawn: LLaDA's low-confidence rule (Nie et al. 2025, arXiv:2502.09992)."""
    del key
    return confidence.token_prob


def _finite_log(prob: Array) -> Array:
    """log(prob), of a probability that underflowed to 0 too."""
    return jnp.log(jnp.maximum(prob, jnp.finfo(jnp.float32).tiny))


ORACLES: Mapping[str, Oracle] = {
    oracle.__name__: oracle
    for oracle in (random, left_to_right, top_prob, margin, neg_entropy, token_prob, top_log_prob, log_margin)
}
"""All of the above by name."""


@dataclasses.dataclass(frozen=True)
class WithNoise:
    """An oracle plus Gaussian noise. A pytree: another scale compiles nothing."""

    oracle: Oracle
    scale: Array | float

    @property
    def wants_hidden(self) -> bool:
        """As the oracle's."""
        return getattr(self.oracle, "wants_hidden", False)

    def __call__(self, key: Array, confidence: Confidence, *hidden: Array) -> Array:
        """The oracle's scores plus `scale` times standard normal noise."""
        key_oracle, key_noise = jax.random.split(key)
        scores: Array = self.oracle(key_oracle, confidence, *hidden)
        return scores + self.scale * jax.random.normal(key_noise, scores.shape)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Oracle | None]:
        """The numbers, and the oracle among them if it is a pytree too."""
        return ((self.scale, self.oracle), None) if is_tree(self.oracle) else ((self.scale,), self.oracle)

    @classmethod
    def tree_unflatten(cls, oracle: Oracle | None, numbers: tuple[Any, ...]) -> "WithNoise":
        """The inverse of `tree_flatten`."""
        scale, *rest = numbers
        return cls(oracle if oracle is not None else rest[0], scale)


jax.tree_util.register_pytree_node_class(WithNoise)


def with_noise(oracle: Oracle, scale: float) -> Oracle:
    """F + ε, ε ~ N(0, scale²): the paper's Top-K(margin + ε) for text.

    Args:
      oracle: the oracle to perturb.
      scale: standard deviation of the noise, in units of the oracle's score.

    Returns:
      An oracle, hashable and equal by value.

    Raises:
      InputError: `scale` is negative or not finite.
    """
    check_callable(oracle, "oracle")
    check_number("scale", scale, Range(0))
    return WithNoise(oracle, float(scale))


@dataclasses.dataclass(frozen=True)
class WithLast:
    """An oracle whose positions come last where the token that would be revealed is one of some ids. A pytree."""

    oracle: Oracle
    ids: tuple[int, ...]

    @property
    def wants_hidden(self) -> bool:
        """As the oracle's."""
        return getattr(self.oracle, "wants_hidden", False)

    def __call__(self, key: Array, confidence: Confidence, *hidden: Array) -> Array:
        """The oracle's scores, and -inf at these positions."""
        scores: Array = self.oracle(key, confidence, *hidden)
        is_last = jnp.isin(confidence.token, jnp.asarray(self.ids, jnp.int32))
        return jnp.where(is_last & ~jnp.isnan(scores), -jnp.inf, scores)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Oracle | None, tuple[int, ...]]]:
        """The oracle's numbers, if it is a pytree."""
        return ((self.oracle,), (None, self.ids)) if is_tree(self.oracle) else ((), (self.oracle, self.ids))

    @classmethod
    def tree_unflatten(cls, static: tuple[Oracle | None, tuple[int, ...]], numbers: tuple[Any, ...]) -> "WithLast":
        """The inverse of `tree_flatten`."""
        oracle, ids = static
        return cls(oracle if oracle is not None else numbers[0], ids)


jax.tree_util.register_pytree_node_class(WithLast)


def with_last(oracle: Oracle, ids: Sequence[int]) -> Oracle:
    """The oracle, with the positions last where one of `ids` would be revealed, such as the end of the text.

    LLaDA decodes instructions so ("confidence_eos_eot_inf"), for else the end is what it is surest of.

    Args:
      oracle: scores all other positions.
      ids: token ids.

    Raises:
      InputError: an id is none.
    """
    check_callable(oracle, "oracle")
    return WithLast(oracle, tuple(sorted({check_mask_id(number, name="an id that comes last") for number in ids})))

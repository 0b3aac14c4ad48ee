"""Oracles F(theta, x_t): scores that say which masked positions to reveal first.

An oracle is any function `(key, confidence) -> scores`; positions with higher scores are revealed
sooner. `sample` calls it on one row at a time, with fields of shape [1, L] and the key of the row,
so that rows stay independent. The scores are float32 [1, L].

An oracle may be a pytree with numbers, such as a learned one; these are traced, like those of
selectors. An oracle with an attribute `wants_hidden = True` is called with the hidden states [1, L,
D] as a third argument.

The order of the scores decides what is revealed. Their scale matters too if noise is added to them
or a threshold is set. Source: Kim et al. 2025, section 2 (random, top probability, top probability
margin) and D.1.2 (with noise).

Example:
  def peaked(key, confidence):  # an oracle of your own
      return confidence.top_prob**2 - confidence.entropy

  def denoiser(params, tokens):
      return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

  params, x_init = jax.random.normal(jax.random.key(0), (6, 5)), jnp.full((2, 8), 5)
  result = mdm_jax.sample(
      denoiser, params, jax.random.key(1), x_init, mask_id=5, oracle=peaked
  )
  assert (result.tokens < 5).all()
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mdm_jax.checks import check_callable, check_mask_id, check_scalar, is_tree
from mdm_jax.errors import InputError
from mdm_jax.ranges import Range
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
    """p_theta(x^i = j_1 | x_t) - p_theta(x^i = j_2 | x_t): the paper's "top probability margin".

    j_1 and j_2 are the two likeliest tokens.
    """
    del key
    return confidence.top_prob - confidence.second_prob


def top_log_prob(key: Array, confidence: Confidence) -> Array:
    """The log of `top_prob`, nats: the same order on another scale.

    Ye et al. 2024 (trainer.py) add noise on this scale.
    """
    del key
    return _finite_log(confidence.top_prob)


def log_margin(key: Array, confidence: Confidence) -> Array:
    """Margin of the two best logits: log p_theta(x^i = j_1 | x_t) - log p_theta(x^i = j_2 | x_t).

    In nats, at most 87.3, since a probability below the smallest normal float32 number counts as
    that number.
    """
    del key
    return _finite_log(confidence.top_prob) - _finite_log(confidence.second_prob)


def neg_entropy(key: Array, confidence: Confidence) -> Array:
    """-H(p_theta(x^i | x_t)): the most certain position first."""
    del key
    return -confidence.entropy


def token_prob(key: Array, confidence: Confidence) -> Array:
    """p_theta of the drawn token, the low-confidence rule of LLaDA.

    Source: Nie et al. 2025, arXiv:2502.09992.
    """
    del key
    return confidence.token_prob


def _finite_log(prob: Array) -> Array:
    """log(prob), finite also where the probability underflowed to 0."""
    return jnp.log(jnp.maximum(prob, jnp.finfo(jnp.float32).tiny))


ORACLES: Mapping[str, Oracle] = {
    oracle.__name__: oracle
    for oracle in (random, left_to_right, top_prob, margin, neg_entropy, token_prob, top_log_prob, log_margin)
}
"""The oracles above by name."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Static:
    """An oracle that is a plain function, as a pytree without numbers: jit compiles it in."""

    oracle: Oracle = dataclasses.field(metadata={"static": True})

    @property
    def wants_hidden(self) -> bool:
        """As the function's."""
        return getattr(self.oracle, "wants_hidden", False)

    def __call__(self, key: Array, confidence: Confidence, *hidden: Array) -> Array:
        """The function's scores."""
        return self.oracle(key, confidence, *hidden)


def as_tree(oracle: Oracle) -> Oracle:
    """The oracle as a pytree, which a jitted function can take: itself if it is one, else `Static`."""
    return oracle if is_tree(oracle) else Static(oracle)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithNoise:
    """An oracle (a pytree) plus Gaussian noise. A new scale does not recompile."""

    oracle: Oracle
    scale: Array | float

    @property
    def wants_hidden(self) -> bool:
        """Whether the inner oracle wants hidden states."""
        return getattr(self.oracle, "wants_hidden", False)

    def __call__(self, key: Array, confidence: Confidence, *hidden: Array) -> Array:
        """The scores of the inner oracle plus `scale` times standard normal noise."""
        key_oracle, key_noise = jax.random.split(key)
        scores: Array = self.oracle(key_oracle, confidence, *hidden)
        return scores + self.scale * jax.random.normal(key_noise, scores.shape)


def with_noise(oracle: Oracle, scale: float) -> Oracle:
    """F + ε with ε ~ N(0, scale²) for each position: the paper's Top-K(margin + ε) for text.

    Source: Kim et al. 2025, D.1.2.

    Args:
      oracle: the oracle F.
      scale: standard deviation of the noise, in units of the oracle's score; finite, at least 0.

    Returns:
      An oracle. It is hashable, and two with equal oracles and scales are equal.

    Raises:
      InputError: `oracle` cannot be called, or `scale` is negative or not finite.

    Example:
      oracle = mdm_jax.with_noise(mdm_jax.oracles.margin, 0.0)
      logits = jnp.log(jnp.array([[[0.75, 0.25], [0.5, 0.5]]]))
      confidence = mdm_jax.confidence_from_logits(jax.random.key(0), logits)
      scores = oracle(jax.random.key(1), confidence)
      assert jnp.allclose(scores, jnp.array([[0.5, 0.0]]))
    """
    check_callable(oracle, "oracle")
    check_scalar("scale", scale, Range(0))
    return WithNoise(as_tree(oracle), float(scale))


def score_rows(oracle: Oracle, keys: Array, confidence: Confidence, hidden: Array | None = None) -> Array:
    """Calls the oracle on each row, with fields [1, L] and the row's key: scores float32 [B, L].

    An oracle that sets `wants_hidden` also gets the hidden states of the row, [1, L, D].

    Raises:
      InputError: there are no hidden states to give, or the scores have another shape or dtype.
    """
    wants_hidden = getattr(oracle, "wants_hidden", False)
    if wants_hidden and hidden is None:
        raise InputError("the oracle asks for hidden states, but the network gives logits: it must give Features")

    def score(key: Array, row: Confidence, hidden: Array | None) -> Array:
        fields = jax.tree.map(lambda field: field[None], row)
        extra = () if hidden is None else (hidden[None],)
        scores = oracle(key, fields, *extra)
        got = getattr(scores, "shape", type(scores).__name__)
        if got != (1, row.top_prob.shape[0]):
            raise InputError(
                f"the oracle must give scores of the fields' shape (1, {row.top_prob.shape[0]}), got {got}"
            )
        if jnp.issubdtype(scores.dtype, jnp.complexfloating) or not jnp.issubdtype(scores.dtype, jnp.number):
            raise InputError(f"the oracle must give scores that are real numbers, got dtype {scores.dtype}")
        return scores[0].astype(jnp.float32)

    return jax.vmap(score)(keys, confidence, hidden if wants_hidden else None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithLast:
    """An oracle whose positions come last where the token that would be revealed is one of some ids. A pytree."""

    oracle: Oracle
    ids: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def wants_hidden(self) -> bool:
        """As the oracle's."""
        return getattr(self.oracle, "wants_hidden", False)

    def __call__(self, key: Array, confidence: Confidence, *hidden: Array) -> Array:
        """The oracle's scores, and -inf at these positions."""
        scores: Array = self.oracle(key, confidence, *hidden)
        is_last = jnp.isin(confidence.token, jnp.asarray(self.ids, jnp.int32))
        return jnp.where(is_last & ~jnp.isnan(scores), -jnp.inf, scores)


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
    last = {check_mask_id(number, name="an id that comes last") for number in ids}
    return WithLast(as_tree(oracle), tuple(sorted(last)))

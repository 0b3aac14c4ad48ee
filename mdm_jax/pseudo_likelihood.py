"""How well the tokens of an answer fit one another, by the model that gave it.

The loss of a masked model asks for a token given any others, so the probability of each token given all others is
trained. What a model is sure of behind a wrong token it doubts here, once the wrong token is masked and its
consequences are seen.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.checks import as_array, call, check_mask_id, check_network, check_tokens, has_unknown_ids
from mdm_jax.errors import InputError
from mdm_jax.logits import scored_nll
from mdm_jax.masking import mask_where
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.typing import Array, Denoiser, Params


class PseudoLikelihood(NamedTuple):
    """What `pseudo_log_likelihood` returns."""

    log_prob: Array
    """float32 [B], nats"""
    nfe: Array
    """int32 scalar: network calls for the batch"""


def pseudo_log_likelihood(
    denoiser: Denoiser,
    params: Params,
    tokens: ArrayLike,
    is_free: ArrayLike,
    *,
    mask_id: int,
    num_calls: int | None = None,
) -> PseudoLikelihood:
    """Σ_{i free} log p_theta(x^i | x without the group of i): how well an answer fits itself.

    The n free positions of a row are dealt to `num_calls` groups in turn, from left to right. Each call masks one
    group. With n groups or more this is the pseudo-log-likelihood, in which each token is alone (Besag 1975; of masked
    models Salazar et al. 2020, arXiv:1910.14659). With fewer groups the tokens of a group do not see each other, which
    costs fewer calls. It is no likelihood: the free tokens are read by one another.

    Args:
      denoiser: the network, as in `sample`.
      params: parameters of the network.
      tokens: int [B, L]; a row with a mask where `is_free` has log_prob -inf, and one with an id that the network does
        not embed, or does not predict where `is_free`, NaN.
      is_free: bool [B, L]: the positions of the answer; all others are given and never masked.
      mask_id: id of the mask token.
      num_calls: the groups, at least 1; None for one each.

    Returns:
      PseudoLikelihood.

    Raises:
      InputError: a shape, a dtype or an option is invalid.

    Example:
      def denoiser(params, tokens):  # the second token is the first, and the first is the second
          known = jax.nn.one_hot(tokens[:, ::-1], 3)
          return params * known

      answers, is_free = jnp.array([[1, 1], [0, 2]]), jnp.ones((2, 2), bool)
      found = mdm_jax.pseudo_log_likelihood(denoiser, jnp.array(9.0), answers, is_free, mask_id=3)
      assert found.log_prob[0] > -0.01 and found.log_prob[1] < -17 and found.nfe == 2
    """
    check_network(denoiser, "denoiser")
    tokens, mask_id = check_tokens(tokens, "tokens", denoiser), check_mask_id(mask_id, denoiser)
    is_free = check_free(is_free, tokens)
    length = tokens.shape[1]
    if num_calls is None:
        num_calls = length
    check_number("num_calls", num_calls, Range(1, INT32), whole=True)
    return _score(denoiser, params, tokens, is_free, mask_id=mask_id, num_calls=min(operator.index(num_calls), length))


def check_free(is_free: ArrayLike, tokens: Array) -> Array:
    """Which of the tokens [B, L] were filled in, bool [B, L]; InputError if it is no such array."""
    wanted = f"bool {list(tokens.shape)}, as tokens are"
    is_free = as_array(is_free, "is_free", wanted)
    if is_free.shape != tokens.shape or is_free.dtype != bool:
        raise InputError(f"is_free must be {wanted}; got {is_free.dtype}{is_free.shape}")
    return is_free


@functools.partial(jax.jit, static_argnames=("denoiser", "mask_id", "num_calls"))
def _score(
    denoiser: Denoiser, params: Params, tokens: Array, is_free: Array, *, mask_id: int, num_calls: int
) -> PseudoLikelihood:
    rank = jnp.cumsum(is_free, axis=-1, dtype=jnp.int32) - 1
    most = jnp.minimum(is_free.sum(axis=-1, dtype=jnp.int32).max(), num_calls)
    in_a_row = -(-tokens.shape[1] // num_calls)

    def add(group: Array, total: Array) -> Array:
        is_hidden = is_free & (rank % num_calls == group)
        output = call(denoiser, params, mask_where(tokens, is_hidden, mask_id), is_hidden)
        return total - scored_nll(output, tokens, is_hidden, mask_id=mask_id, budget=in_a_row).sum(axis=-1)

    total = jax.lax.fori_loop(0, most, add, jnp.zeros(len(tokens), jnp.float32))
    is_whole = ~(is_free & (tokens == mask_id)).any(axis=-1)
    total = jnp.where(is_whole, total, -jnp.inf)
    return PseudoLikelihood(jnp.where(has_unknown_ids(tokens, denoiser), jnp.nan, total), most)

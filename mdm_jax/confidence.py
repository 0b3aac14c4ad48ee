"""What a step knows of each position, in one pass over the vocabulary, so that oracles never see logits."""

import math

import jax
import jax.numpy as jnp

from mdm_jax.denoiser import check_mask_id, float_logits
from mdm_jax.errors import InputError
from mdm_jax.randomness import row_keys, vocabulary_gumbel
from mdm_jax.typing import Array, Confidence


def is_greedy(temperature: Array | float) -> bool:
    """Whether it is known before tracing that tokens are the argmax; InputError for a negative temperature."""
    if isinstance(temperature, jax.core.Tracer):
        return False
    try:
        value = float(temperature)
    except TypeError:
        raise InputError(f"temperature must be one number, got {temperature!r}") from None
    if not 0 <= value < math.inf:
        raise InputError(f"temperature must be at least 0 and finite, got {value}")
    return value == 0


def confidence_from_logits(
    key: Array, logits: Array, *, temperature: Array | float = 1.0, mask_id: int | None = None
) -> Confidence:
    """Reads p_theta at temperature 1, and draws a token for each position at `temperature`.

    The draw is argmax(logits + temperature · Gumbel noise): p^(1/temperature), normalised; at 0 the argmax, ties to
    the lowest id.

    Args:
      key: a typed key, scalar or one per row [B]; consumed (untouched at temperature 0).
      logits: float [B, L, V] of any float dtype; read in float32.
      temperature: of `token` alone; at least 0.
      mask_id: this id cannot be predicted, if it is below V.

    Returns:
      Confidence, each field [B, L].

    Raises:
      InputError: a shape, the key, the mask id or the temperature is off.
    """
    if logits.ndim != 3:
        raise InputError(f"logits must have shape [B, L, V], got {logits.shape}")
    batch, length, vocab_size = logits.shape
    mask_id = None if mask_id is None else check_mask_id(mask_id)
    noise = None
    if not is_greedy(temperature):
        noise = temperature * vocabulary_gumbel(row_keys(key, batch), length, vocab_size)
    return confidence_given_noise(float_logits(logits, mask_id), noise)


def confidence_given_noise(logits: Array, noise: Array | None) -> Confidence:
    """The deterministic core: `token` = argmax(logits + noise), both float32 [B, L, V]; no noise is greedy."""
    if logits.shape[-1] < 2:
        raise InputError(f"the denoiser's logits must be over at least 2 tokens, got shape {logits.shape}")
    logits = jnp.where(logits == 0, 0.0, logits)  # top_k would put 0.0 before -0.0, which is no tie to the lowest id
    (top, second), (top_token, _) = (jnp.moveaxis(x, -1, 0) for x in jax.lax.top_k(logits, 2))
    total = jax.nn.logsumexp(logits, axis=-1)
    log_p = logits - total[..., None]
    p = jnp.exp(log_p)
    entropy = -jnp.where(p > 0, p * log_p, 0).sum(axis=-1)
    token = top_token if noise is None else jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)
    token_log_prob = jnp.take_along_axis(log_p, token[..., None], axis=-1)[..., 0]
    return Confidence(
        top_prob=jnp.exp(top - total),
        second_prob=jnp.exp(second - total),
        entropy=entropy,
        token=token,
        token_prob=jnp.exp(token_log_prob),
        token_log_prob=token_log_prob,
    )

"""The forward process q(x_t | x_0) and the reverse transition p_theta(x_s | x_t).

`is_masked` is True where a token is masked, here and everywhere. Source: Kim et al. 2025, section
2.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.checks import as_array, check_mask_id, check_targets, check_tokens, known_values
from mdm_jax.errors import InputError
from mdm_jax.logits import float_logits
from mdm_jax.orders import check_order, inverse
from mdm_jax.randomness import row_keys, uniform_rows
from mdm_jax.schedules import Schedule, check_schedule
from mdm_jax.typing import Array


def mask_where(x_0: Array, is_masked: Array, mask_id: int) -> Array:
    """x_0 with the mask token where `is_masked`: int32 [B, L]."""
    return jnp.where(is_masked, mask_id, x_0)


def free_positions(x_0: Array, is_prompt: Array | None) -> Array:
    """Positions that are not in the prompt, bool [B, L]."""
    if is_prompt is None:
        return jnp.ones(x_0.shape, bool)
    is_prompt = as_array(is_prompt, "is_prompt", f"bool of shape {x_0.shape}")
    if is_prompt.shape != x_0.shape or is_prompt.dtype != bool:
        raise InputError(
            f"is_prompt must be bool of shape {x_0.shape}, got {is_prompt.dtype} of shape {is_prompt.shape}"
        )
    return ~is_prompt


def per_row(values: ArrayLike, x_0: Array, name: str) -> Array:
    """`values` as [B, 1]; a scalar is broadcast to all rows."""
    values = as_array(values, name, f"one number per row, shape ({x_0.shape[0]},)")
    if values.shape not in ((), (x_0.shape[0],)):
        raise InputError(f"{name} must hold one value per row, shape ({x_0.shape[0]},), got shape {values.shape}")
    return jnp.broadcast_to(values, x_0.shape[:1])[:, None]


def times(values: ArrayLike, x_0: Array, name: str) -> Array:
    """Times as [B, 1], as `per_row`; InputError for a known one outside [0, 1]."""
    t = per_row(values, x_0, name)
    known = known_values(t)
    if known is not None and not ((known >= 0) & (known <= 1)).all():
        outside = known[~((known >= 0) & (known <= 1))][0]
        raise InputError(f"{name} must hold times from 0 (clean) to 1 (all masked), got {outside}")
    return t


def forward_mask(
    key: Array, x_0: Array, t: Array, *, schedule: Schedule, mask_id: int, is_prompt: Array | None = None
) -> tuple[Array, Array]:
    """Draws x_t ~ q(x_t | x_0): each token is masked with probability 1 - α_t, independently.

    Source: Kim et al. 2025, section 2.

    Args:
      key: a typed key, scalar or one per row [B]; consumed.
      x_0: int32 [B, L], clean tokens.
      t: float [B], or a scalar for all rows; times in [0, 1].
      schedule: α_t.
      mask_id: id of the mask token.
      is_prompt: bool [B, L], positions that are never masked; None for no prompt.

    Returns:
      x_t int32 [B, L] and is_masked bool [B, L].

    Raises:
      InputError: a shape, a dtype, a time or the mask id is invalid.

    Example:
      x_0, t = jnp.array([[3, 1, 4, 1]]), jnp.array([1.0])
      is_prompt = jnp.array([[True, False, False, False]])
      x_t, is_masked = mdm_jax.forward_mask(
          jax.random.key(0), x_0, t, schedule=mdm_jax.Linear(), mask_id=5, is_prompt=is_prompt
      )
      assert x_t.tolist() == [[3, 5, 5, 5]]
    """
    x_0, mask_id = check_tokens(x_0, "x_0"), check_mask_id(mask_id)
    check_schedule(schedule)
    uniforms = uniform_rows(row_keys(key, x_0.shape[0]), x_0.shape[1])
    is_masked = (uniforms < schedule.mask_prob(times(t, x_0, "t"))) & free_positions(x_0, is_prompt)
    return mask_where(x_0, is_masked, mask_id), is_masked


def mask_last(
    x_0: Array, order: Array, num_revealed: Array, *, mask_id: int, is_prompt: Array | None = None
) -> tuple[Array, Array]:
    """Masks the positions π(n), ..., π(L' - 1): the state after the first n steps of the order π.

    Prompt positions are removed from π, which leaves L' positions.

    Args:
      x_0: int32 [B, L], clean tokens.
      order: int32 [B, L], π.
      num_revealed: int [B], n, or a scalar for all rows.
      mask_id: id of the mask token.
      is_prompt: bool [B, L], positions that are never masked; None for no prompt.

    Returns:
      x_t int32 [B, L] and is_masked bool [B, L].

    Raises:
      InputError: a shape, a dtype, the order or the mask id is invalid.

    Example:
      x_0, order = jnp.array([[3, 1, 4, 1]]), jnp.array([[2, 0, 3, 1]])
      x_t, is_masked = mdm_jax.mask_last(x_0, order, jnp.array([2]), mask_id=5)
      assert x_t.tolist() == [[3, 5, 4, 5]]
    """
    x_0, mask_id = check_tokens(x_0, "x_0"), check_mask_id(mask_id)
    is_free, num = free_positions(x_0, is_prompt), per_row(num_revealed, x_0, "num_revealed")
    if not jnp.issubdtype(num.dtype, jnp.integer):
        raise InputError(f"num_revealed must hold whole numbers, got {num.dtype}")
    is_masked = (free_rank(order, is_free) >= num) & is_free
    return mask_where(x_0, is_masked, mask_id), is_masked


def free_rank(order: Array, is_free: Array) -> Array:
    """The rank of each free position in π without the prompt, int32 [B, L]; else arbitrary."""
    order = check_order(order, is_free)
    free_in_order = jnp.take_along_axis(is_free, order, axis=-1).astype(jnp.int32)
    return jnp.take_along_axis(jnp.cumsum(free_in_order, axis=-1) - 1, inverse(order), axis=-1)


def reverse_posterior(log_p: Array, x_t: Array, t: Array, s: Array, *, schedule: Schedule, mask_id: int) -> Array:
    """The reverse transition p_theta(x_s | x_t) of each position.

    A mask stays with probability (1 - α_s) / (1 - α_t), and otherwise becomes a token drawn from
    p_theta(. | x_t). A token stays as it is. An id that is neither below V nor the mask, such as
    padding, has no class. Source: Kim et al. 2025, section 2.

    Args:
      log_p: float [B, L, V], log p_theta(. | x_t), normalised or not.
      x_t: int32 [B, L].
      t: float [B], or a scalar for all rows; times in [0, 1].
      s: float [B], or a scalar for all rows; s <= t.
      schedule: α_t.
      mask_id: id of the mask token.

    Returns:
      float32 [B, L, V + 1], probabilities; the last class is "stays masked". NaN where x_t has no
      class.

    Raises:
      InputError: a shape, a dtype, a time or the mask id is invalid; or x_t holds an id without a
        class, if the values are known.

    Example:
      log_p, x_t = jnp.zeros((1, 2, 4)), jnp.array([[5, 3]])
      probs = mdm_jax.reverse_posterior(
          log_p, x_t, jnp.array([1.0]), jnp.array([0.5]), schedule=mdm_jax.Linear(), mask_id=5
      )
      assert jnp.allclose(probs[0, 0], jnp.array([0.125, 0.125, 0.125, 0.125, 0.5]))
      assert probs[0, 1].tolist() == [0, 0, 0, 1, 0]
    """
    x_t, mask_id = check_tokens(x_t, "x_t"), check_mask_id(mask_id)
    log_p = as_array(log_p, "log_p", "float of shape [B, L, V]")
    if log_p.ndim != 3 or log_p.shape[:2] != x_t.shape:
        raise InputError(f"log_p must have shape [{x_t.shape[0]}, {x_t.shape[1]}, V], got {log_p.shape}")
    check_schedule(schedule)
    vocab_size, is_mask = log_p.shape[-1], x_t == mask_id
    check_targets(x_t, ~is_mask, vocab_size, "x_t")
    t, s = times(t, x_t, "t"), times(s, x_t, "s")
    later, earlier = known_values(t), known_values(s)
    if later is not None and earlier is not None and (earlier > later).any():
        raise InputError("s must be at most t: the reverse process goes from t to an earlier time s")
    reveal = schedule.reveal_prob(t, s)[..., None]
    p_theta = jax.nn.softmax(float_logits(log_p, mask_id), axis=-1)
    if_masked = jnp.concatenate([reveal * p_theta, jnp.broadcast_to(1 - reveal, (*x_t.shape, 1))], axis=-1)
    has_class = is_mask | ((x_t >= 0) & (x_t < vocab_size))
    if_token = jnp.where(has_class[..., None], jax.nn.one_hot(x_t, vocab_size + 1), jnp.nan)
    return jnp.where(is_mask[..., None], if_masked, if_token)

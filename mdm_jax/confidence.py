"""What a step knows of each position, read off the logits once, so that oracles never see them.

Where the vocabulary is large the logits are made and read some positions at a time, and only of positions that are
asked for, so that no [B, L, V] is ever whole in float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.checks import as_array, check_mask_id, vocab_size_of
from mdm_jax.errors import InputError, shown
from mdm_jax.logits import float_logits, map_columns
from mdm_jax.randomness import gumbel, position_keys, row_keys
from mdm_jax.typing import Array, Confidence, Features

WHOLE = 1 << 22
"""Up to so many logits, 16 MiB of float32, are read at once, all of them."""
CHUNK = 1 << 25
"""More are read in chunks of at most so many."""
LEAST = 32
"""A chunk has at least so many positions: for each chunk the head is read from memory again."""
BYTES = 64
"""And at least one for every so many bytes of a token's column of the head, so that reading it costs no more than the
products with it."""
GROUP = 256
"""At most so many neighbouring tokens share a draw, which the tokens of one group then share out among themselves."""


def is_greedy(temperature: Array | float) -> bool:
    """Whether it is known before tracing that tokens are the argmax; InputError for what is no temperature."""
    if isinstance(temperature, jax.core.Tracer) and temperature.ndim == 0:
        return False
    try:
        if isinstance(temperature, str | bytes | bool) or np.ndim(temperature) != 0:
            raise TypeError
        value = float(temperature)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"temperature must be one number, got {shown(temperature)}") from None
    most = float(np.finfo(np.float32).max)
    if not 0 <= value <= most:
        raise InputError(f"temperature must be at least 0 and at most {most:.3g}, got {value}")
    return value == 0


def confidence_from_logits(
    key: Array, logits: Array, *, temperature: Array | float = 1.0, mask_id: int | None = None
) -> Confidence:
    """Reads p_theta at temperature 1, and draws a token for each position at `temperature`.

    The draw follows p^(1/temperature), normalised; at 0 it is the argmax, ties to the lowest id.

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
    logits = as_array(logits, "logits", "float of shape [B, L, V]")
    if logits.ndim != 3 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise InputError(f"logits must be float of shape [B, L, V], got {logits.dtype} {logits.shape}")
    return _checked(key, logits, temperature, mask_id, None)


def confidence_from_hidden(
    key: Array,
    hidden: Array,
    head: Array,
    *,
    temperature: Array | float = 1.0,
    mask_id: int | None = None,
    is_wanted: Array | None = None,
) -> Confidence:
    """`confidence_from_logits` of the logits hidden @ head, which are never all there: same fields, same draws.

    Args:
      key: a typed key, scalar or one per row [B]; consumed (untouched at temperature 0).
      hidden: float [B, L, D]; the product is taken in its dtype and summed in float32.
      head: float [D, V].
      temperature: of `token` alone; at least 0.
      mask_id: this id cannot be predicted, if it is below V.
      is_wanted: bool [B, L], the positions to read; the others cost nothing and hold zeros. None wants all.

    Returns:
      Confidence, each field [B, L].

    Raises:
      InputError: a shape, the key, the mask id or the temperature is off.
    """
    hidden, head = as_array(hidden, "hidden", "float [B, L, D]"), as_array(head, "head", "float [D, V]")
    if hidden.ndim != 3 or head.ndim != 2 or hidden.shape[2] != head.shape[0]:
        raise InputError(f"hidden and head must have shapes [B, L, D] and [D, V], got {hidden.shape} and {head.shape}")
    if is_wanted is not None:
        is_wanted = as_array(is_wanted, "is_wanted", f"bool of shape {hidden.shape[:2]}")
        if is_wanted.shape != hidden.shape[:2] or is_wanted.dtype != bool:
            raise InputError(f"is_wanted must be bool {hidden.shape[:2]}, got {is_wanted.dtype} {is_wanted.shape}")
    return _checked(key, Features(hidden, head), temperature, mask_id, is_wanted)


def _checked(
    key: Array,
    output: Array | Features,
    temperature: Array | float,
    mask_id: int | None,
    is_wanted: Array | None,
) -> Confidence:
    batch = (output.hidden if isinstance(output, Features) else output).shape[0]
    mask_id = None if mask_id is None else check_mask_id(mask_id)
    traced = None if is_greedy(temperature) else jnp.asarray(temperature, jnp.float32)
    return _read(row_keys(key, batch), output, traced, mask_id, is_wanted)


def read_confidence(
    keys: Array,
    output: Array | Features,
    temperature: Array | None,
    mask_id: int | None,
    is_wanted: Array | None,
    first: Array | None = None,
    edit: Callable[[Array], Array] | None = None,
) -> Confidence:
    """Confidence from a network's output.

    Args:
      keys: typed keys [B], one per row; not used if greedy.
      output: logits [B, L, V] of any float dtype, or Features.
      temperature: float32 scalar; None takes the likeliest tokens.
      mask_id: this id cannot be predicted, if it is below V.
      is_wanted: bool [B, L], the positions to read; the others hold zeros. None wants all.
      first: int32 [B], where in its sequence each row's first position here stands; draws are keyed by it. None for 0.
      edit: changes the logits, float32 [B, P, V] of some of the positions, before anything is read; see `edits`.

    Returns:
      Confidence, each field [B, L].
    """
    x = output.hidden if isinstance(output, Features) else output
    batch, length = x.shape[:2]
    vocab_size = vocab_size_of(output)
    if vocab_size < 2:
        raise InputError(
            f"the denoiser's logits must be over at least 2 tokens, got shape {(batch, length, vocab_size)}"
        )
    start = jnp.zeros((1, 1), jnp.int32) if first is None else first[:, None]

    def read(x: Array, indices: Array) -> Confidence:
        """Of x [B, P, D or V] at int32 [B or 1, P]."""
        logits = float_logits(Features(x, output.head) if isinstance(output, Features) else x, mask_id)
        logits = logits if edit is None else edit(logits)
        noise = None if temperature is None else token_noise(position_keys(keys, start + indices), vocab_size)
        return confidence_given_noise(logits, temperature, noise, mask_id)

    if batch * length * vocab_size <= WHOLE:
        every = read(x, jnp.arange(length, dtype=jnp.int32)[None])
        return every if is_wanted is None else jax.tree.map(lambda field: jnp.where(is_wanted, field, 0), every)
    column = output.head.shape[0] * output.head.dtype.itemsize if isinstance(output, Features) else 0
    least = -(-max(LEAST, column // BYTES) // batch)
    size = min(max(CHUNK // (batch * vocab_size), 1), max(-(-length // 8), least), length)
    size = -(-length // -(-length // size))  # all chunks alike
    wanted = jnp.ones((batch, length), bool) if is_wanted is None else is_wanted
    fields: Confidence = map_columns(
        lambda indices: read(jnp.take_along_axis(x, indices[..., None], axis=1), indices), wanted, size
    )
    return fields


_read = jax.jit(read_confidence, static_argnames="mask_id")
"""For those who call it outside jit, so that it is compiled once."""


def group_shape(vocab_size: int) -> tuple[int, int]:
    """How many groups the tokens are in, and how many are in each but the last ones.

    Groups are a multiple of 16, so that over 2, 4, 8 or 16 devices each reads groups of its own; where the last groups
    are padded, a few tokens change devices.
    """
    num_groups = 1 if vocab_size <= GROUP else 16 * -(-vocab_size // (16 * GROUP))
    return num_groups, -(-vocab_size // num_groups)


def token_noise(keys: Array, vocab_size: int) -> tuple[Array, Array]:
    """What a draw takes: Gumbel noise for each group of tokens, and for each place in a group.

    Args:
      keys: typed keys [B, P]; consumed.
      vocab_size: V.

    Returns:
      float32 [B, P, N] and [B, P, W], for N groups of W.
    """
    num_groups, width = group_shape(vocab_size)
    keys = jax.vmap(jax.vmap(jax.random.split))(keys)
    return gumbel(keys[..., 0], num_groups), gumbel(keys[..., 1], width)


def confidence_given_noise(
    logits: Array, temperature: Array | None, noise: tuple[Array, Array] | None, mask_id: int | None = None
) -> Confidence:
    """The deterministic core. The token is the Gumbel-max draw, taken in two stages of one law.

    The largest of l_i + τ G_i over a group of tokens has the law of τ log Σ exp(l_i / τ) + τ G, and which of them it is
    does not depend on it. So a group is drawn by one G each, and in it a token by one G each: for V = 126,464
    that is 751 draws.

    The token is below V, and no token that cannot be, whatever the logits hold: not-a-number counts as -inf, +inf as
    the largest number, a temperature that is none as 0. Where that was so, and where no token can be, the token's log
    probability is not-a-number. Where no token can be, so are the other fields, and the token is the lowest id but the
    mask's.

    Args:
      logits: float32 [B, P, V]; -inf where a token cannot be.
      temperature: τ, float32 scalar, or None for the likeliest token, ties to the lowest id.
      noise: as from `token_noise`, or None.
      mask_id: the id whose logit was made -inf, if any.

    Returns:
      Confidence, each field [B, P].
    """
    vocab_size, largest = logits.shape[-1], jnp.finfo(jnp.float32).max
    num_groups, width = group_shape(vocab_size)
    is_sound = logits.max(axis=-1) < jnp.inf  # a maximum with not-a-number is not-a-number
    logits = jnp.where(jnp.isnan(logits), -jnp.inf, jnp.minimum(logits, largest))
    padded = jnp.pad(logits, ((0, 0), (0, 0), (0, num_groups * width - vocab_size)), constant_values=-jnp.inf)
    groups = padded.reshape(*logits.shape[:2], num_groups, width)
    highest = groups.max(axis=-1)

    best_group, top = _first_best(highest)
    in_best, top = _first_best(_group(groups, best_group))
    second = jnp.maximum(_highest_but(highest, best_group), _highest_but(_group(groups, best_group), in_best))

    weights = jnp.exp(logits - top[..., None])
    total = weights.sum(axis=-1)
    behind = jnp.where(weights > 0, weights * (top[..., None] - logits), 0).sum(axis=-1)
    log_total = jnp.log(total)

    token, token_logit = best_group * width + in_best, top
    if temperature is not None and noise is not None:
        is_temperature = (temperature >= 0) & (temperature < jnp.inf)
        is_sound &= is_temperature
        temperature = jnp.where(is_temperature, temperature, 0)
        group_noise, noise_inside = (jnp.clip(temperature * draws, -largest, largest) for draws in noise)
        group = jnp.zeros_like(best_group)
        if num_groups > 1:
            finite = jnp.where(highest > -jnp.inf, highest, 0)  # of a group of no token that can be, too
            colder = (groups - finite[..., None]) / jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
            summed = jnp.maximum(jnp.exp(colder).sum(axis=-1), 1)  # it is at least 1 where any token can be
            of_groups = highest + temperature * jnp.log(summed)
            group, _ = _first_best(of_groups + group_noise)
        inside = _group(groups, group)
        place, _ = _first_best(inside + noise_inside)
        drawn_logit = jnp.take_along_axis(inside, place[..., None], axis=-1)[..., 0]
        can_be = drawn_logit > -jnp.inf  # but where noise so large that float32 ends drowns all differences
        token, token_logit = jnp.where(can_be, group * width + place, token), jnp.where(can_be, drawn_logit, top)
    token = jnp.where(top > -jnp.inf, token, 1 if mask_id == 0 else 0)
    token_log_prob = token_logit - top - log_total
    return Confidence(
        top_prob=1 / total,
        second_prob=jnp.exp(second - top) / total,
        entropy=log_total + behind / total,
        token=token,
        token_prob=jnp.exp(token_log_prob),
        token_log_prob=jnp.where(is_sound, token_log_prob, jnp.nan),
    )


def _first_best(scores: Array) -> tuple[Array, Array]:
    """The first place of the largest score along the last axis, int32, and the score.

    As two reductions: argmax is one over pairs, inside which XLA's CPU backend computes the scores one by one.
    """
    best, size = scores.max(axis=-1), scores.shape[-1]
    indices = jnp.where(scores == best[..., None], jnp.arange(size, dtype=jnp.int32), size - 1)
    return indices.min(axis=-1), best


def _highest_but(scores: Array, index: Array) -> Array:
    """The largest of [..., N] but for place `index` [...]."""
    return jnp.where(jax.nn.one_hot(index, scores.shape[-1], dtype=bool), -jnp.inf, scores).max(axis=-1)


def _group(groups: Array, index: Array) -> Array:
    """Of [..., G, W], the group `index` [...]: [..., W]."""
    return jnp.take_along_axis(groups, index[..., None, None], axis=-2)[..., 0, :]

"""What samplers read off the logits of each position, once per step, for all oracles.

If the vocabulary is large, the logits are made and read for a chunk of positions at a time, and
only for positions that are read, so that no float32 [B, L, V] exists in memory.
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
"""Up to this many logits (16 MiB of float32) are read in one piece."""
CHUNK = 1 << 25
"""Otherwise a chunk holds at most this many logits, or one position of every row."""
LEAST = 32
"""A chunk holds at least this many positions, as far as `CHUNK` allows: each chunk reads the whole
head from memory."""
BYTES = 64
"""It also holds at least one position for every 64 bytes of a column of the head, as far as `CHUNK`
allows, so that reading the head takes no longer than the products with it."""
GROUP = 256
"""Most tokens in a group of the two-stage draw in `confidence_given_noise`."""


def is_greedy(temperature: Array | float) -> bool:
    """Whether the temperature is 0, as known at trace time; InputError if it is invalid."""
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
    """Computes the confidence from p_theta at temperature 1, and draws a token for each position.

    The token is drawn from p^(1/temperature), normalised; at temperature 0 it is the argmax, and
    ties go to the lowest id.

    Args:
      key: a typed key, scalar or one per row [B]; consumed (not used at temperature 0).
      logits: float [B, L, V] of any float dtype; computations are in float32.
      temperature: of `token` alone; at least 0.
      mask_id: id of the mask token; if it is below V, its probability is 0.

    Returns:
      Confidence, each field [B, L].

    Raises:
      InputError: a shape, the key, the mask id or the temperature is invalid.

    Example:
      logits = jnp.log(jnp.array([[[0.7, 0.2, 0.1], [0.4, 0.5, 0.1]]]))
      confidence = mdm_jax.confidence_from_logits(jax.random.key(0), logits, temperature=0)
      assert jnp.allclose(confidence.top_prob, jnp.array([[0.7, 0.5]]))
      assert confidence.token.tolist() == [[0, 1]]
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
    """`confidence_from_logits` of the logits hidden @ head, without making all of them at once.

    Fields and draws are those of `confidence_from_logits`.

    Args:
      key: a typed key, scalar or one per row [B]; consumed (not used at temperature 0).
      hidden: float [B, L, D]; products are taken in its dtype and summed in float32.
      head: float [D, V].
      temperature: of `token` alone; at least 0.
      mask_id: id of the mask token; if it is below V, its probability is 0.
      is_wanted: bool [B, L], the positions to read; the fields are 0 at the others. None reads all.

    Returns:
      Confidence, each field [B, L].

    Raises:
      InputError: a shape, the key, the mask id or the temperature is invalid.

    Example:
      hidden, head = jnp.ones((1, 3, 2)), jnp.ones((2, 7))
      confidence = mdm_jax.confidence_from_hidden(jax.random.key(0), hidden, head)
      assert jnp.allclose(confidence.top_prob, 1 / 7)
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
    is_read: Array | None,
) -> Confidence:
    batch = (output.hidden if isinstance(output, Features) else output).shape[0]
    mask_id = None if mask_id is None else check_mask_id(mask_id)
    traced = None if is_greedy(temperature) else jnp.asarray(temperature, jnp.float32)
    return _read(row_keys(key, batch), output, traced, mask_id, is_read)


def read_confidence(
    keys: Array,
    output: Array | Features,
    temperature: Array | None,
    mask_id: int | None,
    is_read: Array | None,
    first: Array | None = None,
    edit: Callable[[Array], Array] | None = None,
) -> Confidence:
    """Computes the confidence from the output of a network.

    Args:
      keys: typed keys [B], one per row; not used if greedy.
      output: logits [B, L, V] of any float dtype, or Features.
      temperature: float32 scalar; None takes the likeliest tokens.
      mask_id: id of the mask token; if it is below V, its probability is 0.
      is_read: bool [B, L], the positions to read; the fields are 0 at the others. None reads all.
      first: int32 [B], the index in its sequence of each row's first position here, by which draws
        are keyed; None is 0.
      edit: maps the logits, float32 [B, P, V] of some positions, to others before anything is read (`edits`).

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
        """The confidence for x [B, P, D or V], which stands at positions int32 [B or 1, P]."""
        logits = float_logits(Features(x, output.head) if isinstance(output, Features) else x, mask_id)
        logits = logits if edit is None else edit(logits)
        noise = None if temperature is None else token_noise(position_keys(keys, start + indices), vocab_size)
        return confidence_given_noise(logits, temperature, noise, mask_id)

    if batch * length * vocab_size <= WHOLE:
        every = read(x, jnp.arange(length, dtype=jnp.int32)[None])
        if is_read is None:
            return every
        read_here: Array = is_read
        return jax.tree.map(lambda field: jnp.where(read_here, field, 0), every)
    column_bytes = output.head.shape[0] * output.head.dtype.itemsize if isinstance(output, Features) else 0
    least = -(-max(LEAST, column_bytes // BYTES) // batch)
    size = min(max(CHUNK // (batch * vocab_size), 1), max(-(-length // 8), least), length)
    size = -(-length // -(-length // size))  # chunks of equal size
    is_read = jnp.ones((batch, length), bool) if is_read is None else is_read
    fields: Confidence = map_columns(
        lambda indices: read(jnp.take_along_axis(x, indices[..., None], axis=1), indices), is_read, size
    )
    return fields


_read = jax.jit(read_confidence, static_argnames="mask_id")
"""`read_confidence` compiled, for calls outside jit."""


def group_shape(vocab_size: int) -> tuple[int, int]:
    """The number of groups that V tokens are cut into, and the tokens per group.

    The number of groups is 1 or a multiple of 16, so that 2, 4, 8 or 16 devices that share the
    vocabulary read whole groups. The last groups are padded.
    """
    num_groups = 1 if vocab_size <= GROUP else 16 * -(-vocab_size // (16 * GROUP))
    return num_groups, -(-vocab_size // num_groups)


def token_noise(keys: Array, vocab_size: int) -> tuple[Array, Array]:
    """Draws the noise of one token draw: Gumbel noise per group, and per index in a group.

    Args:
      keys: typed keys [B, P]; consumed.
      vocab_size: V.

    Returns:
      float32 [B, P, N] and [B, P, W], for N groups of W tokens.
    """
    num_groups, width = group_shape(vocab_size)
    keys = jax.vmap(jax.vmap(jax.random.split))(keys)
    return gumbel(keys[..., 0], num_groups), gumbel(keys[..., 1], width)


def confidence_given_noise(
    logits: Array, temperature: Array | None, noise: tuple[Array, Array] | None, mask_id: int | None = None
) -> Confidence:
    """The deterministic core of `read_confidence`: a Gumbel-max draw in two stages, which is exact.

    The maximum of l_i + τ G_i over a group of tokens has the law of τ log Σ exp(l_i / τ) + τ G, and
    is independent of which token attains it. So the first stage draws a group with one G per group,
    and the second a token with one G per token of that group. For V = 126,464 this takes 751 draws.

    The token is always below V and of finite logit if any is, whatever the logits hold: NaN counts
    as -inf, +inf as the largest finite number, and an invalid temperature as 0. In these cases, and
    if no token is possible, `token_log_prob` is NaN. If no token is possible, the other fields are
    NaN too, and the token is the lowest id that is not the mask.

    Args:
      logits: float32 [B, P, V]; -inf for tokens that are impossible.
      temperature: τ, float32 scalar; None takes the likeliest token, ties to the lowest id.
      noise: as from `token_noise`, or None.
      mask_id: the id with logit -inf, if any.

    Returns:
      Confidence, each field [B, P].
    """
    vocab_size, largest = logits.shape[-1], jnp.finfo(jnp.float32).max
    num_groups, width = group_shape(vocab_size)
    is_sound = logits.max(axis=-1) < jnp.inf  # the maximum is NaN if any logit is NaN
    logits = jnp.where(jnp.isnan(logits), -jnp.inf, jnp.minimum(logits, largest))
    padded = jnp.pad(logits, ((0, 0), (0, 0), (0, num_groups * width - vocab_size)), constant_values=-jnp.inf)
    groups = padded.reshape(*logits.shape[:2], num_groups, width)
    highest = groups.max(axis=-1)

    best_group, top = _first_best(highest)
    in_best, top = _first_best(_group(groups, best_group))
    second = jnp.maximum(_highest_but(highest, best_group), _highest_but(_group(groups, best_group), in_best))

    weights = jnp.exp(logits - top[..., None])
    total = weights.sum(axis=-1)
    gaps = jnp.where(weights > 0, weights * (top[..., None] - logits), 0).sum(axis=-1)
    log_total = jnp.log(total)

    token, token_logit = best_group * width + in_best, top
    if temperature is not None and noise is not None:
        is_temperature = (temperature >= 0) & (temperature < jnp.inf)
        is_sound &= is_temperature
        temperature = jnp.where(is_temperature, temperature, 0)
        group_noise, index_noise = (jnp.clip(temperature * draws, -largest, largest) for draws in noise)
        group = jnp.zeros_like(best_group)
        if num_groups > 1:
            # A group may hold no possible token.
            finite = jnp.where(highest > -jnp.inf, highest, 0)
            scaled = (groups - finite[..., None]) / jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
            # A group with a possible token has a sum of at least 1.
            summed = jnp.maximum(jnp.exp(scaled).sum(axis=-1), 1)
            group_logits = highest + temperature * jnp.log(summed)
            group, _ = _first_best(group_logits + group_noise)
        group_tokens = _group(groups, group)
        index, _ = _first_best(group_tokens + index_noise)
        drawn_logit = jnp.take_along_axis(group_tokens, index[..., None], axis=-1)[..., 0]
        # False only if, at the largest temperatures, every possible score overflows to -inf.
        is_possible = drawn_logit > -jnp.inf
        token = jnp.where(is_possible, group * width + index, token)
        token_logit = jnp.where(is_possible, drawn_logit, top)
    token = jnp.where(top > -jnp.inf, token, 1 if mask_id == 0 else 0)
    token_log_prob = token_logit - top - log_total
    return Confidence(
        top_prob=1 / total,
        second_prob=jnp.exp(second - top) / total,
        entropy=log_total + gaps / total,
        token=token,
        token_prob=jnp.exp(token_log_prob),
        token_log_prob=jnp.where(is_sound, token_log_prob, jnp.nan),
    )


def _first_best(scores: Array) -> tuple[Array, Array]:
    """The first index of the largest score along the last axis, int32, and that score.

    This takes two reductions. argmax is one reduction over pairs, inside which XLA's CPU backend
    computes the scores one by one.
    """
    best, size = scores.max(axis=-1), scores.shape[-1]
    indices = jnp.where(scores == best[..., None], jnp.arange(size, dtype=jnp.int32), size - 1)
    return indices.min(axis=-1), best


def _highest_but(scores: Array, index: Array) -> Array:
    """The largest of [..., N] without index [...]."""
    return jnp.where(jax.nn.one_hot(index, scores.shape[-1], dtype=bool), -jnp.inf, scores).max(axis=-1)


def _group(groups: Array, index: Array) -> Array:
    """Group `index` [...] of [..., N, W]: [..., W]."""
    return jnp.take_along_axis(groups, index[..., None, None], axis=-2)[..., 0, :]

"""Decoding from a causal model from left to right: one jitted loop with a cache.

One call reads the prompts. Then all rows move through the positions together. Each step reads the
token before a position and writes the token at it in the rows whose prompt has ended.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mdm_jax.checks import (
    as_array,
    as_tokens,
    check_ids,
    check_network,
    check_output,
    has_unknown_ids,
    known_values,
)
from mdm_jax.confidence import is_greedy, read_confidence
from mdm_jax.errors import InputError, shown
from mdm_jax.randomness import fold_rows, row_keys
from mdm_jax.ranges import INT32
from mdm_jax.typing import Array, Features, Params

FIRST = np.zeros((), np.int32)
"""The start of a first piece: a constant, so that a decoder knows while it is traced that nothing comes before."""


class Decoder(Protocol):
    """A network that reads a sequence in pieces. Hashable; see `models.decoder.make_decoder`.

    Two attributes are optional: `is_causal` (bool), and `shortest_prompt` (int, 1 if absent), the
    number of tokens that the decoder needs in its first call. Its outputs at these tokens are not
    used.
    """

    def init_cache(self, batch: int, length: int) -> Any:
        """An empty cache for sequences of up to `length` tokens: a pytree of arrays."""
        ...

    def __call__(
        self, params: Params, tokens: Array, cache: Any, start: Array | np.ndarray
    ) -> tuple[Array | Features, Any]:
        """Reads tokens int32 [B, T] at the positions `start` (int32 scalar), `start` + 1 and so on.

        Returns:
          Logits float [B, T, V], or Features; and the cache, of the same shapes, with `tokens` in
          it. If the decoder is causal, output i predicts the token after the i-th of `tokens`, and
          cache entries at or after `start` are ignored. If it is bidirectional, output i predicts
          the i-th token, and all cache entries are seen.
        """
        ...


class AutoregressiveResult(NamedTuple):
    """What `autoregressive_sample` returns."""

    tokens: Array
    """int32 [B, L]; prompts are unchanged"""
    log_prob: Array
    """float32 [B], nats: sum of log p_theta (temperature 1) of the tokens after the prompt"""
    nfe: Array
    """int32 scalar: network calls for the batch, including the one that reads the prompts"""


class DecodingState(NamedTuple):
    """The carry of the loop."""

    tokens: Array
    """int32 [B, L]: the prompts, and the tokens decoded before `position`"""
    log_prob: Array
    """float32 [B, L], nats: of each token decoded"""
    is_ended: Array
    """bool [B]: a token that ends the row was decoded"""
    cache: Any
    """the cache of the decoder, of the tokens before `position` - 1"""
    position: Array
    """int32 scalar: the next position to decode"""


def autoregressive_sample(
    decoder: Decoder,
    params: Params,
    key: Array,
    prompt: ArrayLike,
    prompt_length: ArrayLike,
    *,
    length: int,
    temperature: Array | float = 0.0,
) -> AutoregressiveResult:
    """Continues each prompt to a sequence of `length` tokens, x^i ~ p_theta(. | x^0, ..., x^{i-1}).

    Rows are independent: the tokens of a row depend neither on the other rows nor on what follows a
    prompt in `prompt`. Draws are keyed by row and position. The first call with new shapes
    compiles. Static are the decoder, `length`, and whether the temperature is 0. Everything else is
    traced.

    Args:
      decoder: the network, causal; the same or an equal object in every call.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed (not used at temperature 0).
      prompt: int [B, P], the first tokens of each sequence; tokens after the prompt of a row are
        ignored.
      prompt_length: int [B], tokens in each row's prompt, from 1 (or the decoder's
        `shortest_prompt`) to P. Under jit the values cannot be checked and are clipped to this
        range.
      length: L, a Python int, at least P.
      temperature: of the tokens drawn, at least 0; 0 takes the likeliest, ties go to the lowest id.

    Returns:
      AutoregressiveResult.

    Raises:
      InputError: a shape, a dtype or an option is invalid, or the output of the decoder is.

    Example:
      from mdm_jax.models.config import TransformerConfig
      from mdm_jax.models.decoder import make_decoder
      from mdm_jax.models.transformer import init_params

      config = TransformerConfig(
          vocab_size=5, max_length=8, num_layers=1, num_heads=1, width=8, mlp_width=16, causal=True
      )
      params = init_params(config, jax.random.key(0))
      prompt, prompt_length = jnp.array([[3, 1, 4], [2, 0, 0]]), jnp.array([3, 1])
      result = mdm_jax.autoregressive_sample(
          make_decoder(config), params, jax.random.key(1), prompt, prompt_length, length=8
      )
      assert result.tokens.shape == (2, 8) and result.tokens[0, :3].tolist() == [3, 1, 4]
    """
    end = decode_prompts(decoder, params, key, prompt, prompt_length, length=length, temperature=temperature)
    return AutoregressiveResult(end.tokens, end.log_prob.sum(axis=-1), end.nfe)


def decode_prompts(
    decoder: Decoder,
    params: Params,
    key: Array,
    prompt: ArrayLike,
    prompt_length: ArrayLike,
    *,
    length: int,
    temperature: Array | float = 0.0,
    stop: int | None = None,
    ends: tuple[int, ...] = (),
    edit: Callable[[Array], Array] | None = None,
) -> AutoregressiveResult:
    """`autoregressive_sample` with the log-probability of each token, float32 [B, L]: 0 where none was decoded.

    It stops once every row has one of `ends`; what stands behind the first end of a row is without meaning.

    Args:
      decoder: as there.
      params: as there.
      key: as there.
      prompt: as there.
      prompt_length: as there.
      length: as there.
      temperature: as there.
      stop: decode positions below this one alone; another one compiles nothing. None for all.
      ends: ids of tokens that end a row.
      edit: hashable; changes the logits before anything is read off them; see `edits`.
    """
    check_decoder(decoder, causal=True)
    check_network(decoder, "decoder")
    prompt, original = as_tokens(prompt, "prompt")
    batch, width = prompt.shape
    shortest = shortest_prompt(decoder)
    if width < shortest:
        wanted = f"this decoder's {shortest} tokens" if shortest > 1 else "one token, such as a start of every row"
        raise InputError(f"prompt must hold at least {wanted}; got {prompt.shape}")
    if isinstance(length, bool) or not isinstance(length, int) or not width <= length <= INT32:
        raise InputError(f"length must be a whole number, at least the prompt's {width}; got {shown(length)}")
    lengths = jnp.clip(check_prompt_length(prompt_length, prompt, shortest), shortest, width)
    # After a prompt any id may stand. Its keys and values could be NaN, which no mask hides.
    is_prompt = jnp.arange(width, dtype=jnp.int32)[None] < lengths[:, None]
    tokens = jnp.where(is_prompt, prompt, 0)
    known_mask, known_ids = known_values(is_prompt), known_values(original)
    if known_mask is not None and known_ids is not None:
        check_ids(np.where(known_mask, known_ids, 0), decoder, "prompt")
    greedy = is_greedy(temperature)
    return _autoregressive_sample(
        decoder,
        params,
        row_keys(key, batch),
        tokens,
        lengths,
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(length if stop is None else stop, jnp.int32),
        length=length,
        greedy=greedy,
        ends=ends,
        edit=edit,
    )


def check_decoder(decoder: Decoder, *, causal: bool) -> None:
    """InputError unless it is a decoder of the kind that is needed, causal or bidirectional."""
    if not (callable(decoder) and hasattr(decoder, "init_cache")):
        raise InputError(
            "decoder must be callable and have init_cache, as that of models.decoder.make_decoder; got "
            f"{shown(decoder)}"
        )
    if getattr(decoder, "is_causal", causal) != causal:
        needed, sampler = ("causal", "cached_sample") if causal else ("bidirectional", "autoregressive_sample")
        raise InputError(f"decoder must be {needed}; this one is for {sampler}")


def shortest_prompt(decoder: Decoder) -> int:
    """The number of tokens that the decoder needs in its first call."""
    return getattr(decoder, "shortest_prompt", 1)


def check_prompt_length(prompt_length: ArrayLike, prompt: Array, shortest: int) -> Array:
    """`prompt_length` as int32 [B].

    Raises:
      InputError: the shape or the dtype is wrong, or a value is outside `shortest` to P, if the
        values are known.
    """
    batch, width = prompt.shape
    lengths = as_array(prompt_length, "prompt_length", f"integers of shape ({batch},)")
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise InputError(f"prompt_length must be integers of shape ({batch},), got {lengths.dtype} {lengths.shape}")
    values = known_values(lengths)
    if values is not None:
        outside = [n for n in values.tolist() if not shortest <= n <= width]
        if outside:
            raise InputError(f"prompt_length must be from {shortest} to the prompt's {width}, got {outside[0]}")
    return lengths.astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("decoder", "length", "greedy", "ends", "edit"))
def _autoregressive_sample(
    decoder: Decoder,
    params: Params,
    keys: Array,
    prompt: Array,
    prompt_length: Array,
    temperature: Array,
    stop: Array,
    *,
    length: int,
    greedy: bool,
    ends: tuple[int, ...],
    edit: Callable[[Array], Array] | None,
) -> AutoregressiveResult:
    batch, width = prompt.shape
    first = prompt_length.min()

    def cond_fun(state: DecodingState) -> Array:
        return (state.position < stop) & ~state.is_ended.all()

    def body_fun(state: DecodingState) -> DecodingState:
        previous = jax.lax.dynamic_slice_in_dim(state.tokens, state.position - 1, 1, axis=1)
        output, cache = read(decoder, params, previous, state.cache, state.position - 1)
        token_keys = fold_rows(keys, state.position)
        confidence = read_confidence(token_keys, output, None if greedy else temperature, None, None, edit=edit)
        assert confidence.token_log_prob is not None
        is_position = jnp.arange(length, dtype=jnp.int32)[None] == state.position
        is_decoded = (state.position >= prompt_length)[:, None]
        is_end = jnp.isin(confidence.token, jnp.asarray(ends, jnp.int32))
        return DecodingState(
            tokens=jnp.where(is_position & is_decoded, confidence.token, state.tokens),
            log_prob=jnp.where(is_position & is_decoded, confidence.token_log_prob, state.log_prob),
            is_ended=state.is_ended | (is_end & is_decoded)[:, 0],
            cache=cache,
            position=state.position + 1,
        )

    cache = decoder.init_cache(batch, length)
    if width > 1:
        _, cache = read(decoder, params, prompt[:, :-1], cache, FIRST)
    tokens, no_one = jnp.pad(prompt, ((0, 0), (0, length - width))), jnp.zeros(batch, bool)
    start = DecodingState(tokens, jnp.zeros((batch, length)), no_one, cache, first)
    end = jax.lax.while_loop(cond_fun, body_fun, start)
    log_prob = jnp.where(has_unknown_ids(prompt, decoder)[:, None], jnp.nan, end.log_prob)
    return AutoregressiveResult(end.tokens, log_prob, end.position - first + int(width > 1))


def read(
    decoder: Decoder, params: Params, tokens: Array, cache: Any, start: Array | np.ndarray
) -> tuple[Array | Features, Any]:
    """Calls the decoder and checks the result: logits float [B, T, V] or Features, and the cache."""
    output, new_cache = decoder(params, tokens, cache, start)
    expected, got = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (cache, new_cache))
    if got != expected:
        raise InputError("the decoder must return a cache of the structure, shapes and dtypes of its init_cache")
    return check_output(output, tokens, "decoder"), new_cache

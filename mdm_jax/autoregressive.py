"""Decoding from an autoregressive model, from left to right: one jitted loop over a cache.

The prompts are read in one call. Then all rows go through the positions in lockstep: each step reads the token before
a position and, in the rows whose prompt has ended, writes the token there.
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


class Decoder(Protocol):
    """A network that reads a sequence piece by piece. Hashable; see `models.decoder.make_decoder`.

    It may say `is_causal` (bool), and `shortest_prompt` (int, 1 if it does not say): how many tokens it must be given
    to begin with. What its outputs say of those is not used.
    """

    def init_cache(self, batch: int, length: int) -> Any:
        """What it keeps of sequences of up to `length` tokens before it has read any: a pytree of arrays."""
        ...

    def __call__(self, params: Params, tokens: Array, cache: Any, start: Array) -> tuple[Array | Features, Any]:
        """Reads tokens int32 [B, T], which stand at `start` (int32 scalar), `start` + 1 and so on.

        Returns:
          Logits float [B, T, V], or Features; and the cache, of the same shapes, with `tokens` in it. Causal: output i
          predicts the token after the i-th of `tokens`, and ignores cache entries at or after `start`. Bidirectional:
          output i predicts the i-th token, and sees the whole cache.
        """
        ...


class AutoregressiveResult(NamedTuple):
    """What `autoregressive_sample` gives back."""

    tokens: Array
    """int32 [B, L]; prompts as they came"""
    log_prob: Array
    """float32 [B], nats: sum of log p_theta (temperature 1) of the tokens behind the prompt"""
    nfe: Array
    """int32 scalar: network calls made for the batch, with the one that reads the prompts"""


class DecodingState(NamedTuple):
    """The carry of the loop."""

    tokens: Array
    """int32 [B, L]: the prompts, and what was decoded before `position`"""
    log_prob: Array
    """float32 [B, L], nats: of each token decoded"""
    cache: Any
    """the decoder's, of all that stands before `position` - 1"""
    position: Array
    """int32 scalar, the next to be decoded"""


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

    Rows are independent: neither the other rows nor what stands behind a prompt change a row's tokens. Draws are keyed
    by row and position. The first call of a shape compiles; decoder, length and whether the temperature is 0 are
    static, all else is traced.

    Args:
      decoder: the network; the same object (or an equal one) in every call.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed (untouched at temperature 0).
      prompt: int [B, P], the first tokens of each sequence; what stands behind a row's prompt is ignored.
      prompt_length: int [B], how many tokens of each row are its prompt, 1 (or the decoder's `shortest_prompt`) to P.
        Under jit, where this cannot be checked, what is outside counts as the nearest of these.
      length: L, a Python int, at least P.
      temperature: of the tokens drawn; 0 takes the likeliest, ties to the lowest id.

    Returns:
      AutoregressiveResult.

    Raises:
      InputError: a shape, a dtype or an option is off, or the decoder's output is.
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
    edit: Callable[[Array], Array] | None = None,
) -> AutoregressiveResult:
    """`autoregressive_sample` with the log-probability of each token, float32 [B, L]: 0 where none was decoded.

    Args:
      decoder: as there.
      params: as there.
      key: as there.
      prompt: as there.
      prompt_length: as there.
      length: as there.
      temperature: as there.
      stop: decode positions below this one alone; another one compiles nothing. None for all.
      edit: hashable; changes the logits before anything is read off them; see `edits`.
    """
    check_decoder(decoder, causal=True)
    check_network(decoder, "decoder")
    prompt, given = as_tokens(prompt, "prompt")
    batch, width = prompt.shape
    shortest = shortest_prompt(decoder)
    if width < shortest:
        wanted = f"this decoder's {shortest} tokens" if shortest > 1 else "one token, such as a start of every row"
        raise InputError(f"prompt must hold at least {wanted}; got {prompt.shape}")
    if isinstance(length, bool) or not isinstance(length, int) or not width <= length <= INT32:
        raise InputError(f"length must be a whole number, at least the prompt's {width}; got {shown(length)}")
    lengths = jnp.clip(check_prompt_length(prompt_length, prompt, shortest), shortest, width)
    # What is behind a prompt could be no token at all, and its keys and values NaN, which no mask hides.
    is_prompt = jnp.arange(width, dtype=jnp.int32)[None] < lengths[:, None]
    tokens, known, shown_ids = jnp.where(is_prompt, prompt, 0), known_values(is_prompt), known_values(given)
    if known is not None and shown_ids is not None:
        check_ids(np.where(known, shown_ids, 0), decoder, "prompt")
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
        edit=edit,
    )


def check_decoder(decoder: Decoder, *, causal: bool) -> None:
    """InputError for what is no decoder, or says that it is of the other kind."""
    if not (callable(decoder) and hasattr(decoder, "init_cache")):
        raise InputError(
            "decoder must be callable and have init_cache, as that of models.decoder.make_decoder; got "
            f"{shown(decoder)}"
        )
    if getattr(decoder, "is_causal", causal) != causal:
        needed, sampler = ("causal", "cached_sample") if causal else ("bidirectional", "autoregressive_sample")
        raise InputError(f"decoder must be {needed}; this one is for {sampler}")


def shortest_prompt(decoder: Decoder) -> int:
    """How many tokens it must be given to begin with."""
    return getattr(decoder, "shortest_prompt", 1)


def check_prompt_length(prompt_length: ArrayLike, prompt: Array, shortest: int) -> Array:
    """`prompt_length` as int32 [B]; InputError for another shape or dtype, or, if no tracer, out of `shortest` to P."""
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


@functools.partial(jax.jit, static_argnames=("decoder", "length", "greedy", "edit"))
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
    edit: Callable[[Array], Array] | None,
) -> AutoregressiveResult:
    batch, width = prompt.shape
    first = prompt_length.min()

    def cond_fun(state: DecodingState) -> Array:
        return state.position < stop

    def body_fun(state: DecodingState) -> DecodingState:
        before = jax.lax.dynamic_slice_in_dim(state.tokens, state.position - 1, 1, axis=1)
        output, cache = read(decoder, params, before, state.cache, state.position - 1)
        here = fold_rows(keys, state.position)
        confidence = read_confidence(here, output, None if greedy else temperature, None, None, edit=edit)
        assert confidence.token_log_prob is not None
        is_here = jnp.arange(length, dtype=jnp.int32)[None] == state.position
        is_decoded = (state.position >= prompt_length)[:, None]
        return DecodingState(
            tokens=jnp.where(is_here & is_decoded, confidence.token, state.tokens),
            log_prob=jnp.where(is_here & is_decoded, confidence.token_log_prob, state.log_prob),
            cache=cache,
            position=state.position + 1,
        )

    cache = decoder.init_cache(batch, length)
    if width > 1:
        _, cache = read(decoder, params, prompt[:, :-1], cache, jnp.zeros((), jnp.int32))
    start = DecodingState(jnp.pad(prompt, ((0, 0), (0, length - width))), jnp.zeros((batch, length)), cache, first)
    end = jax.lax.while_loop(cond_fun, body_fun, start)
    log_prob = jnp.where(has_unknown_ids(prompt, decoder)[:, None], jnp.nan, end.log_prob)
    return AutoregressiveResult(end.tokens, log_prob, end.position - first + int(width > 1))


def read(decoder: Decoder, params: Params, tokens: Array, cache: Any, start: Array) -> tuple[Array | Features, Any]:
    """Calls the decoder and checks what comes back: logits float [B, T, V], or Features, and the cache."""
    output, after = decoder(params, tokens, cache, start)
    wanted, got = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (cache, after))
    if got != wanted:
        raise InputError("the decoder must give back a cache of the structure, shapes and dtypes of init_cache's")
    return check_output(output, tokens, "decoder"), after

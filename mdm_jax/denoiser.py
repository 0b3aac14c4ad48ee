"""The seam: where the tokens go out to a user's network and its predictions come back."""

import operator

import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.errors import InputError
from mdm_jax.products import project
from mdm_jax.typing import Array, Denoiser, Features, Params, SelectiveDenoiser


def check_mask_id(mask_id: int) -> int:
    """The mask token's id as a Python int; InputError unless it is one, and not negative."""
    try:
        if isinstance(mask_id, bool):
            raise TypeError
        value = operator.index(mask_id)
    except TypeError:
        raise InputError(f"mask_id must be a Python int, got {mask_id!r}") from None
    if not 0 <= value < 1 << 31:
        raise InputError(f"mask_id must be at least 0 and below 2^31, got {value}; give the id of its embedding row")
    return value


def check_tokens(tokens: ArrayLike, name: str) -> Array:
    """`tokens` as int32 [B, L]; InputError for another rank or for values that are no integers."""
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2:
        raise InputError(f"{name} must be tokens of shape [batch, length], got shape {tokens.shape}")
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise InputError(f"{name} must hold integer token ids, got dtype {tokens.dtype}")
    return tokens.astype(jnp.int32)


def float_logits(output: Array | Features, mask_id: int | None) -> Array:
    """A network's output as float32 logits in which the mask token cannot be predicted.

    Args:
      output: logits [B, L, V] of any float dtype, or Features.
      mask_id: its logit becomes -inf if it is below V; None if the network knows no mask token.

    Returns:
      float32 [B, L, V].
    """
    if isinstance(output, Features):
        logits = project(output.hidden, output.head, output.hidden.dtype)
    else:
        logits = output.astype(jnp.float32)
    if mask_id is None or mask_id >= logits.shape[-1]:
        return logits
    is_mask_id = jnp.arange(logits.shape[-1]) == mask_id
    return jnp.where(is_mask_id[None, None], -jnp.inf, logits)


def call(
    denoiser: Denoiser, params: Params, tokens: Array, is_wanted: Array | None = None, *, ways: int = 1
) -> Array | Features:
    """Calls the network and checks what comes back.

    Args:
      denoiser: the network; if it is a SelectiveDenoiser, it is told what is wanted.
      params: its parameters.
      tokens: int32 [B, L].
      is_wanted: bool [B, L], the positions that will be read; None for all.
      ways: as from `tiles.ways_of`.

    Returns:
      Logits, float [B, L, V], or Features.

    Raises:
      InputError: the output is not float [B, L, V], or Features of hidden [B, L, D] and head [D, V].
    """
    if is_wanted is not None and isinstance(denoiser, SelectiveDenoiser):
        output = denoiser.at(params, tokens, is_wanted, ways=ways)
    else:
        output = denoiser(params, tokens)
    return check_output(output, tokens, "denoiser")


def check_output(output: Array | Features, tokens: Array, network: str) -> Array | Features:
    """What a network made of `tokens` [B, L]; InputError unless it is float [B, L, V] or Features that fit."""
    if isinstance(output, Features):
        fits = output.hidden.shape == (*tokens.shape, output.head.shape[0]) and output.head.ndim == 2
        got = f"Features of hidden {output.hidden.shape} and head {output.head.shape}"
    else:
        fits = getattr(output, "ndim", 0) == 3 and output.shape[:2] == tokens.shape
        fits = fits and jnp.issubdtype(output.dtype, jnp.floating)
        got = f"{getattr(output, 'dtype', type(output).__name__)} of shape {getattr(output, 'shape', '?')}"
    if not fits:
        raise InputError(
            f"the {network} must give float logits of shape [{tokens.shape[0]}, {tokens.shape[1]}, V], got {got}"
        )
    return output

"""Checks of the tokens and ids that go into a user's network, and of the output that comes back."""

import inspect
import operator
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.typing import Array, Denoiser, FeatureDenoiser, Features, Params


def check_mask_id(mask_id: int, network: Any = None, name: str = "mask_id") -> int:
    """The id of the mask, or of another special token, as a Python int.

    Raises:
      InputError: it is no integer, it is negative, or it has no row in the embedding of the
        network, if the network gives the number of rows (`num_tokens`).
    """
    try:
        if isinstance(mask_id, bool):
            raise TypeError
        value = operator.index(mask_id)
    except TypeError:
        raise InputError(f"{name} must be a Python int, got {shown(mask_id)}") from None
    if not 0 <= value <= INT32:
        raise InputError(
            f"{name} must be at least 0 and below 2^31, got {shown(value)}; give the id of its embedding row"
        )
    num_tokens = getattr(network, "num_tokens", None)
    if num_tokens is not None and value >= num_tokens:
        raise InputError(
            f"{name} is {value}, and the network embeds the ids 0 to {num_tokens - 1} alone: give its embedding one "
            "more row (TransformerConfig.num_extra_tokens), or give the id of a row that it has"
        )
    return value


def check_callable(function: Any, name: str) -> None:
    """InputError unless `function` can be called and is no class."""
    if not callable(function) or isinstance(function, type):
        raise InputError(f"{name} must be a function or another callable object; got {shown(function)}")


def check_network(network: Any, name: str) -> None:
    """InputError unless `network` can be called and hashed, as a static argument of jit must be."""
    check_callable(network, name)
    try:
        hash(network)
    except TypeError:
        raise InputError(
            f"{name} must be hashable, and {type(network).__name__} is not: give a function, or a dataclass with "
            "frozen=True and hashable fields (parameters are a separate argument)"
        ) from None


def check_scalar(name: str, value: Any, range: Range, *, whole: bool = False) -> None:
    """InputError unless `value` is one number in `range`, of Python, NumPy or JAX; of a tracer the shape is known."""
    if isinstance(value, jax.core.Tracer):
        if value.ndim:
            raise InputError(f"{name} must be one number, got shape {value.shape}")
        return
    if isinstance(value, np.ndarray | jax.Array) and value.ndim == 0:
        value = value.item()
    check_number(name, value, range, whole=whole)


def is_tree(oracle: Any) -> bool:
    """Whether an oracle is a pytree, with traced numbers; else it is a static function."""
    return not jax.tree_util.all_leaves([oracle])


def as_array(values: Any, name: str, wanted: str) -> Array:
    """`values` as a JAX array of numbers; InputError for text, None, keys, and ragged lists."""
    try:
        if isinstance(values, str | bytes):  # jnp.asarray would take these for names of dtypes
            raise TypeError
        array = jnp.asarray(values)
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            raise TypeError
    except Exception:  # foreign objects may raise anything
        raise InputError(f"{name} must be {wanted}, got {shown(values)}") from None
    return array


def known_values(x: Any) -> np.ndarray | None:
    """The values of an array; None for a tracer, and for an array that other processes hold too."""
    if isinstance(x, jax.core.Tracer) or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return None
    return np.asarray(x)


def check_tokens(tokens: ArrayLike, name: str, network: Any = None) -> Array:
    """`tokens` as int32 [B, L], with at least one row and one position.

    Raises:
      InputError: as `as_tokens`; or, if the values are known, an id is negative, beyond int32, or
        without a row in the embedding of the network, if the network gives the number of rows
        (`num_tokens`).
    """
    tokens, array = as_tokens(tokens, name)
    check_ids(array, network, name)
    return tokens


def as_tokens(tokens: ArrayLike, name: str) -> tuple[Array, np.ndarray | Array]:
    """`tokens` as int32 [B, L], and as an array of the dtype that they came in.

    The int32 array holds -1 for an id beyond int32.

    Raises:
      InputError: the rank is not 2, the dtype is no integer, or the array is empty.
    """
    if not isinstance(tokens, jax.Array):
        try:
            tokens = np.asarray(tokens)
        except jax.errors.TracerArrayConversionError:
            tokens = jnp.asarray(tokens)
        except (ValueError, TypeError, OverflowError):  # rows of different lengths
            raise InputError(f"{name} must be tokens of shape [batch, length], got {shown(tokens)}") from None
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise InputError(f"{name} must hold integer token ids, got dtype {tokens.dtype}")
    if tokens.ndim != 2:
        raise InputError(f"{name} must be tokens of shape [batch, length], got shape {tokens.shape}")
    if 0 in tokens.shape:
        raise InputError(f"{name} must hold at least one row of at least one position, got shape {tokens.shape}")
    if jnp.iinfo(tokens.dtype).max <= INT32:
        return jnp.asarray(tokens).astype(jnp.int32), tokens
    # Without x64 JAX would truncate the ids of a NumPy array to 32 bits.
    numpy = np if isinstance(tokens, np.ndarray) else jnp
    fits = (tokens >= 0) & (tokens <= INT32)
    return jnp.asarray(numpy.where(fits, tokens, 0).astype(numpy.int32) - (~fits).astype(numpy.int32)), tokens


def check_ids(tokens: Any, network: Any, name: str) -> None:
    """InputError for the first id without a row in the network's embedding, if they are known."""
    values, num_tokens = known_values(tokens), ids_known_to(network)
    if values is None:
        return
    outside = values[(values < 0) | (values >= num_tokens)]
    if outside.size:
        raise InputError(f"{name} holds the id {outside[0]}; the ids here run from 0 to {num_tokens - 1}")


def ids_known_to(network: Any) -> int:
    """The number of ids that a network takes, from 0: its `num_tokens`, else all of int32.

    Neither V nor the id of the mask bounds it: a network may take ids that it never predicts, such
    as padding.
    """
    return getattr(network, "num_tokens", None) or INT32 + 1


def has_unknown_ids(tokens: Array, network: Any) -> Array:
    """Rows of int32 [B, L] with an id that has no row in the embedding of the network: bool [B]."""
    most = min(ids_known_to(network) - 1, INT32)
    return jnp.any((tokens < 0) | (tokens > most), axis=-1)


def vocab_size_of(output: Any) -> int:
    """V, from the output of a network or from its shapes."""
    vocab_size: int = (output.head if isinstance(output, Features) else output).shape[-1]
    return vocab_size


def check_targets(targets: Array, is_scored: Array, vocab_size: int, name: str) -> None:
    """InputError for the first scored id that has no logit, if the values are known."""
    values, scored = known_values(targets), known_values(is_scored)
    if values is None or scored is None:
        return
    outside = values[scored & ((values < 0) | (values >= vocab_size))]
    if outside.size:
        raise InputError(f"{name} holds the id {outside[0]}; the logits are of the ids 0 to {vocab_size - 1}")


def call(denoiser: Denoiser, params: Params, tokens: Array, is_read: Array | None = None) -> Array | Features:
    """Calls the network and checks its output.

    Args:
      denoiser: the network. If it is a `typing.FeatureDenoiser`, its method `features` is called.
      params: parameters of the network.
      tokens: int32 [B, L].
      is_read: bool [B, L], the positions that will be read; None for all.

    Returns:
      Logits, float [B, L, V], or Features.

    Raises:
      InputError: the output is neither float [B, L, V] nor Features of hidden [B, L, D] and head
        [D, V].
    """
    check_callable(denoiser, "denoiser")
    output = denoiser.features(params, tokens, is_read) if gives_features(denoiser) else denoiser(params, tokens)
    return check_output(output, tokens, "denoiser")


def gives_features(network: Any) -> TypeGuard[FeatureDenoiser]:
    """Whether a network has a callable `features`."""
    return callable(getattr(network, "features", None))


def takes(network: Any, name: str) -> bool:
    """Whether a network has an argument of this name, by its signature."""
    try:
        parameters = inspect.signature(network).parameters.values()
    except (TypeError, ValueError):  # of what is not written in Python
        return False
    return any(p.name == name or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def check_takes(network: Any, name: str) -> None:
    """InputError unless a network has the argument that a loss gives it."""
    if not takes(network, name):
        raise InputError(f"the loss asks the network for {name}, and a network of this kind cannot give it")


def check_output(output: Array | Features, tokens: Array, network: str) -> Array | Features:
    """`output` if it fits `tokens` [B, L]; InputError unless it is float [B, L, V] or Features."""
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

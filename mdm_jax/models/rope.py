"""Positions, and the rotary embedding of them: pure functions without parameters."""

import jax.numpy as jnp
import numpy as np

from mdm_jax.models.config import RopeScaling
from mdm_jax.typing import Array


def positions_from(is_real: Array) -> Array:
    """Positions counted from each row's first real token, so that left padding shifts nothing.

    Args:
      is_real: bool [B, L], False where the token is padding.

    Returns:
      int32 [B, L]; 0 on the padding before the first real token. A row of nothing but padding counts from its start.
    """
    first = jnp.argmax(is_real, axis=1).astype(jnp.int32)
    index = jnp.arange(is_real.shape[1], dtype=jnp.int32)
    return jnp.maximum(index[None, :] - first[:, None], 0)


def rope_tables(
    positions: Array | np.ndarray, width: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Array, Array]:
    """The cosines and sines of RoPE's angles, position · theta^(-2j/d).

    NumPy positions make them constants of the program. From traced positions they are computed where they are read.

    Args:
      positions: int [B, L], or [1, L] if all rows agree.
      width: d of a head, even.
      theta: the base of the wavelengths.
      scaling: makes them longer; None for not.

    Returns:
      Two of float32 [B or 1, L, d / 2].
    """
    frequencies = theta ** (-np.arange(width // 2) / (width // 2))
    if scaling is not None:
        turns = scaling.length * frequencies / (2 * np.pi)
        kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
        frequencies = frequencies * (kept + (1 - kept) / scaling.factor)
    angles = positions.astype(np.float32)[..., None] * np.asarray(frequencies, dtype=np.float32)[None, None]
    if isinstance(angles, np.ndarray):
        return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))
    return jnp.cos(angles), jnp.sin(angles)


def rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary position embedding: the pair (x_j, x_{j + d/2}) is rotated by its angle.

    Source: Su et al. 2021 (arXiv:2104.09864), with the pairing of LLaMA's published weights (halves, not neighbours).

    Args:
      x: [B, L, H, d], d even.
      cos: float32 [B or 1, L, d / 2], as from `rope_tables`.
      sin: the same.

    Returns:
      [B, L, H, d] in the dtype of `x`; the rotation itself is float32.
    """
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)

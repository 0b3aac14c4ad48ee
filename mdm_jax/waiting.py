"""How many steps of the loop pass before one reveals anything, so that they are passed over at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mdm_jax.typing import Array

NEAR = 16
"""Steps that `idle_steps` plans ahead at first."""
FAR = 1 << 12
"""Steps times rows that it plans at a time after these."""
FARTHEST = 1 << 20
"""Idle steps after which it stops looking."""


def idle_steps(waits: Callable[[Array], Array], batch: int) -> Array:
    """Counts the steps after this one that reveal nothing in any row, up to the first that does.

    It plans `NEAR` steps, then `FAR` / B steps at a time, and stops after about `FARTHEST` steps.

    Args:
      waits: int32 scalar n -> bool [B], whether each row reveals nothing n steps from now.
      batch: B.

    Returns:
      int32 scalar.
    """
    far = max(FAR // batch, NEAR)

    def idle_from(first: Array | int, num: int) -> Array:
        all_wait = jax.vmap(waits)(first + jnp.arange(num, dtype=jnp.int32)).all(axis=-1)
        return jnp.where(all_wait.all(), num, jnp.argmin(all_wait).astype(jnp.int32))

    def look_further(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        idle, _ = carry
        further = idle_from(idle + 1, far)
        return idle + further, (further == far) & (idle < FARTHEST)

    near = idle_from(1, NEAR)
    return jax.lax.while_loop(lambda carry: carry[1], look_further, (near, near == NEAR))[0]
